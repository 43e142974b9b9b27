"""Everything that is unmeasured on CUDA, in one command: `make gpu`.

Equality with the CPU reference, graph against eager, precisions named as they are, seconds of runs
of 5 and 15 epochs, several seeds at once. Writes `benchmarks/gpu.json` after every step, so that
what was measured is kept if a later step fails. `--device cpu` tries the same program where there
is no GPU, on few images, so that the one chance is not lost on a typing error.
"""

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from models import MODELS
from study.experiments import get_experiment
from study.files import write_atomically
from study.show.tables import markdown
from utils.data import Dataset, load_mnist
from utils.device import Engine, best_engine, processor, reference_engine
from utils.training import Trained, fit

RESULTS = Path(__file__).parent / "gpu.json"
TIMED = ("9", "9-final", "10-final")
GOALS = {15: 3.0, 5: 1.0}  # seconds of a run of model 9, by epochs
TRIED_IMAGES = 1_000  # with --device cpu


def engines(device: str) -> dict[str, Engine]:
    """The ways to compute there that are compared."""
    plain = best_engine(device)
    float32 = dataclasses.replace(plain, precision="float32")
    found = {plain.precision: plain, "float32": float32}
    if device.startswith("cuda"):
        found["bfloat16"] = dataclasses.replace(plain, precision="bfloat16", layout="channels_last")
        found |= {
            f"{name}, graph": dataclasses.replace(engine, graph=True)
            for name, engine in list(found.items())
        }
    return found


def train(name: str, engine: Engine, data: Dataset, epochs: int, seed: int = 0) -> Trained:
    """One run of an experiment, shortened to so many epochs."""
    experiment = get_experiment(name)
    recipe = dataclasses.replace(experiment.recipe, epochs=epochs)
    return fit(experiment.config, recipe, data, seed, engine=engine)


def first_steps(device: str, data: Dataset) -> dict[str, float]:
    """How far float32 on the device is from the CPU reference after three steps.

    Order, warps and dropout come from the device's own generator; with all images in one batch and
    neither warps nor dropout only the arithmetic is compared.
    """
    few = data.train.part(slice(512))
    small = dataclasses.replace(data, train=few, test=few)
    config = dataclasses.replace(MODELS[9], dropout=0.0)
    recipe = dataclasses.replace(get_experiment("4").recipe, batch_size=512, epochs=3)
    ours, theirs = (
        fit(config, recipe, small, 0, engine=engine)
        for engine in (Engine(device, "float32", torch.get_num_threads()), reference_engine())
    )
    reference = theirs.network.state_dict()
    state = ours.network.state_dict()
    apart = {key: float((state[key] - reference[key]).abs().max()) for key in state}
    return {
        "largest difference of a weight after three steps": max(apart.values()),
        "difference of the loss": abs(ours.history[-1].train_loss - theirs.history[-1].train_loss),
    }


def seconds(device: str, data: Dataset) -> dict[str, dict[str, float]]:
    """Seconds of whole runs, data transfer and evaluation included: {experiment: {way: s}}."""
    found: dict[str, dict[str, float]] = {}
    for name in TIMED:
        for way, engine in engines(device).items():
            train(name, engine, data, 1)  # warms up
            for epochs in GOALS:
                run = train(name, engine, data, epochs)
                key = f"{way}, {epochs} epochs"
                found.setdefault(name, {})[key] = run.seconds
                found[name][f"{key}, test %"] = run.history[-1].test_accuracy
                print(f"{name}, {key}: {run.seconds:.2f} s", flush=True)
    return found


def at_once(device: str, data: Dataset) -> dict[str, float]:
    """Seconds per run of model 9, five epochs, for several processes on one device."""
    found = {}
    for count in (1, 2, 4):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=spawn) as pool:
            warm = [pool.submit(_one_of_many, device, data, 1, seed) for seed in range(count)]
            [future.result() for future in warm]
            started = time.perf_counter()
            runs = [pool.submit(_one_of_many, device, data, 5, seed) for seed in range(count)]
            [future.result() for future in runs]
        found[str(count)] = (time.perf_counter() - started) / count
        print(f"{count} at once: {found[str(count)]:.2f} s per run", flush=True)
    return found


def _one_of_many(device: str, data: Dataset, epochs: int, seed: int) -> float:
    return train("9", best_engine(device), data, epochs, seed).seconds


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        engine = best_engine(options.device)
    except ValueError as error:
        print(f"nothing to measure: {error}", file=sys.stderr)
        return 0
    data = load_mnist()
    if options.device.startswith("cpu"):
        few = slice(TRIED_IMAGES)
        data = dataclasses.replace(data, train=data.train.part(few), test=data.test.part(few))
    results: dict = {
        "device": processor(engine),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }
    steps: dict[str, Callable] = {"equal": first_steps, "seconds": seconds, "at_once": at_once}
    status = 0
    for name, step in steps.items():
        try:
            results[name] = step(options.device, data)
        except Exception as error:  # the next step may still work: this may be the only chance
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            results[name], status = None, 1
        write_atomically(options.results, json.dumps(results, indent=1) + "\n")
    print(report(results))
    return status


def report(results: dict | None) -> str:
    """Markdown: what was measured, the goals beside it."""
    if not results:
        return "No GPU has been at hand: **unmeasured**."
    rows = []
    for name, ways in (results.get("seconds") or {}).items():
        for way, value in ways.items():
            if way.endswith("epochs"):
                epochs = int(way.split(", ")[-1].split()[0])
                goal = f"at most {GOALS[epochs]:.0f}" if name == "9" else ""
                rows.append((name, way, f"{value:.2f}", goal, f"{ways[f'{way}, test %']:.2f}"))
    table = markdown(("experiment", "way", "seconds", "goal", "test %"), rows, left=2)
    equal = "; ".join(
        f"{what}: {value:.1e}" for what, value in (results.get("equal") or {}).items()
    )
    many = ", ".join(f"{n}: {s:.2f} s" for n, s in (results.get("at_once") or {}).items())
    return (
        f"{results['device']}, {results['date']}, torch {results['torch']}.\n\n{table}\n\n"
        f"Against the CPU reference in float32: {equal or 'failed'}. Seconds per run of model 9, "
        f"five epochs, by processes at once: {many or 'failed'}."
    )


def load() -> dict | None:
    """The stored results, or None."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None


if __name__ == "__main__":
    sys.exit(main())
