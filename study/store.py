"""Where records lie: find, load, verify, train and save them.

A record is `records/finals/9-final/seed-00.json`; its weights, where they are kept, lie beside it
as plain arrays (`.npz`, read without pickle). The key inside decides, not the name.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy
import torch
from filelock import FileLock

from models import Network, SeparableNetwork, build
from study.processor import processor
from study.records import Record, Run, count_parameters, dumps, loads
from utils.data import ROOT, Dataset
from utils.device import ENGINE_VERSION, best_engine, reference_engine
from utils.evaluation import correct
from utils.training import EpochRow, fit
from utils.validation import OneLineError, first_line, short_repr

STUDY = ROOT / "records"  # the committed evidence, from which alone pages are made
TOLERANCE = 3  # images by which a re-measured accuracy may differ: other CPUs round differently
Callback = Callable[[EpochRow | float], None]
Weights = dict[str, numpy.ndarray]  # by name
PACKAGES = ("torch", "numpy", "numba")  # whose versions a record names


class RecordError(OneLineError, RuntimeError):
    """A record or its weights are damaged, or cannot be read or stored."""


class RunInterruptedError(OneLineError, RuntimeError):
    """Ctrl-C ended a run."""


def record_folders() -> list[Path]:
    """Where records are looked for, first match wins: $MNIST_RECORDS, else records/; then runs."""
    listed = os.environ.get("MNIST_RECORDS") or str(STUDY)
    return list(dict.fromkeys([*map(_folder, listed.split(os.pathsep)), runs_folder()]))


def runs_folder() -> Path:
    """Where live runs are stored: $MNIST_RUNS, else the ignored runs/."""
    return _folder(os.environ.get("MNIST_RUNS") or "runs")


def _folder(text: str) -> Path:
    """A folder of that name; relative ones lie in the project, wherever a notebook runs."""
    return ROOT / os.path.expanduser(text)  # Path's would raise at an unknown user's home


def load_all(folders: list[Path] | None = None) -> dict[str, Record]:
    """All records by key, in order of name and seed; of two with one key the first folder's counts.

    Raises:
        RecordError: if one is damaged, or a folder that somebody named is not there.
    """
    found: dict[str, Record] = {}
    for folder in record_folders() if folders is None else folders:
        if not folder.is_dir() and (folder.exists() or folder not in (STUDY, runs_folder())):
            raise RecordError(f"{folder} is not there, or no folder; expected a folder of records")
        for path in sorted(folder.rglob("seed-*.json")):
            record = load(path)
            found.setdefault(record.key, record)
    order = sorted(found.values(), key=lambda r: (r.run.model or math.inf, r.run.name, r.run.seed))
    return {record.key: record for record in order}


def load(path: Path) -> Record:
    """Read one record and check its seal, its key and its types.

    Raises:
        RecordError: otherwise, naming file, fault and remedy.
    """
    try:
        status = path.stat()
        return _load(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from None


@functools.lru_cache(4096)
def _load(path: Path, mtime: int, size: int) -> Record:
    try:
        return dataclasses.replace(loads(path.read_bytes().decode()), path=path)
    except ValueError as error:
        raise damaged(path, first_line(error)) from None


def damaged(path: Path, fault: str) -> RecordError:
    """An error that names file, fault and remedy."""
    restore = f"restore it, e.g. with 'git checkout -- {path}'"
    again = "delete the run's .json and .npz to train it again"
    return RecordError(f"record {path} is damaged ({fault}); {restore}, or {again}")


def load_network(record: Record) -> Network | SeparableNetwork:
    """The trained network of a record, on the CPU, verified against the recorded checksum.

    Raises:
        ValueError: for what is no record.
        RecordError: if the weights are missing or damaged, or are others than recorded.
    """
    if not isinstance(record, Record):
        raise ValueError(f"expected a record, as runs() returns, not {short_repr(record)}")
    path = record.weights_path
    if not path.exists():
        kept = "weights are kept for seed 0 of each experiment and for all seeds of finals"
        raise RecordError(f"{path} is not there; {kept}, for no search, trial or reference")
    try:
        with numpy.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if weights_checksum(state) != record.weights_sha256:
            raise ValueError("the weights are not those of the record")
        with torch.device("meta"):
            network = build(record.run.config)
        network.load_state_dict(state, assign=True)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # zip and array readers raise a dozen kinds at damaged bytes
        raise damaged(path, first_line(error)) from None
    # The layout in which a CPU convolves fastest, above all each channel alone.
    return network.to(memory_format=torch.channels_last).eval()


def weights_checksum(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of a state dict, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].contiguous().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def verify(record: Record, data: Dataset) -> bool:
    """Re-measure a record on the test set; returns whether its weights are kept for that.

    Raises:
        RecordError: if the weights are damaged, or the accuracy differs by more than 3 images of
            10,000.
    """
    if record.confusion is None or not record.weights_path.exists():
        return False
    test = data.test
    found = int(correct(load_network(record), test.images, test.labels, record.statistics).sum())
    recorded = int(numpy.trace(record.confusion))
    if abs(found - recorded) > TOLERANCE * len(test) / 10_000:
        fault = f"{recorded} of {len(test)} test images are classified correctly as recorded"
        remedy = "restore it, or delete it to train the run again"
        raise RecordError(f"record {record.path}: {fault}, {found} as re-measured; {remedy}")
    return True


def train(run: Run, data: Dataset, folder: Path, **callbacks: Callback) -> Record:
    """Train a run now and store its record and weights in `folder`; no other run's are replaced.

    The callbacks are `report` and `expect` of `utils.training.fit`.

    Raises:
        ValueError, NonFiniteLossError: as `fit`.
        RecordError: if the folder cannot be written to; checked before training.
        RunInterruptedError: after Ctrl-C.
    """
    check_writable(folder, [run])
    return save(*computed(run, data, **callbacks), folder)


def computed(run: Run, data: Dataset, **callbacks: Callback) -> tuple[Record, Weights]:
    """Train a run now; returns its record, not stored yet, and its weights."""
    engine = reference_engine() if run.reference else best_engine()
    options = {"engine": engine, "measure_test": run.measure_test, **callbacks}
    try:
        result = fit(run.config, run.recipe, data, run.seed, **options)
    except (KeyboardInterrupt, SystemError) as error:
        if not isinstance(error.__cause__ or error, KeyboardInterrupt):  # compiled code wraps it
            raise
        remedy = "finished runs stay, the same call trains this one again"
        raise RunInterruptedError(f"interrupted {run.title}; {remedy}") from None
    state = result.network.state_dict()
    versions = {name: metadata.version(name) for name in PACKAGES if find_spec(name)}
    outcome = ("statistics", "history", "confusion", "engine", "seconds")
    record = Record(
        **{name: getattr(result, name) for name in outcome},
        key=run.key(data.checksum),
        run=run,
        data_checksum=data.checksum,
        parameters=count_parameters(run.config),
        engine_version=ENGINE_VERSION,
        processor=processor(engine),
        versions={"python": platform.python_version(), **versions},
        weights_sha256=weights_checksum(state),
    )
    return record, {name: tensor.contiguous().numpy() for name, tensor in state.items()}


def save(record: Record, weights: Weights, folder: Path) -> Record:
    """Store a new record, weights first, so that a record on disk always has its weights.

    A record of the same key that lies there stays, and is returned. So does one of a run on other
    data or by an older engine: the new one goes beside it. A RecordError says why it cannot be
    stored. Of two processes that store at once, one waits for the other.
    """
    path = record.run.path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=60):
            if path.exists() and not _has_key(path, record.key):
                path = Path(f"{path.parent}-{record.key}", path.name)
            if path.exists():
                return load(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(".part-*"):  # by a process that died: others would wait
                left.unlink()
            numpy.savez(archive := io.BytesIO(), **weights)
            write_atomically(path.with_suffix(".npz"), archive.getvalue())
            write_atomically(path, dumps(record).encode())
    except OSError as error:
        raise _not_stored(path, error) from None
    return dataclasses.replace(record, path=path)


def _has_key(path: Path, key: str) -> bool:
    with contextlib.suppress(RecordError):
        return load(path).key == key
    return False


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that another process sees the old content or the new."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        with open(part, "wb") as file:  # closed before it is moved, for Windows
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:  # an interrupt, too, which may come as soon as the file is there
        part.unlink(missing_ok=True)
        raise


def check_writable(folder: Path, runs: Iterable[Run] = ()) -> None:
    """Make the folder, or raise a RecordError if nothing, or one of the runs, cannot be stored."""
    for wanted in (folder, *dict.fromkeys(run.path(folder).parent for run in runs)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=wanted if wanted.exists() else folder):
                pass
        except OSError as error:
            raise _not_stored(wanted, error) from None


def _not_stored(path: Path, error: OSError) -> RecordError:
    remedy = "make room or make it writable, or name another folder with MNIST_RUNS or --store"
    return RecordError(f"cannot store {path} ({error.strerror or first_line(error)}); {remedy}")
