import json
import re

import pytest
import torch

from benchmarks import conventional, engines, epochs, gpu, report
from study.experiments import EXPERIMENTS
from tests.conftest import python
from utils.recipes import RECIPES


@pytest.mark.parametrize("rotations", [0, 1, 2])
def test_the_conventional_pipeline_follows_the_recipe(rotations):
    recipe = RECIPES[("constant", "rotation", "plateau")[rotations]]
    batches = conventional.loader(True, recipe.rotations, recipe.batch_size, 0)
    assert len(batches.dataset.transform.transforms) == rotations + 2
    images, labels = next(iter(batches))
    assert (images.shape, labels.shape) == ((128, 1, 28, 28), (128,))
    assert abs(images.mean()) < 0.1
    for name in ("9", "best-final"):
        assert 0 < conventional.seconds_per_step(EXPERIMENTS[name].config, recipe, 0, steps=1) < 10


def test_steps_of_ours_are_timed_and_profiled_without_evaluation(small, monkeypatch):
    monkeypatch.setattr(epochs, "load_mnist", lambda: small)
    monkeypatch.setattr(epochs, "STEPS", 3)
    assert 0 < epochs.our_seconds_per_step("best-final", 1) < 10
    run = epochs.train_steps("9", 3, 2)
    assert run.confusion is run.history[-1].validation_loss is None
    shares = epochs.profile("9", steps=4)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["convolution, backward"] > 0.05
    assert shares["batch norm, ReLU, dropout"] > 0.01


def test_the_probe_reports_start_up_and_memory(small_root):
    found = json.loads(python("-m", "benchmarks.probe", "4", MNIST_ROOT=small_root).stdout)
    assert set(found) == {"startup_s", "peak_mb"}
    assert found["startup_s"] > 0
    assert 100 < found["peak_mb"] < 5_000


def test_ratios_are_paired_within_a_round_and_fair():
    rounds = {"conventional_0": [10.0, 20.0], "conventional_1": [12.0, 16.0],
              "run": [5.0, 4.0], "run_float32": [1.0, 1.0], "sweep": [2.0, 1.0]}  # fmt: skip
    assert report.conventional(rounds) == [10.0, 16.0]
    assert report.ratios(rounds, "run") == [0.5, 0.25]
    assert report.ratios(rounds, "sweep") is None
    rounds["conventional_at_once"] = [8.0, 10.0]
    assert report.ratios(rounds, "sweep") == [0.25, 0.1]
    for results in report.load_all():  # ours is faster on every kind of processor
        assert max(report.ratios(results["models"]["9"]["rounds"], "run")) < 1


@pytest.mark.parametrize("experiment", ["9", "9-short"])
def test_both_engines_trained_the_same_seeds(experiment):
    fast, reference = engines.pairs(experiment)
    seeds = list(EXPERIMENTS[f"{experiment}-reference"].seeds)
    assert [r.run.seed for r in fast] == [r.run.seed for r in reference] == seeds
    assert {record.engine.fused for record in fast} == {True}
    assert {(r.engine.fused, r.engine.precision) for r in reference} == {(False, "float32")}


def test_the_gpu_program_runs_from_end_to_end_on_the_cpu(small_root, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    monkeypatch.setattr(gpu, "TIMED", ("9-try",))
    before = gpu.load()
    assert gpu.main(["--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "after three steps in float32: 0.0e+00." in printed
    for precision in ("float32", "bfloat16"):
        assert re.search(rf"\n\| 9-try \| {precision} \| \d+\.\d\d \| \d+\.\d\d \|", printed)
    assert gpu.load() == before  # a CPU is no GPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_line(capsys):
    assert gpu.main([]) == 1
    assert capsys.readouterr().err.startswith("nothing to measure: device 'cuda' cannot be used")
    assert gpu.text(None) == "No GPU was available: **unmeasured**."
