"""One training run in a process of its own, on Linux: `python -m benchmarks.probe EXPERIMENT`.

Prints JSON: seconds from the end of the imports to the end of the first step, and the peak memory
of the process after one epoch with its evaluation.
"""

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.epochs import train_steps
from study.experiments import get_experiment
from utils.data import load_mnist
from utils.training import fit


def main() -> None:
    """Measure and print."""
    started, made = time.perf_counter(), get_experiment(sys.argv[1])
    train_steps(made.name, 1, 1)
    seconds = time.perf_counter() - started
    fit(made.config, replace(made.recipe, epochs=1), load_mnist(), seed=0)
    # Not getrusage: its peak survives exec, so that it may be the parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6
    print(json.dumps({"startup_s": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
