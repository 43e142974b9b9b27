"""How long the README's commands take on a fresh clone: `python -m benchmarks.commands [run test]`.

Clones HEAD into a temporary folder, runs the targets there one after another, checks that no
tracked file changed, and notes the minutes in `benchmarks/commands.json`. The first target's time
includes the installation, unless `--clone` names a clone that has one. Run it on a machine that
does nothing else.
"""

import argparse
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands", description=__doc__)
    parser.add_argument("targets", nargs="*", default=["run", "test"])
    parser.add_argument("--clone", type=Path, help="an existing clone, instead of a fresh one")
    options = parser.parse_args()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        clone = options.clone or Path(folder) / "clone"
        if not options.clone:
            subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), str(clone)], check=True)
        for target in options.targets:
            result[f"make_{target}_minutes"] = minutes(target, clone)
        status = ["git", "status", "--porcelain"]
        changed = subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True)
    if changed.stdout:
        print(f"the commands changed tracked files:\n{changed.stdout}", file=sys.stderr)
        return 1
    result |= {"cores": os.cpu_count(), "date": datetime.date.today().isoformat()}
    write_atomically(RESULTS, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
