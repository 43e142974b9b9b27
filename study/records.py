"""A wanted run and a finished one: `Run` and its sealed `Record`.

A run is a pure function of network, recipe, seed and data; its record is what came out, found by
`key = hash(config + recipe + seed + data + engine version)`; a search and a reference have others.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import field, fields
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

import models
from models import Config, build
from study.experiments import EXPERIMENTS, kind_of
from utils import recipes
from utils.device import ENGINE_VERSION, Engine
from utils.recipes import Recipe
from utils.training import EpochRow
from utils.validation import CoerceTuple, NotNegative, Positive, Seed, checked, one_line, short_repr

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], CoerceTuple]


def converter(field: str, module: ModuleType, *names: str) -> Callable[[object], Any]:
    """Makes a function that converts to one of the named classes, as the module has them now.

    A notebook may have reloaded the module since the value was made, which makes other classes of
    the same names. A dictionary, as a record has it, becomes the one whose fields it names.
    """

    def current(given: object) -> Any:
        values = given if isinstance(given, dict) else getattr(given, "__dict__", {})
        for kind in (getattr(module, name) for name in names):
            known = values.keys() <= {each.name for each in fields(kind)}
            if type(given) is kind:
                return given
            if type(given).__name__ == kind.__name__ or (isinstance(given, dict) and known):
                plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
                return kind(**plain)
        raise ValueError(f"run.{field}: expected a {' or '.join(names)}, not {short_repr(given)}")

    return current


as_config = converter("config", models, "NetworkConfig", "SeparableConfig")
as_recipe = converter("recipe", recipes, "Recipe")


@checked
class Run:
    """A wanted run: everything that decides its result but the data."""

    name: Annotated[str, Field(pattern=r"^\w[\w-]*$", max_length=100)]  # no part of the key
    config: Annotated[Any, PlainValidator(as_config)]
    recipe: Annotated[Any, PlainValidator(as_recipe)]
    seed: Seed = 0
    measure_test: bool = True
    reference: bool = False  # in float32 and torch's own layers, to compare with

    @property
    def model(self) -> int | None:
        """Which of the ten its experiment has or changes; None for another network."""
        return EXPERIMENTS[self.name].model if self.name in EXPERIMENTS else None

    @property
    def title(self) -> str:
        """How the run is called in printed lines."""
        return f"{self.name} seed {self.seed}"

    def key(self, data_checksum: str, engine_version: int = ENGINE_VERSION) -> str:
        """16 hex digits of a SHA-256 over everything that decides the figures.

        Fields at their defaults are left out, so that a new field with a neutral default changes
        no key.
        """
        identity = {"config": _off_default(self.config), "recipe": _off_default(self.recipe)}
        identity |= {"seed": self.seed, "data": data_checksum, "engine": engine_version}
        identity |= {} if self.measure_test else {"test": False}
        identity |= {"reference": True} if self.reference else {}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def path(self, folder: Path) -> Path:
        """Where its record lies in a store."""
        return folder / kind_of(self.name) / self.name / f"seed-{self.seed:02d}.json"


def _off_default(settings: Config | Recipe) -> dict:
    defaults = {each.name: each.default for each in fields(settings)}
    return {name: value for name, value in vars(settings).items() if value != defaults[name]}


@checked
class Record:
    """The evidence of one finished run.

    Raises:
        ValueError: for a value of another type, or a key that is not of its contents.
    """

    key: Hex
    run: Run
    data_checksum: Hex
    parameters: Positive
    statistics: Annotated[tuple[float, float], CoerceTuple]  # mean and std of the pixels, 0..1
    history: Annotated[tuple[EpochRow, ...], CoerceTuple]
    # [true][predicted] on the test set after the last epoch; None if it was not measured
    confusion: Annotated[tuple[Counts, ...], CoerceTuple] | None
    engine_version: Positive
    engine: Engine
    processor: str
    versions: dict[str, str]
    seconds: NotNegative
    weights_sha256: Hex | None  # None: of the former layer names, and the weights are not kept
    path: Annotated[Path | None, Field(exclude=True)] = field(default=None, compare=False)

    def __post_init__(self):
        if self.key != self.run.key(self.data_checksum, self.engine_version):
            raise ValueError("its contents have another key")

    def __repr__(self) -> str:
        return f"<{self.run.title}, epochs: {len(self.history)}>"

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


def loads(text: str) -> Record:
    """The record that `dumps` wrote.

    Raises:
        ValueError: in one line, if a byte was changed since, or it is no record.
    """
    body, mark, seal = text.rpartition(SEAL)
    if not mark or seal != f'{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n':
        raise ValueError("it was changed after it was sealed")
    try:
        return _RECORD.validate_json(body + "\n}")
    except ValidationError as error:
        raise ValueError(one_line(error, "record")) from None
