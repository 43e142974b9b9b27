"""Measure everything in one run: `make bench`, or in eight minutes `make bench QUICK=1`.

On a machine that does nothing else. Writes `benchmarks/results/KIND.json`, one file per kind of
processor.
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

from dask.system import CPU_COUNT

from benchmarks import commands, epochs, report
from study.processor import processor, processor_kind
from utils.data import ROOT
from utils.device import Engine, best_engine

QUICK = "4", "9", "best-final"  # the last has the separable body


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words = f"{' '.join(QUICK)} alone, three rounds"
    parser.add_argument("--quick", action="store_true", help=words)
    quick = parser.parse_args().quick
    os.environ["MNIST_DEVICE"] = "cpu"  # a GPU has a program of its own
    results = rounds(*((QUICK, 3) if quick else (("1", *QUICK, "10"), 5)))
    store(results)
    if not quick:
        epochs.wait_until_quiet()
        results |= whole_commands()
        store(results)
    print(f"\n{report.goals_table([results])}")


def rounds(models: tuple[str, ...], count: int) -> dict:
    """Seconds of an epoch by every way, start-up and memory."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numba")}
    found = {
        "kind": processor_kind(),
        "processor": processor(Engine()),
        "cores": CPU_COUNT,
        "date": datetime.date.today().isoformat(),
        "precision": best_engine("cpu").precision,
        "versions": {"python": platform.python_version()} | versions,
    }
    measured = epochs.measure(models, count)
    found["models"] = {m: {"rounds": ways} | probe(m) for m, ways in measured.items()}
    return found | {"profile": epochs.profile("9")}


def whole_commands() -> dict:
    """Seconds of whole commands, and of a start with nothing compiled."""
    with tempfile.TemporaryDirectory() as empty:
        cold = probe("9", NUMBA_CACHE_DIR=empty)
    return {
        "startup_cold_s": cold["startup_s"],
        "short": commands.short_run(),
        "peer": commands.peer_run(),
        "scaling": commands.scaling(),
        "make_run_minutes": commands.make_run_minutes(),
    }


def store(results: dict) -> None:
    """Keep what was measured, also if a later part fails."""
    path = report.RESULTS / f"{results['kind'].lower()}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def probe(model: str, **environment: str) -> dict[str, float]:
    """Start-up and peak memory of one run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.probe", model]
    environment = os.environ | environment
    return json.loads(subprocess.check_output(command, cwd=ROOT, env=environment, text=True))


if __name__ == "__main__":
    main()
