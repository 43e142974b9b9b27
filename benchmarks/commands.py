"""What whole commands take: a run to the brief, sweeps on one and two workers, `make run`."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from models import MODELS
from utils.analysis import epochs_to_hold
from utils.data import ROOT, load_mnist
from utils.experiments import RECIPES
from utils.records import Job
from utils.training import fit
from utils.workers import on_cluster, on_this_machine


def time_to_brief() -> dict:
    """Train the short recipe once, on all cores, and see when it was there."""
    torch.set_num_threads(os.cpu_count())
    run = fit(MODELS[9], RECIPES["short"], load_mnist(), seed=0)
    held = epochs_to_hold([row.test_accuracy for row in run.history])
    return {
        "time_to_brief_s": sum(row.seconds for row in run.history[:held]) if held else None,
        "time_to_brief_epochs": held,
        "short_run_s": run.seconds,
        "short_run_epochs": len(run.history),
    }


def scaling() -> dict[str, dict[str, float]]:
    """Seconds of four runs of model 9, two epochs each, on one and two workers, start included."""
    from distributed import LocalCluster

    recipe = replace(RECIPES["plateau"], epochs=2)
    jobs = [Job("9-scaling", MODELS[9], recipe, seed) for seed in range(4)]
    one_each = {"threads_per_worker": 1, "dashboard_address": None}
    took: dict[str, dict[str, float]] = {"processes": {}, "dask": {}}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            failures = [f for _, f in on_this_machine(jobs, Path(folder), workers) if f]
            took["processes"][str(workers)] = time.perf_counter() - started
            started = time.perf_counter()
            with LocalCluster(**one_each, n_workers=workers) as cluster:
                address = cluster.scheduler_address
                ends = on_cluster(jobs, Path(folder), address, lambda job, row: None)
                failures += [f for _, f in ends if f]
            took["dask"][str(workers)] = time.perf_counter() - started
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
        subprocess.run(
            ["make", f"ENV={sys.prefix}", "-o", f"{sys.prefix}/installed", "run"],
            cwd=clone,
            check=True,
        )
        minutes = (time.perf_counter() - started) / 60
        subprocess.run(["git", "diff", "--exit-code", "--stat"], cwd=clone, check=True)
    return minutes
