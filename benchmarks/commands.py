"""Seconds of whole commands: a short run, PyTorch's example, sweeps by workers, `make run`."""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from dask.system import CPU_COUNT

from benchmarks import conventional
from benchmarks.report import BAR
from models import MODELS
from study.experiments import EXPERIMENTS
from study.records import Run
from study.sweep import sweep
from utils.data import ROOT, load_mnist
from utils.recipes import RECIPES
from utils.training import fit


def short_run() -> dict:
    """One whole run of the short recipe on all cores: its seconds, and those until it is at BAR."""
    torch.set_num_threads(CPU_COUNT)
    run = fit(MODELS[9], EXPERIMENTS["9-short"].recipe, load_mnist(), seed=0)
    reached = next((row.epoch for row in run.history if row.test_accuracy >= BAR), None)
    seconds = sum(row.seconds for row in run.history[:reached]) if reached else None
    return {"seconds": run.seconds, "seconds_to_bar": seconds}


def peer_run() -> dict:
    """PyTorch's own example on the same cores: seconds until its test accuracy is at BAR."""
    torch.set_num_threads(CPU_COUNT)
    for seconds, accuracy in conventional.peer_epochs():
        print(f"the example: {accuracy:.2f} % after {seconds:.0f} s of training", flush=True)
        if accuracy >= BAR:
            return {"seconds_to_bar": seconds}
    return {"seconds_to_bar": None}


def scaling() -> dict[str, float]:
    """Seconds of four runs of model 9, two epochs each, by number of workers; start included."""
    recipe = replace(RECIPES["plateau"], epochs=2)
    runs = [Run("9-scaling", MODELS[9], recipe, seed) for seed in range(4)]
    took = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            if failures := sweep(runs, Path(folder), workers):
                raise RuntimeError("; ".join(failures))
            took[str(workers)] = time.perf_counter() - started
    return took


def make_run_minutes() -> float:
    """Minutes of `make run` on a fresh clone of HEAD; this environment serves, none is made.

    A CalledProcessError if it fails or changes a tracked file.
    """
    with tempfile.TemporaryDirectory() as clone:
        subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), clone], check=True)
        started = time.perf_counter()
        environment = ["make", f"ENV={sys.prefix}", "-o", f"{sys.prefix}/installed"]
        subprocess.run([*environment, "run"], cwd=clone, check=True)
        minutes = (time.perf_counter() - started) / 60
        subprocess.run(["git", "diff", "--exit-code", "--stat"], cwd=clone, check=True)
    return minutes
