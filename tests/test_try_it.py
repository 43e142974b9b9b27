"""Every "Try it" cell of the notebooks, with the change that its text proposes."""

from unittest.mock import Mock

import nbformat
import pytest
from matplotlib import pyplot

from study.runs import recorded
from study.show import lesson
from study.store import STUDY
from utils.data import ROOT

PROPOSED = {
    "LEARNING_RATE = 0.01": "LEARNING_RATE = 0.1",
    "SQUEEZE = 10": "SQUEEZE = 16",
    "EDGES = (10, 12)": "EDGES = (5, 6)",
    "NORMED = EVERY_3X3": "NORMED = (3, 4, 5, 6)",
    "DROPOUT = 0.01": "DROPOUT = 0.1",
    "NORMED = MODELS[6].batch_norm": "NORMED = EVERY_3X3",
    "MIDDLE = (16, 16)": "MIDDLE = (20, 20)",
    "DEGREES = 6.9": "DEGREES = 45.0",
    "RATE = 0.075": "RATE = 0.01",
    "SECOND = 15.0": "SECOND = 0.0",
}
NOTEBOOKS = [nbformat.read(path, 4) for path in sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))]
CELLS = [c.source for notebook in NOTEBOOKS for c in notebook.cells if "\ntry_it(" in c.source]


def test_every_model_has_one():
    assert [source.splitlines()[0] for source in CELLS] == list(PROPOSED)


@pytest.mark.parametrize("source", CELLS, ids=lambda source: source.partition(" ")[0])
def test_a_changed_number_trains_and_is_drawn(source, monkeypatch, small, capsys):
    setting, call = source.splitlines()
    model = call.partition("(")[2].partition(",")[0]
    kept = recorded([model], [STUDY])
    shown, names = [], {}
    monkeypatch.setattr(lesson, "show", shown.append)
    monkeypatch.setattr("study.runs.load_mnist", lambda *_: small)
    monkeypatch.setattr(lesson, "recorded", lambda _: kept)
    exec("from models import EVERY_3X3, MODELS\nfrom study.show.lesson import try_it", names)
    exec(f"{PROPOSED[setting]}\n{call}", names)
    printed = capsys.readouterr().out
    assert f"training {model}-" in printed
    assert printed.count("epoch ") == 2
    (figure,) = shown
    assert figure.get_suptitle().startswith("After epoch 2 your run is at ")
    pyplot.close(figure)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": {"learning_rate": -1}}, "recipe.learning_rate: input should be greater than 0"),
        ({"config": {"dropout": 2}}, "config: dropout must be in [0, 1), not 2"),
    ],
)
def test_a_bad_value_is_one_line(changes, line, capsys):
    lesson.try_it(4, **changes)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(line)


def test_an_interrupted_try_is_one_line(monkeypatch, small, capsys):
    monkeypatch.setattr("study.runs.load_mnist", lambda *_: small)
    monkeypatch.setattr("study.runs.epoch_line", Mock(side_effect=KeyboardInterrupt))
    lesson.try_it(4, recipe={"batch_size": 100})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("interrupted 4-varied-")
