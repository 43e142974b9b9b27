"""Strictly checked dataclasses; errors are one line.

pydantic checks types, ranges and unknown fields. Nothing is converted but whole numbers to floats
(15 and 15.0 are one value) and, where a field allows it, lists to tuples.
"""

import functools
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

NotNegative = Annotated[float, Field(ge=0)]
UnitInterval = Annotated[float, Field(ge=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
CoerceTuple = Strict(False)  # accept a list for a tuple

T = TypeVar("T")
_adapter = functools.cache(TypeAdapter)


class OneLineError(Exception):
    """An error whose message says all: a notebook shows that line and no traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython's name
        return [f"{type(self).__name__}: {self}"]


def checked(cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose values are checked; a wrong one is a one-line ValueError."""
    strict = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    made = dataclass(frozen=True, config=strict)(cls)
    names, construct = list(made.__dataclass_fields__), made.__init__

    @functools.wraps(construct)
    def __init__(self, *arguments, **fields):  # noqa: N807
        try:
            construct(self, *arguments, **fields)
        except ValidationError as error:
            raise ValueError(one_line(error, cls.__name__.lower(), names)) from None

    made.__init__ = __init__
    return made


def check(kind: type[T], value: T, name: str) -> T:
    """The value, if it is of that kind (a type with its range, e.g. `Seed`); else a ValueError."""
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(one_line(error, name)) from None


def one_line(error: ValidationError, name: str, fields: list[str] = ()) -> str:
    """The first fault that pydantic found: where, what is allowed, what was given.

    Positional arguments, which pydantic numbers, are named from `fields`.
    """
    first = error.errors(include_url=False)[0]
    loc = list(first["loc"])
    if loc and isinstance(loc[0], int) and loc[0] < len(fields):
        loc[0] = fields[loc[0]]
    where = "".join(c if c.isprintable() else "?" for c in ".".join([name, *map(str, loc)]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message  # our own words, which name the field
    return f"{where}: {message[0].lower()}{message[1:]}, not {short_repr(first['input'])}"


def short_repr(value: object) -> str:
    """A value's repr in one line of at most 60 characters."""
    given = " ".join(repr(value).split())
    return given if len(given) <= 60 else f"{given[:57]}..."


def first_line(error: object) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error) or " ").splitlines()[0].strip() or type(error).__name__
