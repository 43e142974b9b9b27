"""Where Numba is missing, cannot compile or cannot cache, training goes on without it."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fast
from fast import kernels
from utils.data import ROOT
from utils.device import best_engine

WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None  # as if it were not installed
import torch
import models
from study import statistics as analysis, runs, trials
from utils import data, recipes, training
from study.show import look, plots, tables
torch.set_num_threads(1)
mnist = data.load_mnist()
small = data.Dataset(
    data.Split(mnist.train.images[:600], mnist.train.labels[:600]),
    data.Split(mnist.test.images[:200], mnist.test.labels[:200]), "ab",
)
recipe = recipes.Recipe(learning_rate=0.05, batch_size=16, epochs=3, schedule="linear")
run = training.fit(models.MODELS[9], recipe, small, 0)
print(run.engine.fused, run.history[-1].test_accuracy)
"""


def test_without_numba_everything_works_and_one_line_says_so():
    environment = os.environ | {"MPLBACKEND": "agg"}
    command = [sys.executable, "-c", WITHOUT_NUMBA]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    fused, test_accuracy = run.stdout.split()
    assert fused == "False"
    assert float(test_accuracy) > 40
    # A new machine's Matplotlib may tell that it builds its font cache.
    (line,) = (line for line in run.stderr.splitlines() if "Matplotlib" not in line)
    assert line.startswith("Numba cannot be used here (ModuleNotFoundError: ")


@pytest.fixture
def unprobed():
    fast.usable.cache_clear()
    yield
    fast.usable.cache_clear()


def test_numba_that_cannot_compile_is_said_once(unprobed, monkeypatch, capsys):
    def broken(*_):
        raise OSError("no compiler\nand a second line")

    monkeypatch.setattr("fast.layers.ReLUDropout.forward", broken)
    assert not fast.usable()
    assert not best_engine("cpu").fused
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Numba cannot be used here (OSError: no compiler):")


def test_numba_that_cannot_cache_compiles_all_the_same(monkeypatch):
    asked = []
    njit = kernels.njit

    def uncached(**options):
        asked.append(options.pop("cache", False))
        if asked[-1]:
            raise RuntimeError("cannot cache function: no locator available for file 'x'")
        return njit(**options)

    monkeypatch.setattr(kernels, "njit", uncached)
    double = kernels.compiled(lambda x: 2 * x)
    assert double(np.float32(4)) == 8
    assert asked == [True, False]
    assert double.signatures  # compiled, not merely called
