"""The notebooks as files, alone in Colab, and the negative controls under nbval."""

import html
import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_output

from study.findings import sentences
from study.runs import recorded
from tests.conftest import python
from utils.data import ROOT

STEPS = {"1_skeleton": [1, 2, 3], "2_efficiency": [4, 5, 6, 7], "3_augmentation_lr": [8, 9, 10]}
NOTEBOOKS = sorted(ROOT.glob("[na][op]*/[!.]*.ipynb"))  # notebooks/ and appendix/
CONTROLS = sorted((ROOT / "tests" / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def compared(cell) -> bool:
    """Whether nbval compares anything of a code cell's stored output that could differ.

    It compares no picture; matplotlib's own text of a figure says its size alone.
    """
    if any(name in cell.source for name in ("_IGNORE_OUTPUT", "NBVAL_SKIP")):
        return False
    found = [{"text": output.get("text"), **output.get("data", {})} for output in cell.outputs]
    texts = [text for each in found for kind, text in each.items() if not kind.startswith("image/")]
    return any(text and not re.fullmatch(r"<Figure size .*>", str(text)) for text in texts)


def test_there_are_exactly_three_steps():
    names = [path.stem for path in NOTEBOOKS if path.parent.name == "notebooks"]
    assert names == list(STEPS)


@each_notebook
def test_notebook_is_a_clean_run_that_renders_everywhere(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 2_000_000
    assert "widgets" not in book.metadata
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert set(cell.metadata.get("tags", ())) <= {"hide-input"}, "nbval obeys some tags"
        assert len(cell.source.splitlines()) <= 40, cell.source
        assert max(map(len, cell.source.splitlines())) <= 88, cell.source
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert str(ROOT) not in str(output)


@each_notebook
def test_as_a_page_every_figure_keeps_its_alternative_text(path):
    template = re.search(r"^TEMPLATE := (\w+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert f"--template {template} " in (ROOT / "docs" / "running.md").read_text()
    page, _ = HTMLExporter(template_name=template).from_filename(str(path))
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    stored = [figure.metadata["image/png"]["alt"] for figure in figures]
    shown = re.findall(r'<img[^>]*\salt="([^"]*)"', page)
    assert [html.unescape(text) for text in shown] == list(filter(None, stored)) != []


@each_notebook
def test_every_cell_has_output_that_nbval_compares(path):
    unchecked = [cell.source for cell in cells(path, "code") if not compared(cell)]
    assert len(unchecked) == (2 if path.stem == "1_skeleton" else 0), unchecked
    assert all("network" in source for source in unchecked)  # what is trained by hand, live


@each_notebook
def test_every_model_states_target_results_and_what_the_records_say(path):
    outputs = (output.get("data", {}) for c in cells(path, "code") for output in c.outputs)
    prose = "\n".join(cell.source for cell in cells(path, "markdown"))
    shown = prose + "\n".join(data.get("text/markdown", "") for data in outputs)
    typed = re.findall(r"\d+\.\d+\s*%|\b9[789]\.\d+", prose)
    assert set(typed) <= {"99.4 %", "99.4"}, "a measured number is typed"
    models = STEPS.get(path.stem, [])
    assert re.findall(r"^## Model (\d+)", prose, re.MULTILINE) == list(map(str, models))
    for heading in ("Target", "Results", "Analysis"):
        assert len(re.findall(f"^### {heading}", shown, re.MULTILINE)) >= len(models)
    for model in models or [None]:  # as the committed records give them now
        assert (sentences(model) or "none") in shown


def test_a_cell_counts_as_compared_by_text_that_could_differ():
    def checked(source: str, *outputs) -> bool:
        return compared(new_code_cell(source, outputs=list(outputs)))

    def picture(**text: str):
        return new_output("display_data", {"image/png": "x", **text})

    stream = new_output("stream", text="1")
    assert checked("print(1)", stream)
    assert not checked("x = 1")
    assert not checked("# NBVAL_IGNORE_OUTPUT\nprint(1)", stream)
    assert not checked("show()", picture())
    assert not checked("show()", picture(**{"text/plain": "<Figure size 640x288 with 2 Axes>"}))
    assert checked("show()", picture(**{"text/plain": "Test accuracy by epoch, to 99.4 %."}))


def test_a_wrong_figure_in_a_notebook_fails_and_nothing_else_does():
    """Each control's set-up cell passes; the other fails for one number, put wrong on purpose."""
    options = ["--nbval", "-p", "no:cacheprovider", "-o", "addopts=", "-v", "-rN"]
    result = python("-m", "pytest", *options, *map(str, CONTROLS))
    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = re.findall(r"/(\w+)::ipynb::Cell (\d+) (PASSED|FAILED)", result.stdout)
    names = ("wrong_accuracy", "wrong_parameter_count")
    assert verdicts == [(n, *how) for n in names for how in (("0", "PASSED"), ("1", "FAILED"))]
    (stored, computed), (stored_count, computed_count) = re.findall(
        r"^ +'(.*)' == '(.*)'$", result.stdout, re.MULTILINE
    )
    accuracy = recorded(["9"])["9"][0].test_accuracy[-1]
    assert stored.replace("99.99", f"{accuracy:.2f}") == computed != stored
    assert stored_count.replace("7599", "7598") == computed_count != stored_count


SETUP = next(cell.source for cell in cells(NOTEBOOKS[0], "code") if "ADDRESS" in cell.source)


def set_up(folder: Path, before: str = "", address: str = "") -> str:
    """What the notebooks' first cell prints or raises, run in a folder."""
    source = before + SETUP.replace('ADDRESS = ""', f'ADDRESS = "{address}"')
    script = """if True:
        import sys
        try:
            exec(sys.argv[1], {})
        except Exception as error:
            print(*error._render_traceback_())
    """
    return python("-c", script, source, cwd=folder).stdout


def test_the_project_is_found_or_one_line_says_what_to_do(tmp_path):
    for path in NOTEBOOKS:
        assert SETUP in [cell.source for cell in cells(path, "code")]
    (tmp_path / "models.py").touch()  # of another project
    assert set_up(tmp_path).startswith("open this notebook in a clone (papermill: --inject")
    for name in ("PAPERMILL_INPUT_PATH", "__vsc_ipynb_file__"):
        assert set_up(tmp_path, f"{name} = {str(NOTEBOOKS[0])!r}\n") == "project found\n"
    assert set_up(NOTEBOOKS[0].parent) == "project found\n"
    missing = (tmp_path / "no.git").as_uri()
    assert set_up(tmp_path, address=missing).startswith("git cannot clone the project: fatal: ")
    (tmp_path / "mnist-under-8k" / "study").mkdir(parents=True)
    assert set_up(tmp_path, address=missing).endswith(
        "mnist-under-8k is no complete copy: delete it, then run this cell again\n"
    )
