"""A wanted run and a finished one: `Run` and its sealed `Record`.

A run is a pure function of network, recipe, seed and data; its record is what came out, found by
`key = hash(config + recipe + seed + data + engine version)`; a search and a reference have others.
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter, ValidationError

from models import Config, build
from study.experiments import kind_of
from utils.device import ENGINE_VERSION, Engine
from utils.evaluation import accuracy
from utils.recipes import Recipe, learning_rate
from utils.training import EpochRow
from utils.validation import (
    CoerceTuple,
    Hex,
    NotNegative,
    OneLineError,
    Positive,
    Seed,
    checked,
    one_line,
)

Count = Annotated[int, Field(ge=0)]


class RecordError(OneLineError, RuntimeError):
    """A record or its weights are damaged, disagree, or cannot be stored."""


class RunInterruptedError(OneLineError, RuntimeError):
    """Ctrl-C ended a run."""


@checked
class Run:
    """A wanted run: everything that decides its result but the data."""

    # Of its experiment; no part of the key.
    name: Annotated[str, Field(pattern=r"^\w[\w-]*$", max_length=100)]
    config: Config
    recipe: Recipe
    seed: Seed = 0
    measure_test: bool = True
    reference: bool = False  # in float32 and torch's own layers, to compare with

    @property
    def model(self) -> int | None:
        """The number that its name begins with: of the model it is, or varies; None without."""
        number = self.name.split("-")[0]
        return int(number) if number.isdecimal() else None

    @property
    def title(self) -> str:
        """How the run is called in printed lines."""
        return f"{self.name} seed {self.seed}"

    def key(self, data_checksum: str, engine_version: int = ENGINE_VERSION) -> str:
        """16 hex digits of a SHA-256 over everything that decides the figures.

        Fields at their defaults are left out, so that a new field with a neutral default changes
        no key.
        """
        identity = {
            "config": _off_default(self.config),
            "recipe": _off_default(self.recipe),
            "seed": self.seed,
            "data": data_checksum,
            "engine": engine_version,
        }
        identity |= {} if self.measure_test else {"test": False}
        identity |= {"reference": True} if self.reference else {}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def path(self, folder: Path) -> Path:
        """Where its record lies in a store."""
        return folder / kind_of(self.name) / self.name / f"seed-{self.seed:02d}.json"


def _off_default(settings: Config | Recipe) -> dict:
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    }


@checked
class Record:
    """The evidence of one finished run.

    Raises:
        ValueError: where its parts contradict each other.
    """

    key: Hex
    run: Run
    data_checksum: Hex
    parameters: Positive
    statistics: Annotated[
        tuple[float, float], CoerceTuple
    ]  # mean and SD of the pixels, for `predict`
    history: Annotated[tuple[EpochRow, ...], CoerceTuple]
    # [true][predicted] on the test set after the last epoch; None if it was not measured
    confusion: Annotated[tuple[Annotated[tuple[Count, ...], CoerceTuple], ...], CoerceTuple] | None
    engine_version: Positive
    engine: Engine
    processor: str
    versions: dict[str, str]
    seconds: NotNegative
    weights_sha256: Hex | None  # None: of the former layer names, and the weights are not kept
    path: Annotated[Path | None, Field(exclude=True)] = dataclasses.field(
        default=None, compare=False
    )

    def __post_init__(self):
        key = self.run.key(self.data_checksum, self.engine_version)
        _agree("its contents have another key", key == self.key)
        _agree("its network has another size", count_parameters(self.run.config) == self.parameters)
        recipe, rows = self.run.recipe, self.history
        numbered = [row.epoch for row in rows] == list(range(1, len(rows) + 1))
        _agree(f"its epochs are not 1 to {recipe.epochs}", numbered and len(rows) == recipe.epochs)
        for split, measured in (
            ("validation", recipe.validation),
            ("test", self.run.measure_test),
        ):
            figures = [
                getattr(row, f"{split}_{kind}") for row in rows for kind in ("loss", "accuracy")
            ]
            _agree(f"its {split} figures", all((f is not None) == measured for f in figures))
        if not recipe.schedule.startswith("plateau"):
            rates = [learning_rate(recipe, epoch, 1) for epoch in range(recipe.epochs)]
            pairs = zip(rates, rows, strict=True)
            near = all(abs(rate - row.learning_rate) <= 1e-9 * rate for rate, row in pairs)
            _agree("its learning rates are not its recipe's", near)
        _agree("its confusion matrix", (self.confusion is not None) == self.run.measure_test)
        if self.confusion is not None:
            square = [len(row) for row in self.confusion] == [10] * 10
            right = square and sum(map(sum, self.confusion)) and accuracy(self.confusion)
            agree = right is not False and abs(right - rows[-1].test_accuracy) < 1e-9
            _agree("its confusion matrix disagrees with its final test accuracy", agree)

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


_RECORD = TypeAdapter(Record)


def _agree(what: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{what} (its parts disagree)")


@functools.lru_cache(256)
def count_parameters(config: Config) -> int:
    """Learned numbers of a network; nothing is allocated or drawn."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


SEAL = ',\n "seal": "'


def dumps(record: Record) -> str:
    """The record as text: JSON, one line per field and per row, a digest of the rest at its end."""
    lines = []
    for name, value in _RECORD.dump_python(record, mode="json").items():
        if isinstance(value, list) and value and isinstance(value[0], dict | list):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            lines.append(f" {json.dumps(name)}: [\n  {rows}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    body = "{\n" + ",\n".join(lines)
    return f'{body}{SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def _no_duplicates(pairs: list[tuple]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field stands twice")
    return fields


def loads(text: str) -> Record:
    """The record that `sealed` wrote.

    Raises:
        ValueError: in one line, if a byte was changed since, or its parts disagree.
    """
    body, mark, seal = text.rpartition(SEAL)
    if not mark or seal != f'{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n':
        raise ValueError("it was changed after it was sealed")
    try:
        record = _RECORD.validate_json(body + "\n}")
    except ValidationError as error:
        raise ValueError(one_line(error, "record")) from None
    if "path" in json.loads(body + "\n}", object_pairs_hook=_no_duplicates):
        raise ValueError("it has a path, which is not its to say")
    return record
