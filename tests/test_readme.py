"""The README is current, its example runs, and what it names exists."""

import os
import re
import subprocess

import pytest
from matplotlib import pyplot
from packaging.requirements import Requirement
from PIL import Image

from study.runs import recorded
from study.store import STUDY
from tests.conftest import python
from tools import pages
from utils.data import ROOT

TEXT = (ROOT / "README.md").read_text()
# Preinstalled in Colab, August 2026.
COLAB = {
    "torch": "2.11.0", "torchvision": "0.26.0", "numpy": "2.1.3", "matplotlib": "3.10.0",
    "ipykernel": "6.17.1", "numba": "0.60.0", "scipy": "1.16.3", "pydantic": "2.12.3",
    "scikit-learn": "1.6.1", "pillow": "11.3.0", "tqdm": "4.67.1",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    return recorded(folders=[STUDY])


@pytest.fixture(scope="module")
def content(runs):
    return pages.blocks(runs)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_generated_figures_are_current(content, page):
    text = page.read_text()
    assert pages.renewed(text, content) == text
    assert not re.search(r"-->\n<!-- end", text), "a block is empty"


def test_every_block_stands_on_one_page_and_a_wrong_figure_in_it_is_noticed(content):
    named = re.findall(r"<!-- generated: ([\w-]+) -->", "".join(p.read_text() for p in pages.PAGES))
    assert sorted(named) == sorted(content)
    figure = re.search(r"\d\d\.\d\d ± ", TEXT)[0]
    wrong = TEXT.replace(figure, "99.99 ± ", 1)
    assert pages.renewed(wrong, content) != wrong


def test_the_pictures_are_current(runs):
    for name, figure in pages.pictures(runs).items():
        with Image.open(pages.DOCS / name) as picture:
            stored = picture.text["Description"], picture.text["Source"]
        assert stored == (figure.alt, pages.drawn_from(runs))
        pyplot.close(figure)


def test_no_accuracy_is_typed_outside_the_generated_blocks():
    typed = set()
    for page in pages.PAGES:
        typed |= set(re.findall(r"\d+\.\d+ ?%", pages.BLOCK.sub("", page.read_text())))
    assert typed == {"99.4 %", "99.45 %"}  # the brief, and the threshold of the plan


def test_its_examples_run(small_root, tmp_path):
    lines, example = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(lines.splitlines()) == 6
    own = {"MNIST_ROOT": small_root, "MNIST_RUNS": tmp_path, "MNIST_RECORDS": None}
    for code, variables, expected in (
        (lines, {}, r"^It reads 4, with a probability of \d"),
        (example, own, r"^\d+ parameters, \d"),
    ):
        result = python("-c", code, **variables)
        assert re.search(expected, result.stdout, re.MULTILINE), result.stderr
    assert len(list(tmp_path.glob("variations/9-varied-*/seed-00.json"))) == 1


def test_everything_the_readme_names_exists():
    names = re.findall(r"^([\w./-]+(?:\.py|/)) ", TEXT, re.MULTILINE)
    assert len(names) >= 10
    for name in names + re.findall(r"\]\(([\w./-]+)\)", TEXT):
        assert (ROOT / name).exists(), name
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^([a-z-]+) ", listed.stdout, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE))
    assert {"run", "test", "env"} <= named <= targets


def test_the_readme_is_short():
    prose = re.sub(r"```.*?```", "", pages.BLOCK.sub("", TEXT), flags=re.DOTALL)
    assert len(re.findall(r"[\w'.,-]*\w", prose)) < 800


def requirements(name: str) -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    found = (Requirement(line) for line in lines if line)
    return {r.name: r for r in found if r.marker is None or r.marker.evaluate()}


def test_lower_bounds_fit_colab_and_the_lock():
    bounds, lock = requirements("requirements.txt"), requirements("requirements.lock")
    for name, version in COLAB.items():
        assert bounds[name].specifier.contains(version), name
    for name, bound in bounds.items():
        (pin,) = lock[name].specifier
        assert pin.operator == "=="
        assert bound.specifier.contains(pin.version), name
    assert not bounds["torch"].specifier.contains("2.13.0")
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.search(r"^#|\s# \S|^$", line), f"{line}: say why it is required"


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    lines = script.splitlines()
    assert lines.index("make test") < lines.index("  make test-browser")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
