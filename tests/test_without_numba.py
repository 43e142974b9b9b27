"""Where Numba is missing, cannot compile or cannot cache, training goes on without it."""

import functools
from unittest.mock import Mock

import numpy as np

import fast
from fast import kernels
from tests.conftest import python
from utils.device import best_engine

WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None  # as if it were not installed
import torch
import models
from study import statistics as analysis, runs, trials
from utils import data, recipes, training
from study.show import look, plots, tables
from tools.small_mnist import subset
torch.set_num_threads(1)
small = subset(data.load_mnist(), 600, 200)
recipe = recipes.Recipe(learning_rate=0.05, batch_size=16, epochs=3, schedule="linear")
run = training.fit(models.MODELS[9], recipe, small, 0)
print(run.engine.fused, run.history[-1].test_accuracy)
"""


def test_without_numba_everything_works_and_one_line_says_so():
    run = python("-c", WITHOUT_NUMBA, MPLBACKEND="agg")
    assert run.returncode == 0, run.stderr
    fused, test_accuracy = run.stdout.split()
    assert fused == "False"
    assert float(test_accuracy) > 40
    # A new machine's Matplotlib may tell that it builds its font cache.
    (line,) = (line for line in run.stderr.splitlines() if "Matplotlib" not in line)
    assert line.startswith("Numba cannot be used here (ModuleNotFoundError: ")


def test_numba_that_cannot_compile_is_said_once(monkeypatch, capsys):
    broken = Mock(side_effect=OSError("no compiler\nand a second line"))
    monkeypatch.setattr("fast.layers.ReLUDropout.forward", broken)
    monkeypatch.setattr(fast, "usable", functools.cache(fast.usable.__wrapped__))  # not probed yet
    assert not fast.usable()
    assert not best_engine("cpu").fused
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Numba cannot be used here (OSError: no compiler):")


def test_numba_that_cannot_cache_compiles_all_the_same(monkeypatch):
    nowhere = RuntimeError("cannot cache function: no locator available for file 'x'")
    monkeypatch.setattr(kernels, "Cache", Mock(side_effect=nowhere))
    double = kernels.compiled(lambda x: 2 * x)
    assert double(np.float32(4)) == 8
    assert double.signatures  # compiled, not merely called


COMPILED = """if True:
    import torch, fast
    assert fast.usable()
    from fast import kernels
    x = torch.full((1, 1, 2, 2), -3.0)
    assert fast.layers.ReLUDropout()(x).abs().max() == 0
    print(sum(kernels.relu_dropout.stats.cache_hits.values()))
"""


def test_compiling_is_said_once_and_a_damaged_cache_is_compiled_anew(tmp_path):
    def run(**more) -> tuple[str, str]:
        done = python("-c", COMPILED, NUMBA_CACHE_DIR=tmp_path, **more)
        return done.stdout.strip(), done.stderr

    assert run() == ("0", "compiling the fast layers, once: it takes up to a minute\n")
    assert run() == ("1", "")
    for damage in (lambda b: b"", lambda b: b[:100], lambda b: b[:-40] + b"\0" + b[-39:]):
        for kind in ("nbi", "nbc"):
            for path in tmp_path.rglob(f"kernels.relu_dropout-*.{kind}"):
                path.write_bytes(damage(path.read_bytes()))
                assert run() == ("0", ""), (kind, path)
    assert run() == ("1", "")
    done = run(NUMBA_DISABLE_JIT="1")[1]
    assert "Numba cannot be used here (ImportError: NUMBA_DISABLE_JIT is set)" in done
