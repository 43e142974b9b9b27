from dataclasses import replace

import pytest
import torch

from models import MODELS, SeparableConfig, build
from study import robustness
from study.published import PUBLISHED
from study.records import count_parameters
from study.show import tables
from study.show.tables import LADDER, layer_table, replication_table, results
from study.statistics import best_test, final_test, runs_meeting_brief, share_interval
from tests.test_statistics import altered
from utils.layers import layer_rows

CONFIGS = [
    *MODELS.values(),
    SeparableConfig((5, 7, 11), (1, 2, 3)),
    SeparableConfig((8, 8, 8), inner_norm=False),
    SeparableConfig((8, 8, 8), inner_affine=False),
    replace(MODELS[10], squeeze_excitation=4),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_layer_table_agrees_with_the_hand_count_layer_by_layer(config):
    before = torch.get_rng_state()
    rows = layer_rows(config)
    assert torch.equal(torch.get_rng_state(), before)
    assert rows[-1].output == (10, 1, 1)
    assert [row.by_hand for row in rows] == [row.parameters for row in rows]
    count = count_parameters(config)
    assert f"| **total** |  |  | **{count:,}** | **{count:,}** | **" in layer_table(config)


def test_multiplications_by_hand():
    rows = {row.layer.split(",")[0]: row.multiplications for row in layer_rows(MODELS[6])}
    assert rows["conv 1x1"] == 12 // 12 * 10 * 10  # the head's: ten means to ten logits
    assert layer_rows(MODELS[6])[0].multiplications == 9 * 10 * 28 * 28


@pytest.mark.parametrize(("model", "gap"), [(1, []), (9, [32])])
def test_receptive_fields(model, gap):
    fields = [row.receptive_field for row in layer_rows(MODELS[model]) if row.spatial]
    assert fields == [3, 5, 6, 6, 10, 14, 14, 18, 22, *gap, 32]


def test_behind_a_gate_a_value_depends_on_the_whole_image():
    rows = layer_rows(replace(MODELS[9], squeeze_excitation=4))
    first = next(i for i, row in enumerate(rows) if row.layer.startswith("gate"))
    assert max(row.receptive_field for row in rows[:first]) == 5
    assert min(row.receptive_field for row in rows[first:]) >= 28


def test_receptive_field_is_the_pixels_with_a_gradient():
    torch.manual_seed(0)
    network = build(3).eval()
    images = torch.rand(200, 1, 28, 28, requires_grad=True)  # each max pool passes one of four on
    stages = torch.nn.Sequential(network.edges, network.pool, network.squeeze_1, network.middle)
    stages(images)[:, :, 5, 5].sum().backward()
    rows, columns = images.grad[:, 0].abs().sum(0).nonzero().T
    field = next(r.receptive_field for r in layer_rows(MODELS[3])[::-1] if r.output[1:] == (10, 10))
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (field, field)
    assert field == 14


def test_ours_stand_beside_the_published_and_on_other_data_beside_nothing(found):
    table = results(found["4"])
    assert "| parameters | 8,714 | 8,714 |" in table
    assert "99.29 % (epoch 14)" in table
    assert f"| **test accuracy** | **{final_test(found['4'])}** |" in table
    other = [altered(found["4"][0], data_checksum="e1")]
    assert "99.29" not in results(other) + tables.table(LADDER, {"4": other})


def test_ladder_table_has_a_line_per_experiment(found):
    lines = [line.strip("| ").split(" | ") for line in tables.table(LADDER, found).splitlines()]
    assert [cells[0] for cells in lines[2:]] == list(found)
    for cells, runs in zip(lines[2:], found.values(), strict=True):
        assert cells[5] == str(len(runs))
        met, n = runs_meeting_brief(runs), len(runs)
        low, high = share_interval(met, n)
        words = f"{met} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"
        assert cells[-1] == (words if runs[0].parameters < 8_000 else "too large")
    assert lines[7][7] == ""  # the original published no final


def test_spreads_and_digits_from_elsewhere_have_a_line_per_experiment(found):
    runs = found["9-final"]
    accuracy, chance = robustness.seed_spread(runs)
    (line,) = tables.table(tables.SPREADS, {"9-final": runs}).splitlines()[2:]
    assert line == f"| 9-final | {accuracy} | {accuracy.sd:.3f} | {chance:.3f} |"
    (line,) = tables.table(tables.ELSEWHERE, {"9-final": runs}).splitlines()[2:]
    prepared, enlarged = robustness.out_of_distribution(runs)
    assert line == f"| 9-final | {prepared} | {enlarged} |"


def test_a_published_figure_is_inside_above_or_below(found, monkeypatch):
    runs = found["4"]
    best = best_test(runs).values
    cases = (min(best), "inside"), (max(best), "inside"), (100.0, "above ours"), (0.0, "below ours")
    for figure, words in cases:
        monkeypatch.setitem(PUBLISHED, 4, replace(PUBLISHED[4], test_accuracy=figure))
        assert f" | {words} | " in replication_table({4: (runs, runs)})
