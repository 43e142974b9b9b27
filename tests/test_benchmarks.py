import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks import conventional, engines, epochs, report
from models import MODELS, build
from utils.data import ROOT, split_validation
from utils.experiments import RECIPES
from utils.tables import layer_rows
from utils.training import Engine, _Trainer

RESULTS = report.load()


@pytest.mark.parametrize("model", MODELS)
def test_the_conventional_network_is_the_same_of_torchs_own_layers(model):
    network = conventional.plain_network(MODELS[model])
    assert sum(p.numel() for p in network.parameters()) == layer_total(model)
    kinds = {type(layer) for layer in network.modules() if not list(layer.children())}
    assert all(kind.__module__.startswith("torch.nn") for kind in kinds)
    assert (nn.Dropout in kinds) == (MODELS[model].dropout > 0)


def layer_total(model: int) -> int:
    return sum(row.parameters for row in layer_rows(MODELS[model]))


@pytest.mark.parametrize(
    ("recipe", "rotations"), [("constant", 0), ("rotation", 1), ("plateau", 2)]
)
def test_the_conventional_loader_follows_the_recipe(recipe, rotations):
    batches = conventional.loader(RECIPES[recipe], 0)
    assert len(batches.dataset.transform.transforms) == rotations + 2
    images, labels = next(iter(batches))
    assert images.shape == (128, 1, 28, 28)
    assert abs(images.mean()) < 0.1
    assert labels.shape == (128,)


def test_multiply_accumulates_by_hand():
    """Model 1, kernel by kernel: outputs times inputs per output."""
    forward = [
        28 * 28 * 16 * 9 * 1, 28 * 28 * 32 * 9 * 16, 14 * 14 * 16 * 32, 12 * 12 * 32 * 9 * 16,
        10 * 10 * 64 * 9 * 32, 10 * 10 * 16 * 64, 8 * 8 * 32 * 9 * 16, 6 * 6 * 64 * 9 * 32,
        10 * 36 * 64,
    ]  # fmt: skip
    assert epochs.training_macs(MODELS[1]) == 3 * sum(forward) - forward[0]


def test_peak_share_is_operations_over_peak():
    seconds = 2 * epochs.training_macs(MODELS[9]) * 55_000 / 1e9
    peak = {"float32": 10.0, "bfloat16": 10.0}
    assert epochs.peak_share(MODELS[9], seconds, peak) == pytest.approx(0.1)


def test_a_timed_trainer_gets_its_images_back(small, monkeypatch):
    monkeypatch.setattr(epochs, "STEPS", 3)
    monkeypatch.setattr(epochs, "WARM_UP", 1)
    train, _ = split_validation(small.train)
    ours = _Trainer(MODELS[9], RECIPES["plateau"], train, Engine(), 0)
    assert 0 < epochs.our_seconds_per_step(ours) < 10
    assert len(ours.images) == len(ours.labels) == 550


def test_the_probe_reports_start_up_and_memory(small_root):
    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.probe", "4"],
        cwd=ROOT, env=os.environ | {"MNIST_ROOT": str(small_root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(printed.stdout)
    assert set(found) == {"startup_s", "peak_mb"}
    assert found["startup_s"] > 0
    assert 100 < found["peak_mb"] < 5_000


def test_goals_are_met_up_to_their_limit():
    goal = report.Goal("x", 2.0, lambda results: results["x"], "{:.1f}")
    assert goal.line({"x": 2.0}) == "| x | at most 2.0 | 2.0 | met |"
    assert goal.line({"x": 2.1}) == "| x | at most 2.0 | 2.1 | **not met** |"
    assert "not measured" in goal.line({"x": None})


def test_the_committed_results_are_complete_and_agree_with_themselves():
    assert set(RESULTS["models"]) == {"1", "4", "9", "10"}
    for figures in RESULTS["models"].values():
        rounds = figures["rounds"]
        assert {len(values) for values in rounds.values()} == {RESULTS["rounds"]}
        usual = min(sorted(rounds[f"workers_{w}"])[RESULTS["rounds"] // 2] for w in (0, 2))
        assert figures["conventional_s"] == pytest.approx(usual)
        for way in ("run", "sweep"):
            assert figures[f"{way}_ratio"] == pytest.approx(figures[f"{way}_s"] / usual)
        assert figures["peak_mb"] > 0
        assert 0 < figures["peak_share"] < 1
    assert {"make_run_minutes", "time_to_brief_s", "machine", "versions", "date", "scaling"} <= set(
        RESULTS
    )


@pytest.mark.parametrize("experiment", ["9", "9-short"])
def test_both_engines_trained_the_same_five_seeds(experiment):
    fast, reference = engines.runs(experiment)
    for records, fused in ((fast, True), (reference, False)):
        assert [record.seed for record in records] == [0, 1, 2, 3, 4]
        assert {record.engine.fused for record in records} == {fused}
    assert {record.engine.precision for record in reference} == {"float32"}
    assert {record.key for record in fast} == {record.key for record in reference}


def test_a_network_on_the_conventional_path_computes_the_same(mnist):
    images = (mnist.test.images[:20].unsqueeze(1).float() - 33) / 79
    torch.manual_seed(0)
    ours = build(9).eval()
    theirs = conventional.plain_network(MODELS[9]).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
