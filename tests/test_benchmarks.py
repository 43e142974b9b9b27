import json
import os
import statistics
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks import conventional, engines, epochs, gpu, report
from models import MODELS
from utils.data import ROOT, split_validation
from utils.device import Engine
from utils.recipes import RECIPES
from utils.training import Trainer

RESULTS = report.load_all()


@pytest.mark.parametrize(
    ("recipe", "rotations"), [("constant", 0), ("rotation", 1), ("plateau", 2)]
)
def test_the_conventional_loader_follows_the_recipe(recipe, rotations):
    recipe = RECIPES[recipe]
    batches = conventional.loader(True, recipe.rotations, recipe.batch_size, 0)
    assert len(batches.dataset.transform.transforms) == rotations + 2
    images, labels = next(iter(batches))
    assert images.shape == (128, 1, 28, 28)
    assert abs(images.mean()) < 0.1
    assert labels.shape == (128,)


def test_a_conventional_step_is_timed():
    seconds = conventional.seconds_per_step(MODELS[9], RECIPES["plateau"], 0, steps=2)
    assert 0 < seconds < 10


def test_the_peer_is_the_example_of_its_description():
    peer = conventional.Peer()
    assert sum(p.numel() for p in peer.parameters()) == 1_199_882
    assert peer.eval()(torch.zeros(2, 1, 28, 28)).exp().sum(1).tolist() == pytest.approx([1, 1])
    kinds = [type(layer).__name__ for layer in peer.modules() if not list(layer.children())]
    assert kinds.count("Dropout") == 2


def test_multiply_accumulates_by_hand():
    """Model 1, kernel by kernel: outputs times inputs per output."""
    forward = [
        28 * 28 * 16 * 9 * 1, 28 * 28 * 32 * 9 * 16, 14 * 14 * 16 * 32, 12 * 12 * 32 * 9 * 16,
        10 * 10 * 64 * 9 * 32, 10 * 10 * 16 * 64, 8 * 8 * 32 * 9 * 16, 6 * 6 * 64 * 9 * 32,
        10 * 36 * 64,
    ]  # fmt: skip
    assert epochs.training_macs(MODELS[1]) == 3 * sum(forward) - forward[0]


def test_a_timed_trainer_gets_its_images_back(small, monkeypatch):
    monkeypatch.setattr(epochs, "STEPS", 3)
    monkeypatch.setattr(epochs, "WARM_UP", 1)
    train, _ = split_validation(small.train)
    ours = Trainer(MODELS[9], RECIPES["plateau"], train, Engine(), 0)
    assert 0 < epochs.our_seconds_per_step(ours) < 10
    assert len(ours.images) == len(ours.labels) == 550
    assert ours.steps_per_epoch == 5


def test_the_profile_names_where_the_time_goes(small, monkeypatch):
    train, _ = split_validation(small.train)
    ours = Trainer(MODELS[9], RECIPES["plateau"], train, Engine(), 0)
    monkeypatch.setattr(epochs, "trainer", lambda *_: ours)
    shares = epochs.profile(9, steps=4)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["convolution, backward"] > 0.05
    assert shares["batch norm, ReLU, dropout"] > 0.01


def test_a_busy_machine_is_named_and_waited_for(monkeypatch, capsys):
    loads = iter([80.0, 40.0, 1.0])
    monkeypatch.setattr(epochs.psutil, "cpu_percent", lambda interval: next(loads))
    monkeypatch.setattr(epochs.time, "sleep", lambda seconds: None)
    epochs.wait_until_quiet()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"others use {n} % of the processor; waiting" for n in (80, 40)]
    monkeypatch.setattr(epochs.psutil, "cpu_percent", lambda interval: 90.0)
    epochs.wait_until_quiet(tries=2)
    assert "stays busy" in capsys.readouterr().err.splitlines()[-1]


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
    assert goal.cell({"kind": "AVX2", "x": 2.0}) == "2.0 (at most 2.0: met)"
    assert goal.cell({"kind": "AVX2", "x": 2.1}) == "2.1 (at most 2.0: **not met**)"
    assert goal.cell({"kind": "AVX2", "x": None}) == "not measured"
    by_kind = report.Goal("x", {"AMX": 1.0}, lambda results: results["x"])
    assert by_kind.cell({"kind": "AMX", "x": 2.0}) == "2.00 (at most 1.00: **not met**)"
    assert by_kind.cell({"kind": "other", "x": 2.0}) == "2.00"


def test_ratios_are_paired_within_a_round_and_fair():
    rounds = {
        "conventional_0": [10.0, 20.0],
        "conventional_1": [12.0, 16.0],
        "conventional_at_once": [8.0, 10.0],
        "run": [5.0, 4.0],
        "run_float32": [1.0, 1.0],
        "sweep": [2.0, 1.0],
    }
    assert report.conventional(rounds) == [10.0, 16.0]
    assert report.ratios(rounds, "run") == [0.5, 0.25]
    assert report.ratios(rounds, "sweep") == [0.25, 0.1]
    del rounds["conventional_at_once"]
    assert report.ratios(rounds, "sweep") is None


@pytest.mark.parametrize("results", RESULTS, ids=lambda results: results["kind"])
def test_the_committed_results_are_complete(results):
    assert {"4", "9"} <= set(results["models"])
    for figures in results["models"].values():
        assert len({len(values) for values in figures["rounds"].values()}) == 1
        assert all(value > 0 for values in figures["rounds"].values() for value in values)
        assert figures["peak_mb"] > 0
    assert {"processor", "cores", "versions", "date", "peaks", "precision"} <= set(results)
    assert f"{results['precision']}_gflops" in results["peaks"]
    assert statistics.median(report.ratios(results["models"]["9"]["rounds"], "run")) < 1


@pytest.mark.parametrize("experiment", ["9", "9-short"])
def test_both_engines_trained_the_same_seeds(experiment):
    fast, reference = engines.pairs(experiment)
    assert [record.run.seed for record in fast] == [record.run.seed for record in reference]
    assert {record.engine.fused for record in fast} == {True}
    assert {(record.engine.fused, record.engine.precision) for record in reference} == {
        (False, "float32")
    }


def test_the_gpu_program_runs_from_end_to_end_on_the_cpu(small_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    monkeypatch.setattr(gpu, "TIMED", ("9",))
    monkeypatch.setattr(gpu, "GOALS", {1: 3.0})
    monkeypatch.setattr(gpu, "at_once", lambda *_: {"1": 1.0})
    path = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--results", str(path)]) == 0
    results = json.loads(path.read_text())
    assert results["equal"]["largest difference of a weight after three steps"] == 0
    assert "| 9 | float32, 1 epochs |" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "first_steps", lambda *_: 1 / 0)
    assert gpu.main(["--device", "cpu", "--results", str(path)]) == 1
    assert json.loads(path.read_text())["seconds"]  # the later steps still ran
    assert "equal failed: ZeroDivisionError" in capsys.readouterr().err


def test_without_a_gpu_it_says_so_in_a_line(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main(["--results", str(tmp_path / "gpu.json")]) == 0
    assert capsys.readouterr().err.startswith("nothing to measure: device 'cuda' cannot be used")
    assert not (tmp_path / "gpu.json").exists()


def test_the_yardstick_is_torchs_own_layers():
    for model in MODELS:
        kinds = {type(m) for m in conventional.build(MODELS[model]).modules()}
        assert nn.MaxPool2d in kinds
        assert (nn.Dropout in kinds) == (MODELS[model].dropout > 0)
