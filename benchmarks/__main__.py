"""Measure everything in one run and print it beside the goals: `make bench`.

Takes about half an hour on a machine that does nothing else; writes `benchmarks/results.json`.
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
from models import MODELS
from utils.data import ROOT
from utils.files import write_atomically


def main() -> int:
    """Measure, store, print; the exit status says nothing about the goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--skip-make-run", action="store_true", help="leave that figure out")
    options = parser.parse_args()
    models = epochs.measure()
    peak = epochs.matmul_gflops()
    for model, figures in models.items():
        figures |= probe(model)
        figures["peak_share"] = epochs.peak_share(MODELS[model], figures["sweep_s"], peak)
    with tempfile.TemporaryDirectory() as empty:
        cold = probe(9, {"NUMBA_CACHE_DIR": empty})
    results = {
        "models": {str(model): figures for model, figures in models.items()},
        "startup_cold_s": cold["startup_s"],
        **commands.time_to_brief(),
        "gpu_s": epochs.gpu_seconds(),
        "make_run_minutes": None if options.skip_make_run else commands.make_run_minutes(),
        # Last: a local Dask cluster changes this process's environment, the allocator's settings.
        "scaling": commands.scaling(),
        "rounds": epochs.ROUNDS,
        "steps": epochs.STEPS,
        "conventional_steps": epochs.CONVENTIONAL_STEPS,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "gflops": peak},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "numba")},
        "date": datetime.date.today().isoformat(),
    }
    write_atomically(report.RESULTS, json.dumps(results, indent=1) + "\n")
    for part in (report.machine_text, report.epochs_table, report.goals_table):
        print(f"\n{part(results)}")
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


def processor() -> str:
    """Architecture and, where Linux tells, the processor's name."""
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{platform.machine()}, {name}"


if __name__ == "__main__":
    sys.exit(main())
