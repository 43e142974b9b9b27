"""Where the runs of a sweep are computed: processes of this machine, or a Dask cluster.

Both yield each job as it ends, with None or what went wrong. A worker that dies costs the run it
was at, which another attempt repeats, and nothing else.
"""

import contextlib
import ctypes
import dataclasses
import functools
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from utils import records
from utils.data import DataError, Dataset, load_mnist
from utils.files import write_atomically
from utils.records import Job, RecordError, RunInterruptedError
from utils.training import (
    ENGINE,
    EpochRow,
    NonFiniteLossError,
    best_engine,
    reference_engine,
)

ENGINES = {"fast": best_engine, "reference": reference_engine}
ATTEMPTS = 3  # per run, if its worker dies; as Dask has it
EXPECTED = (ValueError, NonFiniteLossError, RunInterruptedError, RecordError, DataError)
TOPIC = "mnist-epochs"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
# Seeds belong to a process: two runs in two threads of one would draw from each other's numbers.
_ONE_RUN = threading.Lock()

Outcome = tuple[Job, str | None]


class ClusterError(RuntimeError):
    """The Dask cluster cannot be reached, has no workers, or runs other code."""


def on_this_machine(
    jobs: list[Job], folder: Path, count: int | None = None, engine: str = "fast"
) -> Iterator[Outcome]:
    """Train in `count` processes of one thread each (default: the cores), storing in `folder`.

    `engine` is a key of `ENGINES`.
    """
    processes = _Processes(folder, engine)
    pool = Parallel(count or cpu_count(), backend="threading", return_as="generator_unordered")
    try:
        yield from pool(delayed(processes.train)(job) for job in jobs)
    finally:
        processes.stop()


class _Processes:
    """One process per calling thread, replaced when it dies; joblib's threads only wait for it.

    A pool of several processes would not do: when one of them dies, it ends the others' runs, too.
    """

    def __init__(self, folder: Path, engine: str):
        self.folder, self.engine = folder, engine
        self.own = threading.local()
        self.all: list[ProcessPoolExecutor] = []
        self.stopping = False

    def train(self, job: Job) -> Outcome:
        """Train one job in this thread's process."""
        for _ in range(ATTEMPTS):
            if not hasattr(self.own, "process"):
                self.own.process = ProcessPoolExecutor(max_workers=1)
                self.all.append(self.own.process)
            try:
                return self.own.process.submit(_train_into, job, self.folder, self.engine).result()
            except BrokenProcessPool:
                del self.own.process
                if self.stopping:
                    break
        return job, f"{job.title}: its worker process died; run the same command again"

    def stop(self) -> None:
        """End all processes, whatever they do."""
        self.stopping = True
        for process in self.all:
            process.shutdown(wait=True, kill_workers=True)


def keep_memory() -> None:
    """Tell glibc's allocator to keep what is freed; other allocators are left alone.

    A step frees and takes the same megabytes again and again. Where every one goes back to the
    system (Dask starts its workers so), page faults double the time of a step.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, 2**30)


@functools.cache
def _data() -> Dataset:
    return load_mnist()


def _train_into(job: Job, folder: Path, engine: str) -> Outcome:
    torch.set_num_threads(1)
    keep_memory()
    try:
        records.train(job, _data(), folder, engine=ENGINES[engine]())
    except EXPECTED as error:
        return job, str(error)
    return job, None


def on_cluster(
    jobs: list[Job],
    folder: Path,
    address: str,
    report: Callable[[Job, EpochRow], None],
    engine: str = "fast",
) -> Iterator[Outcome]:
    """Train on the Dask workers of the scheduler at `address`; records come back into `folder`.

    Scheduler and workers need this project's code on their import path, and no data: the images
    are sent to each worker once. `report` is called with every epoch of every run as it ends.

    Raises:
        ClusterError: in one line.
    """
    as_completed, client = _connect(address)
    with client:
        _check_workers(client)
        data = load_mnist()

        def hear(event: tuple[float, dict]) -> None:
            report(jobs[event[1]["job"]], EpochRow(**event[1]["row"]))

        client.subscribe_topic(TOPIC, hear)
        [images] = client.scatter([data], broadcast=True)
        futures = {
            client.submit(_train_remotely, index, job, images, engine, pure=False): job
            for index, job in enumerate(jobs)
        }
        for future in as_completed(futures, loop=client.loop):
            if future.status != "finished":
                yield futures[future], f"{futures[future].title}: {_why(future)}"
                continue
            failure, files = future.result()
            for name, content in files.items():
                write_atomically(folder / name, content)
            yield futures[future], failure


def _why(future) -> str:
    reason = str(future.exception()).splitlines()[0] if future.status == "error" else future.status
    return f"its Dask workers failed ({reason}); run the same command again"


def _connect(address: str):
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ClusterError(
            "the dask backend needs the package distributed; install it: pip install distributed"
        ) from None
    try:
        return as_completed, Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({reason}); start one with "
            "'PYTHONPATH=. dask scheduler' "
            "and give its address, such as tcp://10.0.0.1:8786"
        ) from None


def _check_workers(client) -> None:
    """Refuse a cluster without workers, or with workers that would compute other numbers."""
    try:
        client.wait_for_workers(1, timeout=10)
        versions = {client.run_on_scheduler(_engine_version)}  # it unpacks what is sent, too
        versions |= set(client.run(_engine_version).values())
    except TimeoutError:
        raise ClusterError(
            "the Dask scheduler has no workers; start some in this project's folder with "
            "'PYTHONPATH=. dask worker ADDRESS --nthreads 1'"
        ) from None
    except Exception as error:  # Dask's own, whatever went wrong on the worker
        reason = str(error).splitlines()[0]
        raise ClusterError(
            f"the Dask scheduler or a worker cannot run this project's code ({reason}); start both "
            "in its folder: 'PYTHONPATH=. dask scheduler', then "
            "'PYTHONPATH=. dask worker ADDRESS --nthreads 1'"
        ) from None
    if versions != {ENGINE}:
        others = ", ".join(str(version) for version in sorted(versions - {ENGINE}))
        raise ClusterError(
            f"the Dask scheduler or a worker runs engine version {others}, this is version "
            f"{ENGINE}; bring them to the same commit"
        )


def _engine_version() -> int:
    return ENGINE


def _train_remotely(
    index: int, job: Job, data: Dataset, engine: str
) -> tuple[str | None, dict[str, bytes]]:
    """Train one job on a Dask worker; returns what went wrong, and the record as {name: bytes}."""
    from distributed import get_worker

    worker, failure = get_worker(), None

    def send(row: EpochRow) -> None:
        worker.log_event(TOPIC, {"job": index, "row": dataclasses.asdict(row)})

    with _ONE_RUN, tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(1)
        keep_memory()
        try:
            records.train(job, data, Path(folder), engine=ENGINES[engine](), report=send)
        except EXPECTED as error:
            failure = str(error).replace(f"{folder}/", "")
        # Weights before the record, which is complete only with them.
        paths = sorted(Path(folder).iterdir(), reverse=True)
        return failure, {path.name: path.read_bytes() for path in paths}
