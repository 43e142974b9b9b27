"""What whole commands take: a run to the brief, a peer's, sweeps on one and more workers, make."""

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
from study.sweep import connected, trained
from utils.data import ROOT, load_mnist
from utils.recipes import RECIPES
from utils.training import fit


def short_run() -> dict:
    """One whole run of the short recipe on all cores: its seconds, and when it was at the bar."""
    torch.set_num_threads(CPU_COUNT)
    run = fit(MODELS[9], EXPERIMENTS["9-short"].recipe, load_mnist(), seed=0)
    there = next((row.epoch for row in run.history if row.test_accuracy >= BAR), None)
    seconds = sum(row.seconds for row in run.history[:there]) if there else None
    return {"seconds": run.seconds, "epochs": len(run.history), "seconds_to_bar": seconds}


def peer_run() -> dict:
    """PyTorch's own example on the same cores, until its test accuracy is at the bar."""
    torch.set_num_threads(CPU_COUNT)
    accuracies = []
    for seconds, accuracy in conventional.peer_epochs():
        accuracies.append(accuracy)
        print(f"the example: {accuracy:.2f} % after {seconds:.0f} s of training", flush=True)
        if accuracy >= BAR:
            return {"seconds_to_bar": seconds, "accuracies": accuracies}
    return {"seconds_to_bar": None, "accuracies": accuracies}


def scaling() -> dict[str, float]:
    """Seconds of four runs of model 9, two epochs each, by number of workers; start included."""
    recipe, data = replace(RECIPES["plateau"], epochs=2), load_mnist()
    wanted = {f"{seed}": Run("9-scaling", MODELS[9], recipe, seed) for seed in range(4)}
    took = {}
    for workers in (1, 2):
        started = time.perf_counter()
        with connected(None, workers) as client:
            failures = [why for _, why, _ in trained(client, wanted, data, "scaling") if why]
        took[str(workers)] = time.perf_counter() - started
        if failures:
            raise RuntimeError("; ".join(failures))
    return took


def make_run_minutes() -> float:
    """Minutes of `make run` on a fresh clone of HEAD; this environment serves, none is made.

    Raises:
        subprocess.CalledProcessError: if it fails or changes a tracked file.
    """
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), str(clone)], check=True)
        started = time.perf_counter()
        environment = ["make", f"ENV={sys.prefix}", "-o", f"{sys.prefix}/installed"]
        subprocess.run([*environment, "run"], cwd=clone, check=True)
        minutes = (time.perf_counter() - started) / 60
        subprocess.run(["git", "diff", "--exit-code", "--stat"], cwd=clone, check=True)
    return minutes
