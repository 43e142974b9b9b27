"""The notebooks as files, alone in Colab, and the negative controls under nbval."""

import html
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from study.findings import sentences
from study.runs import recorded
from utils.data import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))
CONTROLS = sorted((ROOT / "tests" / "notebooks").glob("*.ipynb"))
MARKER = re.compile(r"#\s*(NBVAL_\w+|PYTEST_VALIDATE_\w+)(.*)")


def code_cells(path: Path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def marker_faults(source: str) -> list[str]:
    """Markers that nbval silently ignores: with text behind them, misspelt, or after code."""
    known = {"NBVAL_IGNORE_OUTPUT", "NBVAL_CHECK_OUTPUT", "NBVAL_RAISES_EXCEPTION", "NBVAL_SKIP"}
    faults = []
    for line in source.splitlines():
        found = MARKER.search(line)
        alone = found and not line[: found.start()].strip() and not found[2].strip()
        if found and not (alone and found[1] in known):
            faults.append(line)
    return faults


def compared(cell) -> bool:
    """Whether nbval compares anything of a code cell's stored output."""
    if any(name in cell.source for name in ("NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP")):
        return False
    return any(
        output.output_type == "stream" or set(output.get("data", {})) - {"image/png", "image/jpeg"}
        for output in cell.outputs
    )


def test_there_are_exactly_three_steps():
    names = ["1_skeleton.ipynb", "2_efficiency.ipynb", "3_augmentation_lr.ipynb"]
    assert [path.name for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_a_clean_run_that_renders_everywhere(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 2_000_000
    assert "widgets" not in book.metadata
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert marker_faults(cell.source) == []
        assert not cell.metadata.get("tags"), "nbval obeys some tags; say it in the source"
        assert len(cell.source.splitlines()) <= 28, cell.source
        assert max(map(len, cell.source.splitlines())) <= 88, cell.source
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert str(ROOT) not in str(output)
            if "image/png" in output.get("data", {}):
                assert output.metadata["image/png"]["alt"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_as_a_page_every_figure_keeps_its_alternative_text(path):
    template = re.search(r"^TEMPLATE := (\w+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert f"--template {template} " in (ROOT / "docs" / "running.md").read_text()
    page, _ = HTMLExporter(template_name=template).from_filename(str(path))
    figures = [
        o for cell in code_cells(path) for o in cell.outputs if "image/png" in o.get("data", {})
    ]
    stored = [figure.metadata["image/png"]["alt"] for figure in figures]
    shown = re.findall(r'<img[^>]*\salt="([^"]*)"', page)
    assert [html.unescape(text) for text in shown] == stored != []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_has_output_that_nbval_compares(path):
    unchecked = [cell.source for cell in code_cells(path) if not compared(cell)]
    # Only the versions of the machine at hand may differ.
    assert len(unchecked) == 1
    assert "torch.__version__" in unchecked[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_types_no_measured_number(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            typed = re.findall(r"\d+\.\d+\s*%|\b9[789]\.\d+", cell.source)
            assert set(typed) <= {"99.4 %", "99.4"}, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_analysis_begins_with_what_the_records_say(path):
    """The stored sentences are those that the committed records give now."""
    stored = {}
    for cell in code_cells(path):
        found = re.fullmatch(r"Markdown\(sentences\((\d*)\)\)", cell.source)
        if found:
            stored[int(found[1]) if found[1] else None] = cell.outputs[0]["data"]["text/markdown"]
    models = {"1": [1, 2, 3], "2": [4, 5, 6, 7], "3": [8, 9, 10, None]}[path.name[0]]
    assert list(stored) == models
    for model, text in stored.items():
        assert text == sentences(model) != ""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_model_states_target_results_analysis(path):
    prose = "\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    models = re.findall(r"^## Model (\d+)", prose, re.MULTILINE)
    expected = {"1": ["1", "2", "3"], "2": ["4", "5", "6", "7"], "3": ["8", "9", "10"]}
    assert models == expected[path.name[0]]
    for heading in ("Target", "Results", "Analysis"):
        assert len(re.findall(f"^### {heading}", prose, re.MULTILINE)) >= len(models)


@pytest.mark.parametrize(
    ("source", "faulty"),
    [
        ("# NBVAL_IGNORE_OUTPUT\nprint(1)", False),
        ("# NBVAL_IGNORE_OUTPUT: times differ\nprint(1)", True),
        ("# NBVAL_IGNORE_OUTPUTS", True),
        ("print(1)  # NBVAL_SKIP", True),
        ("print(1)", False),
    ],
)
def test_marker_lint_finds_what_nbval_ignores(source, faulty):
    assert bool(marker_faults(source)) is faulty


def test_output_lint_finds_cells_that_pass_vacuously():
    def cell(source, *outputs):
        return nbformat.v4.new_code_cell(source, outputs=list(outputs))

    stream = nbformat.v4.new_output("stream", text="1")
    picture = nbformat.v4.new_output("display_data", {"image/png": "x"})
    assert compared(cell("print(1)", stream))
    assert not compared(cell("x = 1"))
    assert not compared(cell("show()", picture))
    assert not compared(cell("# NBVAL_IGNORE_OUTPUT\nprint(1)", stream))


def nbval(*arguments: object) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "-v",
        "-rN",  # no closing summary, which repeats each failure where the variable CI is set
    ]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )


def test_a_wrong_figure_in_a_notebook_fails_and_nothing_else_does():
    """Each control's set-up cell passes; the other fails for one number, put wrong on purpose."""
    result = nbval(*CONTROLS)
    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = re.findall(r"/(\w+)::ipynb::Cell (\d+) (PASSED|FAILED)", result.stdout)
    names = [path.stem for path in CONTROLS]
    assert names == ["wrong_accuracy", "wrong_parameter_count"]
    expected = [(name, n, how) for name in names for n, how in (("0", "PASSED"), ("1", "FAILED"))]
    assert verdicts == expected
    (stored, computed), (stored_count, computed_count) = re.findall(
        r"^ +'(.*)' == '(.*)'$", result.stdout, re.MULTILINE
    )
    accuracy = recorded(["9"])["9"][0].test_accuracy[-1]
    assert stored.replace("99.99", f"{accuracy:.2f}") == computed != stored
    assert stored_count.replace("7599", "7598") == computed_count != stored_count


def test_outside_the_project_without_an_address_it_says_what_to_do(tmp_path):
    book = nbformat.read(NOTEBOOKS[0], as_version=4)
    book.cells = [next(cell for cell in book.cells if "ADDRESS" in cell.source)]
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": tmp_path}})
    with pytest.raises(Exception, match="open this notebook inside a clone of the project"):
        client.execute()
