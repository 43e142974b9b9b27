"""How long the README's two commands take on a fresh clone: `python -m benchmarks.commands`.

Clones HEAD into a temporary folder, runs `make run` and then `make test` there, checks that no
tracked file changed, and writes `benchmarks/commands.json`. Run it on a machine that does nothing
else.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from utils.data import ROOT
from utils.files import write_atomically

RESULTS = Path(__file__).parent / "commands.json"


def minutes(target: str, clone: Path) -> float:
    """Run one make target in the clone; returns its duration.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    started = time.perf_counter()
    subprocess.run(["make", target], cwd=clone, check=True)
    return (time.perf_counter() - started) / 60


def main() -> int:
    """Measure and store; a failing command or a changed file is an error."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), str(clone)], check=True)
        result = {
            "make_run_minutes": minutes("run", clone),
            "make_test_minutes": minutes("test", clone),
            "cores": os.cpu_count(),
            "date": datetime.date.today().isoformat(),
        }
        status = ["git", "status", "--porcelain"]
        changed = subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True)
        if changed.stdout:
            print(f"the commands changed tracked files:\n{changed.stdout}", file=sys.stderr)
            return 1
    write_atomically(RESULTS, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
