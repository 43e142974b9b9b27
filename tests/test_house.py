"""The houses: which imports which, how large each is, and the list of their files."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from utils.data import ROOT

HOUSE = (ROOT / "docs" / "house.md").read_text()
# What each house may import, beside itself.
ALLOWED = {
    "models.py": set(),
    "fast": set(),
    "utils": {"models", "fast"},
    "study": {"models", "fast", "utils"},
    "benchmarks": {"models", "fast", "utils", "study"},
    "tools": {"models", "fast", "utils", "study", "benchmarks"},
    "tests": {"models", "fast", "utils", "study", "benchmarks", "tools"},
}
LIMITS = [  # lines at most
    (1_400, ["utils"]),
    (2_900, ["study"]),
    (760, ["fast"]),
    (5_000, ["utils", "study", "fast"]),
    (4_300, ["tests"]),
    (2_200, ["tools", "benchmarks", "site"]),
]


def files(house: str, *suffixes: str) -> list[Path]:
    path = ROOT / house
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [path for path in found if path.suffix in (suffixes or (".py",))]


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for house in ALLOWED for path in files(house)}


def imported(path: Path) -> set[str]:
    """Modules of the project that a file imports, in a function or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= below or {node.module}
    return found & MODULES.keys()


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


@pytest.mark.parametrize("house", ALLOWED)
def test_a_house_imports_what_it_may(house):
    own = house.removesuffix(".py")
    for name, wanted in IMPORTS.items():
        if name.split(".")[0] == own:
            others = {
                other for other in wanted if other.split(".")[0] not in ALLOWED[house] | {own}
            }
            assert not others, name


def test_no_module_imports_itself_in_a_circle():
    assert list(TopologicalSorter(IMPORTS).static_order())


def lines(paths: list[Path]) -> int:
    return sum(path.read_bytes().count(b"\n") for path in paths)


@pytest.mark.parametrize(("limit", "houses"), LIMITS)
def test_a_house_is_small(limit, houses):
    suffixes = (".py", ".js", ".css", ".html")
    assert lines([path for house in houses for path in files(house, *suffixes)]) <= limit


def test_utils_is_read_in_one_sitting():
    found = files("utils")
    assert len(found) <= 12
    assert {path.parent for path in found} == {ROOT / "utils"}
    assert max(lines([path]) for path in found) <= 300


def test_every_file_has_its_line_and_every_line_its_file():
    listed = re.findall(r"^([\w/]+\.py) +\S", HOUSE, re.MULTILINE)
    houses = ("models.py", "utils", "study", "fast", "tools", "benchmarks")
    found = [path for house in houses for path in files(house) if path.name != "__init__.py"]
    assert sorted(listed) == sorted(path.relative_to(ROOT).as_posix() for path in found)
