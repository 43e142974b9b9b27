"""One training run in a process of its own: `python -m benchmarks.probe MODEL`.

Prints JSON: seconds from the end of the imports to the end of the first step, and the peak memory
of the process after one epoch with its evaluation.
"""

import json
import re
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.epochs import recipe_of
from models import MODELS
from utils import training
from utils.data import load_mnist


def main() -> int:
    """Command line; returns the exit status."""
    started = time.perf_counter()
    model = int(sys.argv[1])
    first: list[float] = []
    plain = training.Trainer.step

    def step(*arguments):
        loss = plain(*arguments)
        if not first:
            first.append(time.perf_counter() - started)
        return loss

    training.Trainer.step = step
    training.fit(MODELS[model], replace(recipe_of(model), epochs=1), load_mnist(), seed=0)
    print(json.dumps({"startup_s": first[0], "peak_mb": peak_mb()}))
    return 0


def peak_mb() -> float:
    """Peak resident memory of this process, 10^6 bytes."""
    try:
        # Not getrusage: its peak survives exec, so that it may be the parent's.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    sys.exit(main())
