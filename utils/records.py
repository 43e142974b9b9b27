"""Run records: a run is a pure function, a record is its memo.

`key = hash(network config + recipe + seed + data checksum)`. `run` looks a key up in the committed
`records/` and in the ignored `runs/`; a record found is verified and replayed, a missing one is
trained live and stored in `runs/`. Weights are kept as plain arrays (`.npz`, read without pickle).
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy
import torch
import torchvision

from models import MODELS, Network, NetworkConfig, build
from utils.data import ROOT, Dataset, load_mnist
from utils.experiments import RECIPES, Recipe, get_experiment
from utils.files import atomic_file, write_atomically
from utils.training import (
    ENGINE,
    Engine,
    EpochRow,
    NonFiniteLossError,
    Run,
    best_engine,
    fit,
    predict,
)

TOLERANCE = 3  # images by which a re-measured accuracy may differ: other CPUs round differently


class RecordError(RuntimeError):
    """A record or its weights are damaged, disagree, or cannot be stored."""


class RunInterruptedError(RuntimeError):
    """Ctrl-C ended a run; its history so far is kept in `path`."""


@dataclass(frozen=True)
class Job:
    """A run to be had: everything that decides its result but the data."""

    label: str  # for people, e.g. "9-plateau"; no part of the key
    config: NetworkConfig
    recipe: Recipe
    seed: int
    measure_test: bool = True

    @property
    def title(self) -> str:
        """How the run is called in printed lines."""
        return f"{self.label} seed {self.seed}"

    def key(self, data_checksum: str) -> str:
        """16 hex digits that identify the run on that data."""
        return run_key(self.config, self.recipe, self.seed, data_checksum)


@dataclass(frozen=True)
class Record:
    """The evidence of one finished run."""

    key: str
    label: str
    config: NetworkConfig
    recipe: Recipe
    seed: int
    data_checksum: str
    history: list[EpochRow]
    confusion: list[list[int]] | None  # [true][predicted] on the test set; None if not measured
    parameters: int
    statistics: tuple[float, float]  # pixel mean and SD the network normalises with
    engine_version: int
    engine: Engine
    versions: dict[str, str]
    seconds: float
    weights_sha256: str
    path: Path | None = dataclasses.field(default=None, compare=False)

    @property
    def test_accuracy(self) -> list[float]:
        """Test accuracy after each epoch, percent."""
        return [row.test_accuracy for row in self.history]

    @property
    def train_accuracy(self) -> list[float]:
        """Running training accuracy of each epoch, percent."""
        return [row.train_accuracy for row in self.history]

    @property
    def weights_path(self) -> Path:
        """Where the weights are, if they are kept."""
        return self.path.with_suffix(".npz")


def run_key(config: NetworkConfig, recipe: Recipe, seed: int, data_checksum: str) -> str:
    """16 hex digits of a SHA-256 over everything that defines a run.

    Fields at their defaults are left out, so that a new field with a neutral default changes no
    key.
    """
    identity = {
        "config": _off_default(config),
        "recipe": _off_default(recipe),
        "seed": seed,
        "data": data_checksum,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _off_default(settings: NetworkConfig | Recipe) -> dict:
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    }


def record_folders() -> list[Path]:
    """Where records are looked for, first match wins: $MNIST_RECORDS, else records/ and runs/."""
    listed = os.environ.get("MNIST_RECORDS")
    if listed:
        return [Path(folder) for folder in listed.split(os.pathsep)]
    return [ROOT / "records", runs_folder()]


def runs_folder() -> Path:
    """Where live runs are stored: $MNIST_RUNS, else the ignored runs/."""
    return Path(os.environ.get("MNIST_RUNS") or ROOT / "runs")


def job(
    experiment: str | int,
    seed: int = 0,
    *,
    config: NetworkConfig | None = None,
    recipe: Recipe | None = None,
) -> Job:
    """The run of a named experiment, or of a variation of it.

    Args:
        experiment: a name in `EXPERIMENTS`, e.g. 9 or "9-final".
        seed: of weights, batches, warps and dropout.
        config: replaces the experiment's network.
        recipe: replaces the experiment's recipe.

    Raises:
        ValueError: for an unknown name; the message lists the valid ones.
    """
    named = get_experiment(experiment)
    label = f"{named.model}-{named.recipe}"
    if config not in (None, MODELS[named.model]) or recipe not in (None, RECIPES[named.recipe]):
        label += "-varied"
    return Job(label, config or MODELS[named.model], recipe or RECIPES[named.recipe], seed)


def run(
    experiment: str | int,
    seed: int = 0,
    *,
    config: NetworkConfig | None = None,
    recipe: Recipe | None = None,
    data: Dataset | None = None,
) -> Record:
    """Replay the run if there is a record of it, else train it now; prints a line per epoch.

    Arguments as for `job`; `data` defaults to `load_mnist()`.

    Raises:
        ValueError: for unknown names or a recipe that does not fit the data.
        RecordError: if a record is damaged, or the new one cannot be stored.
        NonFiniteLossError, RunInterruptedError: the history so far is kept and its place named.
    """
    data = data or load_mnist()
    wanted = job(experiment, seed, config=config, recipe=recipe)
    record = find(wanted.key(data.checksum))
    if record is None:
        record = train(wanted, data, runs_folder(), report=lambda row: print(epoch_line(row)))
        print(f"trained in {record.seconds:.0f} s and stored as {record.path.name}")
        return record
    for row in record.history:
        print(epoch_line(row))
    print(verify(record, data))
    return record


def epoch_line(row: EpochRow) -> str:
    """One printed line for a finished epoch."""
    validation = test = ""
    if row.validation_accuracy is not None:
        validation = f"  validation {row.validation_accuracy:5.2f} %"
    if row.test_accuracy is not None:
        test = f"  test {row.test_accuracy:5.2f} %"
    return (
        f"epoch {row.epoch:2d}  lr {row.learning_rate:.5f}  train {row.train_accuracy:5.2f} %"
        f"{validation}{test}  {row.seconds:5.1f} s"
    )


def find(key: str, folders: list[Path] | None = None) -> Record | None:
    """The stored record with that key, or None.

    Raises:
        RecordError: if the file is damaged.
    """
    for folder in folders or record_folders():
        for path in sorted(folder.glob(f"*-{key}.json")):
            return load(path)
    return None


def load_all(folders: list[Path] | None = None) -> list[Record]:
    """All records, by model, recipe and seed; of two with one key the first folder's counts.

    Raises:
        RecordError: if one is damaged.
    """
    found: dict[str, Record] = {}
    for folder in folders or record_folders():
        for path in sorted(folder.glob("*.json")):
            if not path.name.endswith(".partial.json"):
                record = load(path)
                found.setdefault(record.key, record)
    return sorted(found.values(), key=lambda r: (int(r.label.split("-")[0]), r.label, r.seed))


def load(path: Path) -> Record:
    """Read one record and check that it is whole and belongs to its key.

    Raises:
        RecordError: otherwise, naming file, fault and remedy.
    """
    try:
        fields = json.loads(path.read_text())
        fields["config"] = NetworkConfig(**_tuples(fields["config"]))
        fields["recipe"] = Recipe(**_tuples(fields["recipe"]))
        fields["history"] = [EpochRow(**row) for row in fields["history"]]
        fields["engine"] = Engine(**fields["engine"])
        fields["statistics"] = tuple(fields["statistics"])
        record = Record(**fields, path=path)
        if not re.fullmatch(r"\d+-[\w-]+", record.label):
            raise ValueError(f"label {record.label!r}")
        right = _share_right(record)
    except (ValueError, TypeError, KeyError, AttributeError, LookupError, ArithmeticError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from None
    key = run_key(record.config, record.recipe, record.seed, record.data_checksum)
    if key != record.key:
        raise _damaged(path, f"its contents have key {key}, not {record.key}")
    if len(record.history) != record.recipe.epochs:
        raise _damaged(
            path, f"it has {len(record.history)} epochs, its recipe {record.recipe.epochs}"
        )
    if right is not None and abs(right - record.test_accuracy[-1]) > 1e-6:
        raise _damaged(path, "its confusion matrix disagrees with its final test accuracy")
    return record


def _share_right(record: Record) -> float | None:
    """Final test accuracy in percent by the confusion matrix; None if it was not measured."""
    if record.confusion is None:
        return None
    hits = sum(record.confusion[digit][digit] for digit in range(10))
    return 100 * hits / sum(map(sum, record.confusion))


def _damaged(path: Path, fault: str) -> RecordError:
    return RecordError(
        f"record {path} is damaged ({fault}); restore it, e.g. with 'git checkout -- {path.name}', "
        "or delete it to train the run again"
    )


def _tuples(fields: dict) -> dict:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }


def load_network(record: Record) -> Network:
    """The trained network of a record, on the CPU, verified against the recorded checksum.

    Raises:
        RecordError: if the weights are missing or damaged, or are others than recorded.
    """
    path = record.weights_path
    try:
        with numpy.load(path, allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except FileNotFoundError:
        raise RecordError(
            f"{path} is not there; weights are committed for seed 0 of each experiment only"
        ) from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from None
    if weights_checksum(state) != record.weights_sha256:
        raise _damaged(path, "the weights are not those of the record")
    network = build(record.config)
    network.load_state_dict(state)
    return network.eval()


def weights_checksum(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of a state dict, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].contiguous().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def verify(record: Record, data: Dataset) -> str:
    """Re-measure a record on the test set where its weights are kept; returns a line saying so.

    Raises:
        RecordError: if the weights are damaged, or the accuracy differs by more than 3 images of
            10,000.
    """
    name = record.path.name
    if record.engine_version != ENGINE:
        return (
            f"replayed {name}: recorded by engine version {record.engine_version}, this is version "
            f"{ENGINE}; delete the record to train it anew"
        )
    if not record.weights_path.exists():
        return f"replayed {name}: history and confusion matrix agree (its weights are not kept)"
    log_probabilities = predict(load_network(record), data.test.images, record.statistics)
    hits = int((log_probabilities.argmax(1) == data.test.labels).sum())
    recorded = sum(record.confusion[digit][digit] for digit in range(10))
    if abs(hits - recorded) > TOLERANCE * len(data.test) / 10_000:
        raise RecordError(
            f"record {record.path}: {recorded} of {len(data.test)} test images right as recorded, "
            f"but {hits} re-measured; restore the record or delete it to train the run again"
        )
    return f"replayed {name}: weights verified, test accuracy re-measured and confirmed"


def train(
    wanted: Job,
    data: Dataset,
    folder: Path,
    *,
    engine: Engine | None = None,
    report: Callable[[EpochRow], None] = lambda row: None,
) -> Record:
    """Train a run now and store its record and weights in `folder`.

    After every epoch the history so far is stored as `<name>.partial.json`; it stays if the run is
    interrupted or diverges, and goes when the record is complete.

    Raises:
        ValueError, NonFiniteLossError: as `fit`.
        RecordError: if the folder cannot be written to; checked before training.
        RunInterruptedError: after Ctrl-C.
    """
    check_writable(folder)
    path = folder / f"{wanted.label}-seed{wanted.seed}-{wanted.key(data.checksum)}.json"
    partial = path.with_suffix(".partial.json")
    partial.unlink(missing_ok=True)  # of an earlier try; this one starts at epoch 1
    history: list[EpochRow] = []

    def keep(row: EpochRow) -> None:
        history.append(row)
        write_atomically(partial, _json({"history": [dataclasses.asdict(r) for r in history]}))
        report(row)

    try:
        result = fit(
            wanted.config,
            wanted.recipe,
            data,
            wanted.seed,
            engine=engine or best_engine(),
            measure_test=wanted.measure_test,
            report=keep,
        )
    except NonFiniteLossError as error:
        error.args = (f"{wanted.title}: {error}" + (f" ({partial})" if history else ""),)
        raise
    if result.interrupted:
        kept = f"kept in {partial}" if history else "none to keep"
        raise RunInterruptedError(
            f"interrupted {wanted.title} after epoch {len(history)} of {wanted.recipe.epochs} "
            f"(history {kept}); the same command trains it again, finished runs are replayed"
        )
    record = _record(wanted, data, result, path)
    _save(record, result.network)
    partial.unlink(missing_ok=True)
    return record


def check_writable(folder: Path) -> None:
    """Make the folder if need be.

    Raises:
        RecordError: if nothing can be stored in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RecordError(
            f"cannot store runs in {folder} ({error.strerror}); make it writable, or name "
            "a folder that is with MNIST_RUNS or --store"
        ) from None


def _record(wanted: Job, data: Dataset, result: Run, path: Path) -> Record:
    return Record(
        key=wanted.key(data.checksum),
        label=wanted.label,
        config=wanted.config,
        recipe=wanted.recipe,
        seed=wanted.seed,
        data_checksum=data.checksum,
        history=result.history,
        confusion=result.confusion,
        parameters=sum(p.numel() for p in result.network.parameters()),
        statistics=result.statistics,
        engine_version=ENGINE,
        engine=result.engine,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
            "numba": numba.__version__,
        },
        seconds=result.seconds,
        weights_sha256=weights_checksum(result.network.state_dict()),
        path=path,
    )


def _save(record: Record, network: Network) -> None:
    """Weights first, so that a record on disk always has its weights."""
    arrays = {name: tensor.contiguous().numpy() for name, tensor in network.state_dict().items()}
    with atomic_file(record.weights_path) as part:
        numpy.savez(part, **arrays)
    fields = dataclasses.asdict(record)
    del fields["path"]
    write_atomically(record.path, _json(fields))


def _json(fields: dict) -> str:
    """JSON with one line per top-level field and per row of a table: short, and diffs well."""
    lines = []
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict | list):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            lines.append(f" {json.dumps(name)}: [\n  {rows}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
