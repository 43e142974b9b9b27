"""Measure everything in one run: `make bench`, or in five minutes `make bench QUICK=1`.

On a machine that does nothing else. Writes `benchmarks/results/KIND.json`, one file per kind of
processor, and renews the pages.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile

from benchmarks import commands, epochs, report
from utils.data import ROOT
from utils.engine import Engine, best_engine, processor, processor_kind
from utils.files import write_atomically


def main() -> int:
    """Measure, store, print; the exit status says nothing about the goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="models 4 and 9, three rounds")
    parser.add_argument("--skip-make-run", action="store_true", help="leave that figure out")
    options = parser.parse_args()
    os.environ["MNIST_DEVICE"] = "cpu"  # a GPU has a program of its own
    models, rounds = ((4, 9), 3) if options.quick else ((1, 4, 9, 10), 5)
    peaks = epochs.peaks()
    print("limits:", ", ".join(f"{name} {value:.0f}" for name, value in peaks.items()), flush=True)
    measured = epochs.measure(models, rounds, full=not options.quick)
    results = {
        "kind": processor_kind(),
        "processor": processor(Engine()),
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "quick": options.quick,
        "precision": best_engine("cpu").precision,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "numba")},
        "peaks": peaks,
        "steps": {"conventional": epochs.CONVENTIONAL_STEPS, "ours": epochs.STEPS},
        "models": {str(model): {"rounds": found} for model, found in measured.items()},
        "profile": epochs.profile(9),
    }
    for model in models:
        results["models"][str(model)] |= probe(model)
    if not options.quick:
        with tempfile.TemporaryDirectory() as empty:
            cold = probe(9, {"NUMBA_CACHE_DIR": empty})
        results["startup_cold_s"] = cold["startup_s"]
        results["short"], results["peer"] = commands.short_run(), commands.peer_run()
        if not options.skip_make_run:
            results["make_run_minutes"] = commands.make_run_minutes()
        results["scaling"] = commands.scaling()
    quick = "-quick" if options.quick else ""  # beside a full measurement, not in its place
    path = report.RESULTS / f"{results['kind'].lower()}{quick}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(results, indent=1) + "\n")
    print(f"\n{report.goals_table([results])}\n\nstored in {path.relative_to(ROOT)}")
    return 0


def probe(model: int, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Start-up and peak memory of one run in a process of its own."""
    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.probe", str(model)],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(printed.stdout)


if __name__ == "__main__":
    sys.exit(main())
