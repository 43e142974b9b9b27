"""Count what the tests cannot try in minutes: `python -m tools.reliability [kills] [mutants] ...`.

The counts go to docs/reliability.json, from which `tools.pages` makes the table of
docs/reliability.md. Changed bytes and values of the wrong type are tried by the unit tests; their
counts in that file were taken by a former version of this program.
"""

import contextlib
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
from dask.system import CPU_COUNT

from study.experiments import FINALS
from study.processor import processor
from study.runs import recorded, wanted_runs
from study.statistics import final_test
from study.store import RecordError, load_all, load_network
from tools import mutants, pages
from tools.small_mnist import subset, write_idx
from utils.data import ROOT, load_mnist
from utils.device import best_engine

KILLS, RACES = 20, 4
SUSPENDED = 330  # seconds; Dask's default time to live is 300
SWEEP = [sys.executable, "-m", "study.sweep"]


@contextlib.contextmanager
def _small_sweep() -> Iterator[tuple[Path, Path, dict[str, str]]]:
    """A folder, a small data set in it, and the checksums of an undisturbed sweep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_idx(folder / "data", subset(load_mnist(), 3_000, 500))
        if status := _sweep(folder / "reference", folder / "data").wait():
            raise RuntimeError(f"the sweep to compare with ended with status {status}")
        yield folder, folder / "data", _checksums(folder / "reference")


def kills() -> dict[str, int]:
    """Kill a sweep at random moments: its parent, a worker or all; then run it to its end."""
    seen, memory_before = Counter(), _shared_memory()
    with _small_sweep() as (folder, data, reference):
        while seen["kills"] < KILLS:
            with tempfile.TemporaryDirectory(dir=folder) as store:
                _kill(Path(store), data, reference, seen)
    return dict(seen) | {"shared memory": len(_shared_memory() - memory_before)}


def suspensions() -> dict[str, int]:
    """Stop sweeps and their workers for longer than Dask's scheduler waits for a silent worker."""
    with _small_sweep() as (folder, data, reference):
        sweeps = {folder / str(turn): _sweep(folder / str(turn), data) for turn in range(4)}
        for process in sweeps.values():
            _workers(process)
            os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(SUSPENDED)
        for process in sweeps.values():
            os.killpg(process.pid, signal.SIGCONT)
        for process in sweeps.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(600)
        identical = sum(_checksums(store) == reference for store in sweeps)
    return {"times": len(sweeps), "seconds": SUSPENDED, "identical": identical}


def races() -> dict[str, int]:
    """Start the same sweep twice at once, into one store; no run may be there twice or torn."""
    with _small_sweep() as (folder, data, reference):
        stores = [folder / str(turn) for turn in range(RACES)]
        for store in stores:
            for process in [_sweep(store, data) for _ in range(2)]:
                process.wait()
        whole = sum(
            _checksums(store) == reference
            and len([*store.rglob("seed-*.json")]) == len(reference)
            and all(map(load_network, load_all([store]).values()))
            for store in stores
        )
    return {"times": RACES, "whole": whole}


def _kill(store: Path, data: Path, reference: dict[str, str], seen: Counter) -> None:
    """Kill one sweep and repeat it; adds what came of it to `seen`."""
    process = _sweep(store, data)
    workers = _workers(process)
    time.sleep(random.uniform(0, 10))
    if process.poll() is not None:
        return  # it had ended before the kill
    family = [psutil.Process(process.pid), *workers]
    for victim in random.choice([family[:1], [random.choice(workers)], family]):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    seen.update({"kills": 1, "orphans": len(alive), "torn files": 0})
    try:
        load_all([store])
    except RecordError:
        seen["torn files"] += 1
    _sweep(store, data).wait()
    seen["identical"] += _checksums(store) == reference


def _sweep(store: Path, data: Path) -> subprocess.Popen:
    command = [*SWEEP, "--models", "6", "8", "--seeds", "0", "1", "--store", str(store)]
    environment, nowhere = os.environ | {"MNIST_ROOT": str(data)}, subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


def _workers(process: subprocess.Popen) -> list[psutil.Process]:
    """A sweep's workers, as soon as all have started."""
    found: list[psutil.Process] = []
    while process.poll() is None and len(found) < CPU_COUNT:
        time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return found


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _checksums(store: Path) -> dict[str, str]:
    return {key: run.weights_sha256 for key, run in load_all([store]).items()}


def planted() -> dict[str, int]:
    """How many planted bugs the tests catch."""
    found = mutants.caught_all()
    return {"planted": len(found), "caught": sum(found.values())}


def tests() -> dict[str, dict[str, int | str]]:
    """Run the tests under this Python; the counts of other versions are kept.

    Raises:
        RuntimeError: if they cannot be run.
    """
    pages.main()  # a test compares the pages with the counts so far
    counts = Counter(passed=0, failed=0)
    notebooks = ["--nbval", "--nbval-cell-timeout=600", "notebooks", "appendix"]
    for arguments in (["tests", "--ignore", "tests/browser"], notebooks):
        command = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadfile", *arguments]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if ended.returncode not in (0, 1):
            raise RuntimeError(ended.stdout[-500:])
        for number, outcome in re.findall(r"(\d+) (passed|failed|error)", ended.stdout[-500:]):
            counts["passed" if outcome == "passed" else "failed"] += int(number)
    here = {name: version(name) for name in ("torch", "numpy")}
    here |= {"processor": processor(best_engine()), **counts}
    return pages.reliability_counts().get("tests", {}) | {platform.python_version(): here}


def unseen(seed: int = 42) -> dict[str, object]:
    """Train each final from a seed that no record has; how far from the recorded runs it ends."""
    folder = ROOT / "build" / "unseen"
    command = [*SWEEP, "--models", *FINALS, "--seeds", str(seed), "--store", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    trained, checksum, apart = load_all([folder]), load_mnist(ROOT / "data").checksum, {}
    for name in FINALS:
        (run,) = wanted_runs(name, seed)
        known = final_test(recorded([name])[name])
        accuracy = trained[run.key(checksum)].test_accuracy[-1]
        apart[name] = (accuracy - known.mean) / known.sd
    return {"seed": seed, "apart": apart}  # in standard deviations of the recorded seeds


CHECKS = {
    "kills": kills,
    "suspensions": suspensions,
    "races": races,
    "mutants": planted,
    "unseen": unseen,
    "tests": tests,
}


def main() -> int:
    """Run the named checks, or all, and store each count; returns the exit status."""
    unknown = set(sys.argv[1:]) - CHECKS.keys()
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    for name in sys.argv[1:] or CHECKS:
        found = pages.reliability_counts() | {name: CHECKS[name]()}
        pages.RELIABILITY.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, found[name], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
