import statistics
from dataclasses import replace

import pytest
import torch

from models import MODELS
from utils import plots, search
from utils.analysis import evidence, final_test
from utils.experiments import CANDIDATES, RECIPES, SHORT_CANDIDATES
from utils.tables import (
    hand_count,
    ladder_table,
    layer_rows,
    layer_table,
    print_changes,
    results,
    search_table,
)


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
    from models import build

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


def test_results_show_ours_beside_the_published():
    table = results(evidence(4))
    assert "| parameters | 8,714 | 8,714 |" in table
    assert "99.29 % (epoch 14)" in table
    assert f"| **test accuracy** | **{final_test(evidence(4))}** |" in table


def test_ladder_table_has_a_line_per_experiment():
    table = ladder_table({"1": evidence(1), "9": evidence(9)}).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == ["1", "9"]


def test_search_table_marks_the_choice():
    table = search_table({"base": {9: [99.1, 99.2], 10: [99.0]}}, "base")
    assert "**base** (chosen) | 99.10 | 99.20 | 99.00 |  |" in table


def test_search_scores_come_from_validation_alone(mnist):
    scores = search.scores(search.FOLDER, mnist.checksum)
    for name in scores:
        for job in search.jobs([name], 0):
            (record,) = search.finished([job], search.FOLDER, mnist.checksum)
            assert all(accuracy is None for accuracy in record.test_accuracy)
            assert record.confusion is None
            last = [row.validation_accuracy for row in record.history[-5:]]
            assert search.score(record) == pytest.approx(sum(last) / 5)


def test_the_final_recipe_is_the_winner_of_the_search(mnist):
    chosen = search.winner(search.FOLDER, mnist.checksum)
    assert RECIPES["final"] == replace(CANDIDATES[chosen], validation=False)


def test_the_short_recipe_is_the_shortest_that_reaches_the_bar(mnist):
    scores = search.short_scores(search.FOLDER, mnist.checksum)
    bar = search.short_bar(search.FOLDER, mnist.checksum)
    chosen = search.short_winner(search.FOLDER, mnist.checksum)
    means = {name: statistics.mean(values) for name, values in scores.items()}
    names = list(scores)
    if max(means.values()) >= bar:
        assert means[chosen] >= bar
        assert all(means[name] < bar for name in names[: names.index(chosen)])
    else:
        assert means[chosen] == max(means.values())
    assert RECIPES["short"] == replace(SHORT_CANDIDATES[chosen], validation=False)


@pytest.mark.parametrize(
    ("bar", "chosen"), [(99.1, "short-6"), (99.25, "short-8"), (99.9, "short-8")]
)
def test_the_fewest_epochs_that_reach_the_bar_win(monkeypatch, tmp_path, bar, chosen):
    means = {"short-4": 99.0, "short-6": 99.2, "short-8": 99.3, "short-10": 99.1}
    scores = {name: [mean] * 3 for name, mean in means.items()}
    monkeypatch.setattr(search, "short_scores", lambda *_: scores)
    monkeypatch.setattr(search, "short_bar", lambda *_: bar)
    assert search.short_winner(tmp_path, "") == chosen


def test_an_incomplete_search_has_no_winner(tmp_path, mnist):
    with pytest.raises(ValueError, match="the search is not complete"):
        search.short_winner(tmp_path, mnist.checksum)
    with pytest.raises(ValueError, match="the search is not complete"):
        search.winner(tmp_path, mnist.checksum)


def test_every_figure_draws(mnist):
    runs = {"9": evidence(9), "10": evidence(10)}
    figures = [
        plots.samples_per_class(mnist.train, mnist.test),
        plots.strokes(plots.stroke_lengths(mnist.train)),
        plots.images(list(mnist.test.images[:3]), ["a", "b", "c"], "three digits"),
        plots.curves(runs["9"], "Model 9"),
        plots.ladder(runs),
        plots.learning_rate({"nine": [0.1, 0.01]}),
        plots.confusion(runs["9"][0].confusion),
    ]
    for figure in figures:
        assert figure.get_facecolor() == (1, 1, 1, 1)
        assert figure.get_suptitle()
        drawn = [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in drawn)
        plots.pyplot.close(figure)


def test_stroke_lengths_by_hand():
    from utils.data import Split

    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 3, 5:9] = 255
    image[0, 4, 27] = 255
    image[0, 5, 0:2] = 255
    lengths = plots.stroke_lengths(Split(image, torch.zeros(1, dtype=torch.int64)))
    assert lengths.tolist() == [4, 1, 2]
