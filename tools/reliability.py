"""Try what must not go wrong, and count: `python -m tools.reliability [flips] [values] ...`.

The counts go to docs/reliability.json, from which docs/reliability.md is generated.
"""

import contextlib
import io
import itertools
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy
import psutil
from dask.system import CPU_COUNT

from models import MODELS, SeparableConfig, build
from study.digit import as_mnist
from study.experiments import FINALS
from study.files import write_atomically
from study.runs import recorded, wanted_runs
from study.show.tables import markdown
from study.statistics import final_test
from study.store import STUDY, load, load_all, load_network, weights_checksum
from study.sweep import parse_experiments, parse_seeds
from tests.conftest import subset, write_idx
from tools import mutants
from utils.data import ROOT, load_mnist
from utils.device import best_engine, processor
from utils.evaluation import raw_pixels
from utils.recipes import Recipe
from utils.validation import OneLineError

FILE = ROOT / "docs" / "reliability.json"
FLIPS, KILLS = 1_000, 20  # of each kind of file; of a sweep
RAW = ROOT / "data" / "MNIST" / "raw"


def flips(count: int = FLIPS) -> dict[str, dict[str, int]]:
    """Change a byte at random, again and again, in a record, in weights and in the data."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(
            STUDY / "finals" / "9-final", folder / "9-final", ignore=_all_but("seed-00")
        )
        shutil.copytree(RAW, folder / "data")
        record = folder / "9-final" / "seed-00.json"
        archive = folder / "data" / "t10k-labels-idx1-ubyte.gz"

        def weights() -> str:
            return weights_checksum(load_network(load(record)).state_dict())

        return {
            "records": _flipped(record, lambda: load(record), count, chance),
            "weights": _flipped(record.with_suffix(".npz"), weights, count, chance),
            "data": _flipped(archive, lambda: _canonical(folder / "data"), count, chance),
        }


def _all_but(stem: str) -> Callable:
    return lambda _, names: [name for name in names if not name.startswith(stem)]


def _canonical(folder: Path) -> str:
    with contextlib.redirect_stderr(io.StringIO()):
        data = load_mnist(folder)
    if not data.canonical:
        raise ValueError("not the canonical MNIST")  # which is said, and part of every key
    return data.checksum


def _flipped(path: Path, read: Callable, count: int, chance: random.Random) -> dict[str, int]:
    whole, seen, expected = path.read_bytes(), Counter(), read()
    for turn in range(count):
        at, by = chance.randrange(len(whole)), chance.randrange(1, 256)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ by]) + whole[at + 1 :])
        os.utime(path, ns=(turn, turn))  # whoever caches by time reads again
        found, result = outcome(read)
        if found == "result":  # such as in an archive's dates, which mean nothing
            found = "without effect" if result == expected else "unnoticed"
        seen[found] += 1
    path.write_bytes(whole)
    return dict(seen)


def outcome(action: Callable) -> tuple[str, object]:
    """What came of it, "one line", "traceback" or "result", and that result."""
    try:
        return "result", action()
    except (OneLineError, ValueError) as error:
        return "one line" if "\n" not in str(error) else "traceback", None
    except Exception:
        return "traceback", None


def values() -> dict[str, int]:
    """Hand in what does not fit, everywhere where something is handed in."""
    nan, recipe, seven = float("nan"), Recipe(), numpy.zeros((7, 7, 7))
    odd = (None, "x", -1, 1.5, nan, float("inf"), [], {}, (), b"", 10**30, True, seven, object())
    actions: list[Callable] = []
    for field in vars(recipe):
        actions += [lambda f=field, v=value: replace(recipe, **{f: v}) for value in odd]
    for config in (MODELS[9], SeparableConfig((8, 8, 8))):
        for field in vars(config):
            actions += [
                lambda c=config, f=field, v=value: build(replace(c, **{f: v}))
                for value in odd
                if not isinstance(value, int)  # a layer of that size is torch's to refuse
            ]
    for value in odd:
        actions += [
            lambda v=value: wanted_runs(v),
            lambda v=value: wanted_runs(4, v),
            lambda v=value: wanted_runs(4, [v]),
            lambda v=value: wanted_runs(4, recipe=v),
            lambda v=value: wanted_runs(4, config=v),
            lambda v=value: parse_seeds(str(v)),
            lambda v=value: parse_experiments(str(v)),
            lambda v=value: as_mnist(v),
            lambda v=value: raw_pixels(v),
        ]
    return dict(Counter(outcome(action)[0] for action in actions))


def kills(count: int = KILLS) -> dict[str, int]:
    """Kill a sweep at random moments: its parent, a worker or all; then run it to its end."""
    chance, seen, before = random.Random(0), Counter(), _shared_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if status := _sweep(folder / "reference").wait():
            raise RuntimeError(f"the sweep to compare with ended with status {status}")
        reference = _checksums(folder / "reference")
        for turn in itertools.count():
            if seen["kills"] == count:
                break
            store = folder / f"store-{turn}"
            process = _sweep(store)
            workers = _workers(process)
            time.sleep(chance.uniform(0, 10))
            if process.poll() is not None:
                continue  # it was over before
            family = [psutil.Process(process.pid), *workers]
            for victim in chance.choice([family[:1], [chance.choice(workers)], family]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            seen["kills"] += 1
            process.wait()
            _, alive = psutil.wait_procs(workers, timeout=10)
            seen["orphans"] += len(alive)
            _sweep(store).wait()
            seen["identical"] += _checksums(store) == reference
            seen["torn files"] += len(list(store.rglob(".part-*")))
    seen["shared memory"] = len(_shared_memory() - before)
    return dict(seen)


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _workers(process: subprocess.Popen) -> list[psutil.Process]:
    """A sweep's workers, as soon as all are there."""
    found: list[psutil.Process] = []
    while process.poll() is None and len(found) < CPU_COUNT:
        time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return found


def _sweep(store: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "study.sweep", "--models", "6,8", "--seeds", "0,1"]
    environment = os.environ | {"MNIST_ROOT": str(_small_data(store.parent))}
    return subprocess.Popen(
        [*command, "--store", str(store)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _small_data(folder: Path) -> Path:
    """The first 3,000 training and 500 test images, as files."""
    raw = folder / "small"
    if not raw.exists():
        write_idx(raw, subset(load_mnist(), 3_000, 500))
    return raw


def _checksums(store: Path) -> dict[str, str]:
    return {key: run.weights_sha256 for key, run in load_all([store]).items()}


def planted() -> dict[str, int]:
    """How many planted bugs the tests catch."""
    found = mutants.caught_all()
    return {"planted": len(found), "caught": sum(found.values())}


def tests() -> dict[str, dict[str, int | str]]:
    """Run the tests under this Python; what others found before is kept.

    Raises:
        RuntimeError: if they cannot be run.
    """
    from tools import pages  # which needs what is here

    pages.main()  # the counts so far are on a page, which a test looks at
    here = {
        "torch": version("torch"),
        "numpy": version("numpy"),
        "processor": processor(best_engine()),
    } | dict.fromkeys(("passed", "failed"), 0)
    notebooks = ["--nbval", "--nbval-cell-timeout=600", "notebooks"]
    for arguments in (["tests", "--ignore", "tests/browser"], notebooks):
        command = [sys.executable, "-m", "pytest", "-n", str(CPU_COUNT), *arguments]
        command += ["--dist", "loadfile"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if ended.returncode not in (0, 1):
            raise RuntimeError(ended.stdout[-500:])
        for found in ("passed", "failed", "error"):
            number = sum(map(int, re.findall(rf"(\d+) {found}", ended.stdout[-500:])))
            here["passed" if found == "passed" else "failed"] += number
    return stored().get("tests", {}) | {platform.python_version(): here}


def unseen(seed: int = 42) -> dict[str, object]:
    """Train each final from a seed that no record has; how far from the recorded runs it ends."""
    folder = ROOT / "build" / "unseen"
    command = [sys.executable, "-m", "study.sweep", "--models", ",".join(FINALS)]
    command += ["--seeds", str(seed), "--store", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    trained, checksum, apart = load_all([folder]), load_mnist(ROOT / "data").checksum, {}
    for name in FINALS:
        (run,) = wanted_runs(name, seed)
        known = final_test(recorded([name])[name])
        accuracy = trained[run.key(checksum)].test_accuracy[-1]
        apart[name] = (accuracy - known.mean) / known.sd
    return {"seed": seed, "apart": apart}  # in standard deviations of the recorded seeds


CHECKS = {
    "flips": flips,
    "values": values,
    "kills": kills,
    "mutants": planted,
    "unseen": unseen,
    "tests": tests,
}
WORDS = {"mutants": "planted bugs", "unseen": "the finals from a new seed"}


def report(found: dict) -> str:
    """Markdown: the counts."""
    rows = []
    for kind, counts in found.get("flips", {}).items():
        seen = (
            f"{_of(counts, 'one line')} answered by one line, {_of(counts, 'without effect')} "
            f"where it changes nothing, {_of(counts, 'unnoticed')} unnoticed, "
            f"{_of(counts, 'traceback')} tracebacks"
        )
        rows.append((f"a byte changed in {kind}", sum(counts.values()), seen))
    if counts := found.get("values"):
        seen = (
            f"{_of(counts, 'one line')} answered by one line, {_of(counts, 'result')} were valid "
            f"after all, {_of(counts, 'traceback')} tracebacks"
        )
        rows.append(("a value of the wrong kind", sum(counts.values()), seen))
    for name, where in (("kills", ""), ("kills, starved", ", a tenth of a core a process")):
        if not (counts := found.get(name)):
            continue
        seen = (
            f"{_of(counts, 'identical')} with the same bits, {_of(counts, 'orphans')} processes "
            f"and {_of(counts, 'shared memory')} segments of shared memory left behind, "
            f"{_of(counts, 'torn files')} torn files"
        )
        rows.append((f"a sweep killed, and run again{where}", counts["kills"], seen))
    if counts := found.get("mutants"):
        rows.append(("a bug planted", counts["planted"], f"{counts['caught']} caught by a test"))
    if counts := found.get("unseen"):
        apart = counts["apart"].values()
        within = sum(abs(each) <= 3 for each in apart)
        seen = f"{within} end within three standard deviations of its mean"
        seen += f", the furthest at {max(apart, key=abs):+.1f}"
        rows.append((f"a final, trained from a seed ({counts['seed']}) not among its runs",
                     len(apart), seen))  # fmt: skip
    for python, counts in sorted(found.get("tests", {}).items(), key=_numbers):
        tried = f"the tests, Python {python}, torch {counts['torch']}, numpy {counts['numpy']}"
        seen = f"{counts['passed']} passed, {counts['failed']} failed"
        rows.append((f"{tried}; {counts['processor']}", 1, seen))
    table = markdown(("what was tried", "times", "outcome"), rows, left=1)
    missing = [WORDS.get(name, name) for name in CHECKS if name not in found]
    return f"{table}\n\nNot tried yet: {', '.join(missing)}." if missing else table


def _of(counts: dict[str, int], outcome: str) -> str:
    return f"{counts.get(outcome, 0):,}"


def _numbers(item: tuple[str, dict]) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", item[0])]


def stored() -> dict:
    """The counts as last taken."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def main() -> int:
    """Command line; returns the exit status."""
    unknown = set(sys.argv[1:]) - CHECKS.keys()
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    found = stored()
    for name in sys.argv[1:] or CHECKS:
        found[name] = CHECKS[name]()
        write_atomically(FILE, json.dumps(found, indent=1) + "\n")
        print(name, found[name], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
