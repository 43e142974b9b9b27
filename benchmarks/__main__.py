"""Measure everything in one run: `make bench`, or in five minutes `make bench QUICK=1`.

On a machine that does nothing else. Writes `benchmarks/results/KIND.json`, one file per kind of
processor; `python -m benchmarks --rest` adds later what a quick run left out.
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
from pathlib import Path

from dask.system import CPU_COUNT

from benchmarks import commands, epochs, report
from study.files import write_atomically
from utils.data import ROOT
from utils.device import Engine, best_engine, processor, processor_kind


def main() -> int:
    """Measure, store, print; the exit status says nothing about the goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="models 4 and 9, three rounds")
    parser.add_argument("--rest", action="store_true", help="what --quick left out, added to it")
    parser.add_argument("--skip-make-run", action="store_true", help="leave that figure out")
    options = parser.parse_args()
    os.environ["MNIST_DEVICE"] = "cpu"  # a GPU has a program of its own
    path = report.RESULTS / f"{processor_kind().lower()}.json"
    if options.rest:
        if not path.exists():
            print("nothing to add to; measure first: make bench QUICK=1", file=sys.stderr)
            return 2
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["versions"] != versions():
            print(f"{path.name} is of {results['versions']}, here is {versions()}; measure anew: "
                  "make bench QUICK=1", file=sys.stderr)  # fmt: skip
            return 2
    else:
        results = rounds(options.quick)
        store(path, results)
    if not options.quick:
        epochs.wait_until_quiet()
        results |= whole_commands(options.skip_make_run)
        store(path, results)
    print(f"\n{report.goals_table([results])}\n\nstored in {path.relative_to(ROOT)}")
    return 0


def rounds(quick: bool) -> dict:
    """Seconds of an epoch by every way, the machine's limits, start-up and memory."""
    models, count = ((4, 9), 3) if quick else ((1, 4, 9, 10), 5)
    peaks = epochs.peaks()
    print("limits:", ", ".join(f"{name} {value:.0f}" for name, value in peaks.items()), flush=True)
    measured = epochs.measure(models, count, full=not quick)
    return {
        "kind": processor_kind(),
        "processor": processor(Engine()),
        "cores": CPU_COUNT,
        "date": datetime.date.today().isoformat(),
        "precision": best_engine("cpu").precision,
        "versions": versions(),
        "peaks": peaks,
        "steps": {"conventional": epochs.CONVENTIONAL_STEPS, "ours": epochs.STEPS},
        "models": {str(m): {"rounds": found} | probe(m) for m, found in measured.items()},
        "profile": epochs.profile(9),
    }


def versions() -> dict[str, str]:
    """Of what decides the speed."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numba")}
    return {"python": platform.python_version()} | packages


def whole_commands(skip_make_run: bool) -> dict:
    """What whole commands take, and a start with nothing compiled."""
    with tempfile.TemporaryDirectory() as empty:
        cold = probe(9, {"NUMBA_CACHE_DIR": empty})
    found = {"startup_cold_s": cold["startup_s"], "short": commands.short_run()}
    found["peer"], found["scaling"] = commands.peer_run(), commands.scaling()
    if not skip_make_run:
        found["make_run_minutes"] = commands.make_run_minutes()
    return found


def store(path: Path, results: dict) -> None:
    """Keep what was measured, also if a later part fails."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(results, indent=1) + "\n")


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
