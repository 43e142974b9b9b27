"""Where records lie: find, load, verify, train and save them.

A record is `records/finals/9-final/seed-00.json`; its weights, where they are kept, lie beside it
as plain arrays (`.npz`, read without pickle). The key inside decides, not the name.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import math
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy
import torch

from models import Network, SeparableNetwork, build
from study.files import atomic_file, remove_parts, write_atomically
from study.records import (
    Record,
    RecordError,
    Run,
    RunInterruptedError,
    count_parameters,
    dumps,
    loads,
)
from utils.data import ROOT, Dataset
from utils.device import ENGINE_VERSION, best_engine, processor, reference_engine
from utils.evaluation import correct
from utils.training import EpochRow, Trained, fit
from utils.validation import first_line, short_repr

STUDY = ROOT / "records"  # the committed evidence, from which alone pages are made
TOLERANCE = 3  # images by which a re-measured accuracy may differ: other CPUs round differently
PACKAGES = ("torch", "numpy", "numba")  # whose versions a record names


def record_folders() -> list[Path]:
    """Where records are looked for, first match wins: $MNIST_RECORDS, else records/; then runs."""
    listed = os.environ.get("MNIST_RECORDS")
    folders = list(map(_folder, listed.split(os.pathsep))) if listed else [STUDY]
    return folders if runs_folder() in folders else [*folders, runs_folder()]


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
        for path in _records_in(folder):
            record = load(path)
            found.setdefault(record.key, record)
    order = sorted(found.values(), key=lambda r: (r.run.model or math.inf, r.run.name, r.run.seed))
    return {record.key: record for record in order}


def _records_in(folder: Path) -> list[Path]:
    """The records of a folder; unlike `Path.glob`, which skips them, it names unreadable ones."""
    if folder in (STUDY, runs_folder()) and not os.path.lexists(folder):
        return []  # nothing was stored yet

    def refuse(error: OSError) -> None:
        raise RecordError(
            f"{error.filename} cannot be looked into ({error.strerror}); expected a folder of "
            "records, as records/ is"
        ) from None

    walk = os.walk(folder, onerror=refuse)
    paths = (Path(inside, name) for inside, _, names in walk for name in names)
    return sorted(path for path in paths if path.match("seed-*.json"))


def load(path: Path) -> Record:
    """Read one record and check its seal and that its parts agree.

    Raises:
        RecordError: otherwise, naming file, fault and remedy.
    """
    try:
        status = path.stat()
        if not path.is_file():
            raise RecordError(f"record {path} is no file; remove it")
        return _load(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from None


@functools.lru_cache(4096)
def _load(path: Path, mtime: int, size: int) -> Record:
    try:
        return dataclasses.replace(loads(path.read_text(encoding="utf-8")), path=path)
    except OSError:
        raise  # to be named as what it is
    except Exception as error:  # e.g. torch's own, at a network too large to be
        raise damaged(path, first_line(error)) from None


def damaged(path: Path, fault: str) -> RecordError:
    """An error that names file, fault and remedy."""
    return RecordError(
        f"record {path} is damaged ({fault}); restore it, e.g. with 'git checkout -- {path}', "
        "or delete the run's .json and .npz to train it again"
    )


def load_network(record: Record) -> Network | SeparableNetwork:
    """The trained network of a record, on the CPU, verified against the recorded checksum.

    Raises:
        ValueError: for what is no record.
        RecordError: if the weights are missing or damaged, or are others than recorded.
    """
    if not isinstance(record, Record):
        raise ValueError(
            f"expected a record, one of those that runs() returns, not {short_repr(record)}"
        )
    path = record.weights_path
    if not os.path.lexists(path):
        raise RecordError(
            f"{path} is not there; weights are kept for seed 0 of each experiment and for all "
            "seeds of finals, for no search, trial or reference"
        )
    if not path.is_file():
        raise damaged(path, "it is no file")  # but a pipe, say, which would be waited for
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from None
    try:
        with numpy.load(content, allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if weights_checksum(state) != record.weights_sha256:
            raise ValueError("the weights are not those of the record")
        with torch.device("meta"):
            network = build(record.run.config)
        kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
        network.load_state_dict(state, assign=True)
        if kinds != {name: tensor.dtype for name, tensor in state.items()}:
            raise ValueError("its numbers are of another type")
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
    if record.confusion is None or not os.path.lexists(record.weights_path):
        return False
    test = data.test
    hits = int(correct(load_network(record), test.images, test.labels, record.statistics).sum())
    recorded = int(numpy.trace(record.confusion))
    if abs(hits - recorded) > TOLERANCE * len(test) / 10_000:
        raise RecordError(
            f"record {record.path}: {recorded} of {len(test)} test images right as recorded, "
            f"but {hits} re-measured; restore the record or delete it to train the run again"
        )
    return True


def train(
    run: Run,
    data: Dataset,
    folder: Path,
    *,
    report: Callable[[EpochRow], None] = lambda row: None,
    progress: Callable[[float], None] = lambda epochs: None,
) -> Record:
    """Train a run now and store its record and weights in `folder`; no other run's are replaced.

    Raises:
        ValueError, NonFiniteLossError: as `fit`.
        RecordError: if the folder cannot be written to; checked before training.
        RunInterruptedError: after Ctrl-C.
    """
    check_writable(folder)
    result = fit(
        run.config,
        run.recipe,
        data,
        run.seed,
        engine=reference_engine() if run.reference else best_engine(),
        measure_test=run.measure_test,
        report=report,
        progress=progress,
    )
    if result.interrupted:
        raise RunInterruptedError(
            f"interrupted {run.title} after epoch {len(result.history)} of {run.recipe.epochs}; "
            "the same call trains it again, finished runs are replayed"
        )
    return _save(run, data, result, folder)


def place(path: Path, key: str, folder: Path) -> Path:
    """Where a file of a new record goes below `folder`: `path`, or beside it if that is taken.

    The other is of a run on other data, or by an older engine; both are kept.
    """
    taken = (folder / path.with_suffix(".json")).exists()
    return Path(f"{path.parent}-{key}", path.name) if taken else path


def check_writable(folder: Path) -> None:
    """Make the folder if need be, and clear it of what killed processes left half written.

    Raises:
        RecordError: if nothing can be stored in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            remove_parts(folder)
    except OSError as error:
        raise RecordError(
            f"cannot store runs in {folder} ({error.strerror}); make it writable, or name "
            "a folder that is with MNIST_RUNS or --store"
        ) from None


def _save(run: Run, data: Dataset, result: Trained, folder: Path) -> Record:
    """Weights first, so that a record on disk always has its weights."""
    key = run.key(data.checksum)
    path = folder / place(run.path(Path()), key, folder)
    state = result.network.state_dict()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    record = Record(
        key=key,
        run=run,
        data_checksum=data.checksum,
        parameters=count_parameters(run.config),
        statistics=result.statistics,
        history=result.history,
        confusion=result.confusion,
        engine_version=ENGINE_VERSION,
        engine=result.engine,
        processor=processor(result.engine),
        versions=versions,
        seconds=result.seconds,
        weights_sha256=weights_checksum(state),
        path=path,
    )
    arrays = {name: tensor.contiguous().numpy() for name, tensor in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(record.weights_path) as part:
            numpy.savez(part, **arrays)
        write_atomically(path, dumps(record))
    except OSError as error:
        raise RecordError(
            f"{path} cannot be stored ({error.strerror}); make room, or name another folder with "
            "MNIST_RUNS or --store"
        ) from None
    return record
