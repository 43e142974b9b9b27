"""Many runs at once, one thread each: `python -m utils.sweep --models 1-10 --seeds 0-2`.

Several runs of one thread finish sooner than the same runs one after another on all cores: these
networks are too small to keep two cores busy with one batch. Finished runs are skipped, so that
the same command continues where it was interrupted. `--backend dask --address tcp://...` sends the
runs to the workers of a Dask cluster instead; the records come back to this machine.
"""

import argparse
import json
import re
import signal
import sys
import threading
import time
from pathlib import Path

from utils import records
from utils.analysis import spread
from utils.data import DataError, load_mnist
from utils.experiments import EXPERIMENTS
from utils.records import Job, Record, RecordError
from utils.training import EpochRow
from utils.workers import ENGINES, ClusterError, on_cluster, on_this_machine

POLL = 0.5  # seconds between two looks at what the workers have done


def sweep(
    jobs: list[Job],
    folder: Path,
    workers: int | None = None,
    address: str | None = None,
    engine: str = "fast",
) -> list[str]:
    """Train every job that `folder` has no record of; returns the failures, one line each.

    Prints a line per epoch of every run, with the time left for all of them, and a summary.

    Args:
        jobs: the runs wanted.
        folder: where records are looked for and stored.
        workers: processes on this machine, one thread each; default: as many as cores.
        address: of a Dask scheduler, whose workers then compute instead.
        engine: "fast", or "reference" for float32 and torch's own kernels on the CPU.

    Raises:
        KeyboardInterrupt: after Ctrl-C; finished runs and the histories so far are stored.
        DataError, RecordError: if the data or a stored record is damaged.
        ClusterError: if the cluster cannot be used.
    """
    checksum = load_mnist().checksum
    todo = [job for job in jobs if records.find(job.key(checksum), [folder]) is None]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are already in {folder}", flush=True)
    records.check_writable(folder)
    failures: list[str] = []
    with _Progress(todo, folder, checksum) as progress:
        if address:
            ends = on_cluster(todo, folder, address, progress.epoch, engine)
        else:
            ends = on_this_machine(todo, folder, workers, engine)
        for job, failure in ends:
            progress.finished(job, failure)
            if failure:
                failures.append(failure)
    _print_summary(finished(jobs, folder, checksum))
    return failures


class _Progress:
    """One display of all runs: each epoch as it ends, how far the sweep is, and the time left.

    Workers of this machine append to partial histories in `folder`, which a thread reads.
    """

    def __init__(self, jobs: list[Job], folder: Path, checksum: str):
        self.jobs, self.folder, self.checksum = jobs, folder, checksum
        self.seen = dict.fromkeys(jobs, 0)  # epochs printed of each run
        self.ended: set[Job] = set()
        self.started, self.begun = time.perf_counter(), time.time()
        self.lock = threading.RLock()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def _watch(self):
        while not self.stop.wait(POLL):
            with self.lock:
                for job in self.jobs:
                    if job not in self.ended:
                        self._read(job)

    def _read(self, job: Job):
        name = f"{job.label}-seed{job.seed}-{job.key(self.checksum)}"
        for suffix in (".partial.json", ".json"):
            path = self.folder / (name + suffix)
            try:
                if path.stat().st_mtime < self.begun:
                    continue  # left by an interrupted sweep
                rows = json.loads(path.read_text())["history"]
            except (OSError, ValueError):
                continue  # not there yet, or just replaced by the complete record
            if len(rows) < self.seen[job]:
                self.seen[job] = 0  # its worker died, another one began anew
            for row in rows[self.seen[job] :]:
                self.epoch(job, EpochRow(**row))

    def epoch(self, job: Job, row: EpochRow):
        """Print one epoch of a run; a run that starts anew on another worker prints it again."""
        with self.lock:
            self.seen[job] = row.epoch
            print(f"{self._state()}  {job.title:24s} {records.epoch_line(row)}", flush=True)

    def _state(self) -> str:
        total = sum(job.recipe.epochs for job in self.jobs)
        # A failed run has no epochs to come.
        done = sum(j.recipe.epochs if j in self.ended else self.seen[j] for j in self.jobs)
        minutes = (time.perf_counter() - self.started) / 60
        left = minutes * (total - done) / max(done, 1)
        return f"{done:4d}/{total} epochs, {left:5.1f} min left"

    def finished(self, job: Job, failure: str | None):
        """Print the run's last epochs, or its failure, and how many runs have ended."""
        with self.lock:
            self._read(job)
            self.ended.add(job)
            if failure:
                print(f"FAILED {failure}", flush=True)
            minutes = (time.perf_counter() - self.started) / 60
            print(
                f"{self._state()}  {job.title} has ended: {len(self.ended)} of {len(self.jobs)} "
                f"runs in {minutes:.1f} min",
                flush=True,
            )


def _print_summary(found: list[Record]):
    """A line per experiment: final accuracies over its seeds, and what a run took."""
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(record.label, []).append(record)
    for label, group in groups.items():
        last = [record.history[-1] for record in group]
        split = "validation" if last[0].test_accuracy is None else "test"
        accuracies = spread([getattr(row, f"{split}_accuracy") for row in last])
        seconds = spread([record.seconds for record in group], "s")
        print(f"{label:24s} final {split} accuracy {accuracies}, a run {seconds.mean:.0f} s")


def parse_experiments(text: str) -> list[str]:
    """'1-3,9-final' -> ['1', '2', '3', '9-final'].

    Raises:
        ValueError: for an unknown name; the message lists the valid ones.
    """
    names = []
    for part in text.split(","):
        if re.fullmatch(r"\d+-\d+", part):
            names += map(str, _range(part))
        else:
            names.append(part)
    for name in names:
        records.get_experiment(name)
    return names


def parse_seeds(text: str) -> list[int]:
    """'0-2,7' -> [0, 1, 2, 7].

    Raises:
        ValueError: if it is no list of whole numbers and ranges.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise ValueError(f"seeds are whole numbers and ranges such as 0-2,7, not {text!r}")
    seeds = []
    for part in text.split(","):
        seeds += _range(part)
    return seeds


def _range(text: str) -> range:
    """'2-4' -> 2, 3, 4; '2' -> 2.

    Raises:
        ValueError: if the first number is the larger one.
    """
    first, _, last = text.partition("-")
    if int(last or first) < int(first):
        raise ValueError(f"ranges run upwards, such as {last}-{first}, not {text}")
    return range(int(first), int(last or first) + 1)


def run_command(
    jobs: list[Job],
    folder: Path,
    workers: int | None,
    address: str | None = None,
    engine: str = "fast",
) -> int:
    """`sweep` for a command line: one line for what goes wrong, and the exit status."""
    try:
        failures = sweep(jobs, folder, workers, address, engine)
    except KeyboardInterrupt:
        print(
            f"interrupted; finished runs and histories so far are in {folder}, "
            "and the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except (DataError, RecordError, ClusterError) as error:
        print(error, file=sys.stderr)
        return 1
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def finished(jobs: list[Job], folder: Path, checksum: str) -> list[Record]:
    """The records that `folder` has of `jobs`, in their order."""
    found = (records.find(job.key(checksum), [folder]) for job in jobs)
    return [record for record in found if record is not None]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.sweep", description=__doc__)
    parser.add_argument("--models", default="1-10", help=f"of {', '.join(EXPERIMENTS)}; ranges too")
    parser.add_argument("--seeds", default="0", help="e.g. 0-2,7")
    parser.add_argument("--jobs", type=int, default=None, help="processes; default: the cores")
    parser.add_argument("--backend", choices=("processes", "dask"), default="processes")
    parser.add_argument("--address", help="of the Dask scheduler, e.g. tcp://10.0.0.1:8786")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="fast")
    parser.add_argument("--store", type=Path, default=records.runs_folder())
    options = parser.parse_args(arguments)
    try:
        names, seeds = parse_experiments(options.models), parse_seeds(options.seeds)
        if options.jobs is not None and options.jobs < 1:
            raise ValueError(f"--jobs must be 1 or more, not {options.jobs}")
        if (options.backend == "dask") != bool(options.address):
            raise ValueError("--backend dask and --address tcp://... go together; give both")
        if options.address and options.jobs:
            raise ValueError("--jobs is for this machine; a cluster has as many as its workers")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no worker behind
    jobs = [records.job(name, seed) for seed in seeds for name in names]
    return run_command(jobs, options.store, options.jobs, options.address, options.engine)


if __name__ == "__main__":
    sys.exit(main())
