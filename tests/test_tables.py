import statistics
from dataclasses import replace

import pytest
import torch

from models import MODELS, build
from utils import plots, selection
from utils.analysis import final_test, runs_meeting_brief
from utils.data import Split
from utils.recipes import CANDIDATES, RECIPES, SHORT_CANDIDATES
from utils.runs import study
from utils.store import STUDY
from utils.tables import (
    hand_count,
    ladder_table,
    layer_rows,
    layer_table,
    print_changes,
    results,
    search_table,
    short_table,
)


@pytest.fixture(scope="module")
def found():
    return study(["1", "4", "9", "9-final", "10"], [STUDY])


@pytest.mark.parametrize("model", MODELS)
def test_layer_table_agrees_with_the_hand_count_layer_by_layer(model):
    rows = layer_rows(MODELS[model])
    for row in rows:
        by_hand = 1
        for factor in filter(None, row.formula.split("·")):
            by_hand *= int(factor)
        assert row.parameters == (by_hand if row.formula else 0), row
    assert sum(row.parameters for row in rows) == hand_count(MODELS[model])


@pytest.mark.parametrize("model", [1, 9])
def test_receptive_fields(model):
    rows = layer_rows(MODELS[model])
    fields = [row.receptive_field for row in rows if "ReLU" not in row.layer]
    gap = [32] if model == 9 else []
    assert fields == [3, 5, 6, 6, 10, 14, 14, 18, 22, *gap, 32]
    assert rows[-1].output == (10, 1, 1)


def test_receptive_field_agrees_with_gradients():
    # The pixels that one value of the squeeze at 14x14 depends on, found by asking autograd.
    torch.manual_seed(0)
    network = build(3).eval()
    image = torch.rand(1, 1, 28, 28, requires_grad=True)
    stages = torch.nn.Sequential(network.edges, network.pool, network.squeeze_1, network.middle)
    stages(image)[0, :, 5, 5].sum().backward()
    touched = image.grad[0, 0].abs().sum(0).nonzero()
    assert int(touched.max() - touched.min()) + 1 <= 14
    assert int(touched.max() - touched.min()) + 1 > 10


def test_layer_table_leaves_the_random_numbers_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    layer_table(MODELS[9])
    assert torch.equal(torch.get_rng_state(), before)


def test_print_changes_names_both_network_and_recipe(capsys):
    print_changes(5)
    printed = capsys.readouterr().out
    assert "network.dropout: 0.0 -> 0.01" in printed
    assert "parameters: 8,714 -> 8,694 (-20)" in printed
    print_changes(9)
    assert "recipe.schedule: constant -> plateau" in capsys.readouterr().out


def test_results_show_ours_beside_the_published(found):
    table = results(found["4"])
    assert "| parameters | 8,714 | 8,714 |" in table
    assert "99.29 % (epoch 14)" in table
    assert f"| **test accuracy** | **{final_test(found['4'])}** |" in table


def test_ladder_table_has_a_line_per_experiment(found):
    lines = [line.strip("| ").split(" | ") for line in ladder_table(found).splitlines()]
    assert [cells[0] for cells in lines[2:]] == list(found)
    for cells, runs in zip(lines[2:], found.values(), strict=True):
        assert cells[4] == str(len(runs))
        assert cells[-1] == f"{runs_meeting_brief(runs)} of {len(runs)}"
    assert lines[5][6] == ""  # the original published no final


def test_search_tables_mark_the_choice():
    table = search_table({"base": {9: [99.1, 99.2], 10: [99.0]}}, "base")
    assert "| **base** (chosen) | 99.10 | 99.20 | 99.00 |  |" in table
    table = short_table({"short-4": [99.0, 99.2], "short-6": [99.3, 99.5]}, 99.35, "short-6")
    assert "| short-4 | 99.00 | 99.20 | 99.10 | 99.35 |" in table
    assert "| **short-6** (chosen) | 99.30 | 99.50 | 99.40 | 99.35 |" in table


def test_search_scores_come_from_validation_alone():
    scores = selection.scores()
    assert list(scores) == list(CANDIDATES)
    for name, by_model in scores.items():
        for model, values in by_model.items():
            records = study([f"{model}-search-{name}"])[f"{model}-search-{name}"]
            for value, record in zip(values, records, strict=True):
                assert record.confusion is None
                assert record.test_accuracy == [None] * 15
                last = [row.validation_accuracy for row in record.history[-5:]]
                assert value == pytest.approx(sum(last) / 5)


def test_the_final_recipe_is_the_winner_of_the_search():
    table = selection.scores()
    chosen = selection.winner(table)
    assert chosen in selection.finalists(table)
    assert RECIPES["final"] == replace(CANDIDATES[chosen], validation=False)


def test_the_short_recipe_is_the_shortest_that_reaches_the_bar():
    table = selection.short_scores()
    bar = selection.short_bar(selection.scores())
    chosen = selection.short_winner(table, bar)
    means = {name: statistics.mean(values) for name, values in table.items()}
    names = list(table)
    assert names == list(SHORT_CANDIDATES)
    if max(means.values()) >= bar:
        assert means[chosen] >= bar
        assert all(means[name] < bar for name in names[: names.index(chosen)])
    else:
        assert means[chosen] == max(means.values())
    assert RECIPES["short"] == replace(SHORT_CANDIDATES[chosen], validation=False)


@pytest.mark.parametrize(
    ("bar", "chosen"), [(99.1, "short-6"), (99.25, "short-8"), (99.9, "short-8")]
)
def test_the_fewest_epochs_that_reach_the_bar_win(bar, chosen):
    means = {"short-4": 99.0, "short-6": 99.2, "short-8": 99.3, "short-10": 99.1}
    assert selection.short_winner({name: [mean] * 3 for name, mean in means.items()}, bar) == chosen


def test_round_2_decides_between_the_best_two_of_round_1():
    table = {
        "a": {9: [99.5, 99.0], 10: [99.5, 99.0]},
        "b": {9: [99.4, 99.4], 10: [99.4, 99.4]},
        "c": {9: [99.3], 10: [99.3]},
    }
    assert selection.finalists(table) == ["a", "b"]
    assert selection.winner(table) == "b"


def test_an_incomplete_search_has_no_winner(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "STUDY", tmp_path)
    for unfinished in (selection.scores, selection.short_scores):
        with pytest.raises(ValueError, match=r"no run of .* is recorded"):
            unfinished()


def test_every_figure_draws(mnist, found):
    runs = {name: found[name] for name in ("9", "9-final", "10")}
    figures = [
        plots.samples_per_class(mnist.train, mnist.test),
        plots.strokes(plots.stroke_lengths(mnist.train)),
        plots.images(list(mnist.test.images[:3]), ["a", "b", "c"], "three digits"),
        plots.curves(runs["9"], "Model 9"),
        plots.ladder(runs),
        plots.learning_rates({"nine": runs["9"][0], "final": RECIPES["final"]}),
        plots.confusion(runs["9"][0].confusion),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert figure.get_facecolor() == (1, 1, 1, 1)
        assert figure.get_suptitle()
        drawn = [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in drawn)
        plots.pyplot.close(figure)


def test_learning_rates_are_those_of_the_run_or_of_the_recipe(found):
    record, recipe = found["9"][0], RECIPES["final"]
    epochs, rates = plots._rates(record)
    assert rates[:-1] == [row.learning_rate for row in record.history]
    assert epochs == list(range(16))
    epochs, rates = plots._rates(recipe)
    assert (epochs[0], epochs[-1]) == (0, 15)
    drops = [epoch for epoch, a, b in zip(epochs[1:], rates, rates[1:], strict=False) if a != b]
    assert drops == list(recipe.milestones)


def test_stroke_lengths_by_hand():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 3, 5:9] = 255
    image[0, 4, 27] = 255
    image[0, 5, 0:2] = 255
    lengths = plots.stroke_lengths(Split(image, torch.zeros(1, dtype=torch.int64)))
    assert lengths.tolist() == [4, 1, 2]
