"""Model 9's training epoch, conventional against ours, in one run: `python -m benchmarks.epoch`.

Both pipelines are timed in turn, several rounds, on all cores; reported are medians, extremes and
the ratio. Writes `benchmarks/results.json`. Run it on a machine that does nothing else.
"""

import datetime
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks import conventional
from models import MODELS
from utils.data import load_mnist, split_validation
from utils.experiments import RECIPES
from utils.files import write_atomically
from utils.training import _Trainer, best_engine

RESULTS = Path(__file__).parent / "results.json"
MODEL = 9
ROUNDS = 5
STEPS = 40  # timed per round, after five that warm up
EPOCH_STEPS = 430  # 55,000 images in batches of 128
GOAL = 0.5  # ours at most this share of the conventional


def our_seconds_per_step(trainer: _Trainer, steps: int) -> float:
    """Mean seconds of a training step of `fit`, warps included."""
    images, labels = trainer.images, trainer.labels
    taken = 128 * (steps + 5)
    try:
        trainer.images, trainer.labels = images[: 128 * 5], labels[: 128 * 5]
        trainer._train(1, [])
        trainer.images, trainer.labels = images[:taken], labels[:taken]
        started = time.perf_counter()
        trainer._train(1, [])
        return (time.perf_counter() - started) / (steps + 5)
    finally:
        trainer.images, trainer.labels = images, labels


def measure() -> dict:
    """All rounds, interleaved; seconds per epoch of the training passes alone."""
    config, recipe = MODELS[MODEL], RECIPES["plateau"]
    fit_split, _ = split_validation(load_mnist().train)
    engine = best_engine("cpu")
    trainers = {
        "ours": _Trainer(config, recipe, fit_split, engine, seed=0),
        "ours_float32": _Trainer(
            config, recipe, fit_split, replace(engine, precision="float32"), seed=0
        ),
    }
    seconds: dict[str, list[float]] = {"workers_0": [], "workers_2": []}
    seconds |= {name: [] for name in trainers}
    for _ in range(ROUNDS):
        for workers in (0, 2):
            step = conventional.seconds_per_step(config, workers, STEPS)
            seconds[f"workers_{workers}"].append(step * EPOCH_STEPS)
        for name, trainer in trainers.items():
            seconds[name].append(our_seconds_per_step(trainer, STEPS) * EPOCH_STEPS)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    conventional_s = min(medians["workers_0"], medians["workers_2"])
    return {
        "model": MODEL,
        "conventional_s": conventional_s,
        "run_s": medians["ours"],
        "run_ratio": medians["ours"] / conventional_s,
        "rounds": seconds,
        "engine": asdict(engine),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": datetime.date.today().isoformat(),
    }


def main() -> int:
    """Measure, print, store; the exit status says nothing about the goal."""
    result = measure()
    for name, values in result["rounds"].items():
        print(
            f"{name:12s} median {statistics.median(values):6.2f} s per epoch "
            f"({min(values):.2f} to {max(values):.2f}, {len(values)} rounds)"
        )
    met = "met" if result["run_ratio"] <= GOAL else "not met"
    print(f"ours takes {result['run_ratio']:.2f} of the conventional; the goal of {GOAL} is {met}")
    write_atomically(RESULTS, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
