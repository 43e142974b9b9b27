"""Many runs at once on one Dask cluster: `python -m study.sweep --models 1-10 --seeds 0-2`.

By default the cluster is this machine's cores, one process of one thread each: these networks are
too small to keep two cores busy with one batch. `--address tcp://...` names any other. Finished
runs are skipped, so that the same command continues where it was interrupted; a worker that dies
costs only the run it was at, which Dask repeats.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask
import torch
from distributed import Client, LocalCluster, Security, TimeoutError, as_completed, get_worker
from distributed.comm import connect, get_address_host_port

from study.commands import status, undisturbed
from study.experiments import EXPERIMENTS, get_experiment
from study.files import write_atomically
from study.progress import Display, print_summary
from study.records import Run
from study.runs import wanted_runs
from study.store import check_writable, load_all, place, runs_folder, train
from utils.data import Dataset, load_mnist
from utils.device import ENGINE_VERSION
from utils.training import EpochRow
from utils.validation import OneLineError, first_line

PATIENCE = 10  # seconds, with a scheduler that does not answer
LOCAL = {
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,  # or `keep_memory` misses threads
    **{f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")},
    "distributed.worker.memory.terminate": False,
    # What watches the workers by the millisecond takes time from them.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    # We say ourselves what happens, also at Ctrl-C, which a terminal sends to workers, too.
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    "distributed.worker.preload": ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    "distributed.admin.large-graph-warning-threshold": "1GB",  # the images travel in the graph
}


class ClusterError(OneLineError, RuntimeError):
    """The Dask cluster cannot be reached, has no workers, or runs other code."""


def sweep(
    wanted: list[Run], folder: Path, workers: int | None = None, address: str | None = None
) -> list[str]:
    """Train every run that `folder` has no record of; returns the failures, one line each.

    Prints a line per finished run (on a terminal also a bar) and a summary.

    Args:
        wanted: the runs.
        folder: where records are looked for and stored.
        workers: processes on this machine, one thread each; default: as many as cores.
        address: of a Dask scheduler, whose workers then compute instead.

    Raises:
        KeyboardInterrupt: after Ctrl-C; finished runs are stored.
        DataError, RecordError: if the data or a stored record is damaged.
        ClusterError: if the cluster cannot be used.
    """
    data = load_mnist()
    check_writable(folder)
    stored = load_all([folder])
    by_key = {run.key(data.checksum): run for run in wanted}
    todo = {key: run for key, run in by_key.items() if key not in stored}
    print(f"{len(by_key) - len(todo)} of {len(by_key)} runs are already in {folder}", flush=True)
    failures = []
    if todo:
        with connected(address, workers) as client, Display(client, todo) as display:
            for key, failure, files in trained(client, todo, data, display.topic):
                failure = failure or _stored(folder, key, files)
                failures += [failure] if failure else []
                display.ended(key, failure)
    print_summary([record for key, record in load_all([folder]).items() if key in by_key])
    return failures


@contextlib.contextmanager
def connected(address: str | None, workers: int | None = None) -> Iterator[Client]:
    """A client of the cluster at `address`, or of one on this machine that ends with the block.

    Raises:
        ClusterError: in one line, where nobody answers or the workers compute other numbers.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(LOCAL))
        try:
            if address:
                get_address_host_port(address)  # a client of a malformed one could not be closed
                asyncio.run(_answered(address))
            else:
                with undisturbed():
                    cluster = stack.enter_context(_local_cluster(workers))
            with undisturbed():
                client = Client(address or cluster, timeout=PATIENCE, set_as_default=False)
                stack.enter_context(client)
        except (OSError, ValueError, TypeError, RuntimeError, TimeoutError, MemoryError) as error:
            if not address:
                raise ClusterError(f"no workers can be started here: {first_line(error)}") from None
            raise ClusterError(
                f"no Dask scheduler answers at {address} ({first_line(error)}); start one with "
                "'PYTHONPATH=. dask scheduler' and give its address, such as tcp://10.0.0.1:8786"
            ) from None
        if address:
            _check_workers(client)
        yield client


def _local_cluster(workers: int | None) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # never taken already
        silence_logs=logging.CRITICAL,
    )


async def _answered(address: str) -> None:
    """Wait for a Dask scheduler's greeting, for which a client itself would wait for ever."""
    security = Security().get_connection_args("client")  # as Dask's configuration has it
    comm = await asyncio.wait_for(connect(address, timeout=PATIENCE, **security), 1.2 * PATIENCE)
    await comm.close()


def _check_workers(client: Client) -> None:
    """Refuse a cluster without workers, or with workers that would compute other numbers."""
    start = "start some in this project's folder: 'PYTHONPATH=. dask worker ADDRESS --nthreads 1'"
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        versions = {client.run_on_scheduler(_engine_version)}  # it unpacks what is sent, too
        versions |= set(client.run(_engine_version).values())
    except TimeoutError:
        raise ClusterError(f"the Dask scheduler has no workers; {start}") from None
    except Exception as error:  # Dask's own, whatever went wrong on the worker
        raise ClusterError(
            f"the Dask scheduler or a worker cannot run this project's code "
            f"({first_line(error)}); start both in its folder with PYTHONPATH=."
        ) from None
    if versions != {ENGINE_VERSION}:
        others = ", ".join(map(str, sorted(versions - {ENGINE_VERSION})))
        raise ClusterError(
            f"the Dask scheduler or a worker runs engine version {others}, this is version "
            f"{ENGINE_VERSION}; bring them to the same commit"
        )


def _engine_version() -> int:
    return ENGINE_VERSION


def trained(
    client: Client, todo: dict[str, Run], data: Dataset, topic: str
) -> Iterator[tuple[str, str | None, dict[str, bytes]]]:
    """Train runs on the workers; yields (key, failure or None, the record's files) as they end."""
    # A task, not scattered: these are computed again where the only worker that has them dies.
    images = client.submit(_itself, data, pure=False)
    futures = {
        client.submit(
            _train_on_worker, key, run, images, topic, pure=False, priority=-place_in_line
        ): key
        for place_in_line, (key, run) in enumerate(todo.items())
    }
    for future in as_completed(futures, loop=client.loop):
        key = futures.pop(future)
        if future.status == "finished":
            ended = key, *future.result()
        else:
            lost = future.exception() if future.status == "error" else future.status
            ended = key, f"{todo[key].title}: its workers died ({first_line(lost)})", {}
        del future  # or the cluster would keep its result, and train it again where that is lost
        yield ended


def _itself(data: Dataset) -> Dataset:
    return data


def _train_on_worker(
    key: str, run: Run, data: Dataset, topic: str
) -> tuple[str | None, dict[str, bytes]]:
    """Train one run; returns what went wrong, and the files of its record by relative path."""
    worker = get_worker()
    torch.set_num_threads(1)

    def send(row: EpochRow) -> None:
        figures = row.validation_accuracy if row.test_accuracy is None else row.test_accuracy
        worker.log_event(topic, {"key": key, "epoch": row.epoch, "accuracy": figures})

    # Dask clears the folder of a worker that was killed, at its next start.
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as folder:
        try:
            train(run, data, Path(folder), report=send)
        except Exception as error:  # one run's failure, whatever it is, leaves the others running
            return f"{run.title}: {first_line(error).replace(folder, 'a temporary folder')}", {}
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return None, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _stored(folder: Path, key: str, files: dict[str, bytes]) -> str | None:
    """Store a record's files, weights first; returns what went wrong."""
    try:
        for name in sorted(files, reverse=True):  # .npz, then .json
            path = folder / place(Path(name), key, folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, files[name])
    except OSError as error:
        return f"{name} cannot be stored in {folder}: {error.strerror}"
    return None


def parse_experiments(text: str) -> list[str]:
    """'1-3,9-final' -> ['1', '2', '3', '9-final']; 'all' -> every experiment.

    Raises:
        ValueError: for an unknown name; the message lists the valid ones.
    """
    names = []
    for part in text.split(",") if text != "all" else EXPERIMENTS:
        names += map(str, _range(part)) if re.fullmatch(r"\d+-\d+", part) else [part]
    for name in names:
        get_experiment(name)
    return names


def parse_seeds(text: str) -> list[int]:
    """'0-2,7' -> [0, 1, 2, 7].

    Raises:
        ValueError: if it is no list of whole numbers and ranges.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise ValueError(f"seeds are whole numbers and ranges such as 0-2,7, not {text!r}")
    return [seed for part in text.split(",") for seed in _range(part)]


def _range(text: str) -> range:
    """'2-4' -> 2, 3, 4; '2' -> 2."""
    first, _, last = text.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    if not numbers:
        raise ValueError(f"ranges run upwards, such as {last}-{first}, not {text}")
    if numbers.stop - numbers.start > 100_000:
        raise ValueError(f"{text} is more than 100,000 numbers; give fewer at a time")
    return numbers


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m study.sweep", description=__doc__)
    names = f"all, or some of {', '.join(EXPERIMENTS)}; ranges too"
    parser.add_argument("--models", default="1-10", help=names)
    parser.add_argument("--seeds", help="e.g. 0-2,7; default: those that the study wants of each")
    parser.add_argument("--jobs", type=int, help="processes on this machine; default: the cores")
    parser.add_argument("--address", help="of another Dask scheduler, e.g. tcp://10.0.0.1:8786")
    parser.add_argument("--store", default=str(runs_folder()), help="folder of the records")
    options = parser.parse_args(arguments)
    try:
        seeds = parse_seeds(options.seeds) if options.seeds is not None else None
        if options.jobs is not None and not 1 <= options.jobs <= 1_000:
            raise ValueError(f"--jobs must be 1 to 1000, not {options.jobs}")
        if options.address and options.jobs:
            raise ValueError("--jobs is for this machine; a cluster has as many as its workers")
        if options.address is not None and not options.address.strip():
            raise ValueError("--address must name a Dask scheduler, such as tcp://10.0.0.1:8786")
        if not options.store.strip():
            raise ValueError("--store must name a folder")
        folder = Path(os.path.expanduser(options.store))
        wanted = [run for n in parse_experiments(options.models) for run in wanted_runs(n, seeds)]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        failures = sweep(wanted, folder, options.jobs, options.address)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; finished runs are in {folder}, and the same command goes on from there"
        ) from None
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(status(main))
