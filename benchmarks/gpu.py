"""Training on a GPU in one timing: `make gpu`; `--device cpu` tries the program on few images.

Checks the device's arithmetic against the CPU, times the networks of `TIMED` in two precisions, and
writes benchmarks/gpu.json.
"""

import argparse
import datetime
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from models import MODELS
from study.experiments import get_experiment
from study.processor import processor
from study.show.tables import markdown
from utils.data import Dataset, load_mnist
from utils.device import Engine, best_engine, reference_engine
from utils.recipes import Recipe
from utils.training import fit

RESULTS = Path(__file__).parent / "gpu.json"
TIMED = ("9", "best-final")
FEW = 1_000  # images with --device cpu


def difference(device: str, data: Dataset) -> float:
    """Largest difference of a weight from the CPU's after three steps in float32."""
    # All images in one batch, no augmentation, no dropout: what is left is arithmetic.
    few = data.train.part(slice(512))
    small, config = replace(data, train=few, test=few), replace(MODELS[9], dropout=0.0)
    recipe = Recipe(batch_size=512, epochs=3)
    engines = Engine(device, threads=torch.get_num_threads()), reference_engine()
    ours, theirs = (fit(config, recipe, small, 0, engine=e).network.state_dict() for e in engines)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


def seconds(device: str, data: Dataset) -> list[dict]:
    """Whole runs: experiment, precision, seconds, and test accuracy in percent."""
    found = []
    for name, precision in itertools.product(TIMED, ("float32", "bfloat16")):
        named, engine = get_experiment(name), best_engine(device, precision)
        fit(named.config, replace(named.recipe, epochs=1), data, 0, engine=engine)  # warms up
        run = fit(named.config, named.recipe, data, 0, engine=engine)
        row = {"experiment": name, "precision": precision, "seconds": run.seconds}
        found.append(row | {"test %": run.history[-1].test_accuracy})
    return found


def text(found: dict | None) -> str:
    """Markdown: what was measured, or that nothing was."""
    if not found:
        return "No GPU was available: **unmeasured**."
    rows = [[f"{v:.2f}" if isinstance(v, float) else v for v in r.values()] for r in found["runs"]]
    return (
        f"{found['device']}, {found['date']}, torch {found['torch']}; largest difference of a "
        f"weight from the CPU's after three steps in float32: {found['difference']:.1e}.\n\n"
        + markdown(found["runs"][0], rows, left=2)
    )


def load() -> dict | None:
    """The stored measurement, if there is one."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None


def main(arguments: list[str] | None = None) -> int:
    """Measure and print, on a GPU also store; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args(arguments).device
    try:
        engine = best_engine(device)
    except ValueError as error:
        print(f"nothing to measure: {error}", file=sys.stderr)
        return 1
    data, on_cpu = load_mnist(), device.startswith("cpu")
    if on_cpu:
        data = replace(data, train=data.train.part(slice(FEW)), test=data.test.part(slice(FEW)))
    found = {"device": processor(engine), "date": datetime.date.today().isoformat(),
             "torch": torch.__version__, "difference": difference(device, data),
             "runs": seconds(device, data)}  # fmt: skip
    if not on_cpu:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
