"""The houses: which imports which, how large each is, and the list of their files."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from utils.data import ROOT

# Each imports those before it alone.
HOUSES = ("models", "fast", "utils", "study", "benchmarks", "tools", "tests")
LIMITS = {  # lines at most
    "utils": 1_400,
    "study": 3_090,
    "fast": 760,
    "utils study fast": 5_140,
    "tests": 4_560,
    "tools benchmarks site": 2_230,
}


def files(house: str) -> list[Path]:
    if house == "models":
        return [ROOT / "models.py"]
    found = sorted((ROOT / house).rglob("*"))
    return [path for path in found if path.suffix in (".py", ".js", ".css", ".html")]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for house in HOUSES for path in files(house)}


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


@pytest.mark.parametrize("house", HOUSES)
def test_a_house_imports_those_before_it_alone(house):
    for path in files(house):
        for name in imported(path):
            assert HOUSES.index(name.split(".")[0]) <= HOUSES.index(house), (path, name)


def test_no_module_imports_itself_in_a_circle():
    imports = {name: imported(path) for name, path in MODULES.items()}
    assert len(list(TopologicalSorter(imports).static_order())) == len(MODULES)


def lines(paths: list[Path]) -> int:
    return sum(path.read_bytes().count(b"\n") for path in paths)


@pytest.mark.parametrize("houses", LIMITS)
def test_a_house_is_small(houses):
    assert lines([path for house in houses.split() for path in files(house)]) <= LIMITS[houses]


def test_utils_is_read_in_one_sitting():
    found = files("utils")
    assert len(found) <= 12
    assert {path.parent for path in found} == {ROOT / "utils"}
    assert max(lines([path]) for path in found) <= 300


def test_every_file_has_its_line_and_every_line_its_file():
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    listed = re.findall(r"^([\w/]+\.py) +\S", page, re.MULTILINE)
    found = [path for house in HOUSES[:-1] for path in files(house) if lines([path]) > 10]
    assert sorted(listed) == sorted(path.relative_to(ROOT).as_posix() for path in found)
