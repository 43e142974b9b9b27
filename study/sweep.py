"""Many runs at once on one Dask cluster: `python -m study.sweep --models 9 10 --seeds 0 1`.

By default the cluster is this machine's cores, one process of one thread each: these networks are
too small to keep two cores busy. `--address tcp://...` names any other. Finished runs are skipped,
so the same command continues an interrupted one; Dask repeats the run of a worker that dies.
"""

import argparse
import contextlib
import copy
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import torch
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, TimeoutError, as_completed
from distributed.comm import get_address_host_port
from tqdm import tqdm

from models import MODELS
from study.commands import INTERRUPTS, status
from study.experiments import EXPERIMENTS
from study.records import Record, Run
from study.runs import wanted_runs
from study.store import RecordError, Weights, check_writable, computed, load_all, runs_folder, save
from utils.data import Dataset, load_mnist
from utils.device import ENGINE_VERSION
from utils.validation import OneLineError, first_line

PATIENCE = 10  # seconds, with a scheduler that does not answer
LOCAL = {
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,  # or `keep_memory` misses threads
    **{f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")},
    "distributed.worker.memory.terminate": False,
    # What watches the workers by the millisecond takes time from them.
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.worker-ttl": None,  # a suspended laptop's workers are not dead
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    # This program reports what happens, also at Ctrl-C, which a terminal sends to workers, too.
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    "distributed.worker.preload": ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    "distributed.admin.large-graph-warning-threshold": "1GB",  # the images travel in the graph
}
Made = tuple[Record, Weights] | str  # what came of a run, or why it failed


class ClusterError(OneLineError, RuntimeError):
    """The Dask cluster cannot be reached, has no workers, or runs other code."""


def sweep(
    wanted: list[Run], folder: Path, workers: int | None = None, address: str | None = None
) -> list[str]:
    """Train every run that `folder` has no record of; returns the failures, one line each.

    Prints a line per finished run; on a terminal there is a bar, too.

    Args:
        wanted: the runs.
        folder: where records are looked for and stored.
        workers: processes on this machine, one thread each; default: as many as cores.
        address: of a Dask scheduler, whose workers then compute instead.

    Raises:
        DataError, RecordError: if the data or a stored record is damaged.
        ClusterError: if the cluster cannot be used.
    """
    data, failures = load_mnist(), []
    check_writable(folder)
    stored = load_all([folder])
    by_key = {run.key(data.checksum): run for run in wanted}
    todo = [run for key, run in by_key.items() if key not in stored]
    print(f"{len(by_key) - len(todo)} of {len(by_key)} runs are already in {folder}", flush=True)
    if not todo:
        return []
    check_writable(folder, todo)
    workers = min(workers or CPU_COUNT, len(todo))
    shown = {"total": len(todo), "unit": "run", "disable": not sys.stderr.isatty()}
    with connected(address, workers) as client, tqdm(**shown) as bar:
        for done, (run, made) in enumerate(trained(client, todo, data), start=1):
            outcome, stream = f"{run.title} is trained", sys.stdout
            try:
                if isinstance(made, str):
                    raise RecordError(made)
                save(*made, folder)
            except RecordError as error:
                outcome, stream = f"FAILED {error}", sys.stderr
                failures.append(str(error))
            bar.write(f"{done:4d} of {len(todo)} runs: {outcome}", file=stream)
            stream.flush()
            bar.update()
    return failures


@contextlib.contextmanager
def connected(address: str | None, workers: int | None = None) -> Iterator[Client]:
    """A client of the cluster at `address`, or of one on this machine that ends with the block.

    Raises:
        ClusterError: in one line, where nobody answers or the workers compute other numbers.
    """
    if address is None:
        _check_guarded()
    local = {"n_workers": workers, "threads_per_worker": 1, "silence_logs": logging.CRITICAL}
    local |= {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(LOCAL))
        try:
            cluster = address
            if address is not None:
                get_address_host_port(address)  # a client of a malformed one cannot be closed
            else:
                with _undisturbed():
                    cluster = stack.enter_context(LocalCluster(**local))
            client = stack.enter_context(Client(cluster, timeout=PATIENCE, set_as_default=False))
        except (OSError, ValueError, TypeError, RuntimeError, TimeoutError, MemoryError) as error:
            if address is None:
                while error.__cause__ or error.__context__:  # to the error with which it began
                    error = error.__cause__ or error.__context__
                fault = f"no workers can be started here ({first_line(error)})"
                needs = "they need open files (see ulimit -n) and room in /dev/shm"
                raise ClusterError(f"{fault}; {needs}; runs() needs none") from None
            raise ClusterError(
                f"no Dask scheduler answers at {address} ({first_line(error)}); start one with "
                "'PYTHONPATH=. dask scheduler' and give its address, such as tcp://10.0.0.1:8786"
            ) from None
        if address is not None:
            _check_workers(client)
        yield client


def _check_guarded() -> None:
    """Refuse a script that each worker, which imports it, would run again from its top."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and "__main__" not in Path(script).read_text(encoding="utf-8", errors="ignore"):
        remedy = "call sweep() there under 'if __name__ == \"__main__\":'"
        raise ClusterError(f"every worker would run {script} itself: {remedy}")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Within, an interrupt waits for the end of the block, and no process that is started gets it.

    A terminal sends it to all processes, of which one that still imports would show a traceback.
    """
    heard: list[int] = []
    kept = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number in INTERRUPTS:
        signal.signal(number, lambda number, _: heard.append(number))
    mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none
    of_terminals = INTERRUPTS - {signal.SIGTERM}  # by which Dask ends its workers
    mask(signal.SIG_BLOCK, of_terminals)  # threads and processes inherit it
    resource_tracker.ensure_running()  # now, since it unblocks SIGINT
    mask(signal.SIG_BLOCK, of_terminals)
    try:
        yield
    finally:
        mask(signal.SIG_UNBLOCK, of_terminals)
        for number, handler in kept.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def _check_workers(client: Client) -> None:
    """Refuse a cluster without workers, or with workers that would compute other numbers."""
    remedy = "start scheduler and workers in this project's folder, at one commit, PYTHONPATH=."
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        versions = {client.run_on_scheduler(_engine_version)}  # it unpacks what is sent, too
        versions |= set(client.run(_engine_version).values())
    except Exception as error:  # Dask's own, whatever went wrong on the worker
        fault = f"has no worker that can run this project's code ({first_line(error)})"
        raise ClusterError(f"the Dask scheduler {fault}; {remedy}") from None
    if others := ", ".join(map(str, versions - {ENGINE_VERSION})):
        fault = f"a worker runs engine version {others}, this is version {ENGINE_VERSION}"
        raise ClusterError(f"the Dask scheduler or {fault}; {remedy}")


def _engine_version() -> int:
    return ENGINE_VERSION


def trained(client: Client, todo: list[Run], data: Dataset) -> Iterator[tuple[Run, Made]]:
    """Train runs on the workers; yields each run and what came of it, in the order of their end."""
    # A task, not scattered: these are computed again where the only worker that has them dies.
    images = client.submit(copy.copy, data, pure=False)
    futures = {
        client.submit(_train_on_worker, run, images, pure=False, priority=-place): run
        for place, run in enumerate(todo)
    }
    ended = threading.Event()
    threading.Thread(target=_watch, args=(client, ended), daemon=True).start()
    for future in as_completed(futures, loop=client.loop):
        run = futures.pop(future)
        if future.status == "finished":
            made = future.result()
        else:
            lost = future.exception() if future.status == "error" else future.status
            made = f"{run.title}: its workers died ({first_line(lost)})"
        del future  # or the cluster would keep its result, and train it again where that is lost
        yield run, made
    ended.set()


def _watch(client: Client, ended: threading.Event) -> None:
    """Say in a line when no worker is left, each time."""
    alone = False
    with contextlib.suppress(Exception):  # of a client that an interrupt closes
        while not ended.wait(PATIENCE):
            before, alone = alone, not client.nthreads()
            if alone and not before:
                print("no worker is left: start some, and the sweep goes on", file=sys.stderr)


def _train_on_worker(run: Run, data: Dataset) -> Made:
    torch.set_num_threads(1)
    try:
        return computed(run, data)
    except Exception as error:  # one run's failure, whatever it is, leaves the others running
        return f"{run.title}: {first_line(error)}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m study.sweep", description=__doc__)
    names = "all, or some of docs/plan.md, such as 9-final; default: the ten"
    parser.add_argument("--models", nargs="+", default=[*map(str, MODELS)], help=names)
    seeds = "default: those that the study wants of each experiment"
    parser.add_argument("--seeds", nargs="+", type=int, help=seeds)
    parser.add_argument("--jobs", type=int, help="processes on this machine; default: the cores")
    parser.add_argument("--address", help="of another Dask scheduler, e.g. tcp://10.0.0.1:8786")
    parser.add_argument("--store", default=runs_folder(), type=Path, help="folder of the records")
    options = parser.parse_args(arguments)
    try:
        if options.jobs is not None and not 1 <= options.jobs <= 1_000:
            raise ValueError(f"--jobs must be 1 to 1000, not {options.jobs}")
        names = EXPERIMENTS if options.models == ["all"] else options.models
        wanted = [run for name in names for run in wanted_runs(name, options.seeds)]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return bool(sweep(wanted, options.store, options.jobs, options.address))
    except KeyboardInterrupt:
        kept = f"finished runs are in {options.store}, and the same command goes on from there"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None


if __name__ == "__main__":
    sys.exit(status(main))
