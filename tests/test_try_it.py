"""Every "Try it" cell of the notebooks: its recorded answer, and another change that trains."""

from unittest.mock import Mock

import nbformat
import pytest
from matplotlib import pyplot

from study.runs import recorded
from study.show import lesson
from study.show.plots import position_in_band
from study.store import STUDY
from tests.conftest import of_study
from utils.data import ROOT

AGAIN = {  # what a cell has, as recorded, and what a reader may change it to
    "LEARNING_RATE = 0.1": "LEARNING_RATE = 0.2",
    "SQUEEZE = 16": "SQUEEZE = 12",
    "EDGES = (5, 6)": "EDGES = (6, 6)",
    "NORMED = (3, 4, 5, 6)": "NORMED = (5, 6)",
    "DROPOUT = 0.1": "DROPOUT = 0.2",
    "NORMED = EVERY_3X3": "NORMED = (1, 6)",
    "MIDDLE = (20, 20)": "MIDDLE = (18, 18)",
    "DEGREES = 45.0": "DEGREES = 30.0",
    "RATE = 0.01": "RATE = 0.02",
    "SECOND = 0.0": "SECOND = 5.0",
}
NOTEBOOKS = [nbformat.read(path, 4) for path in sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))]
CELLS = [c.source for notebook in NOTEBOOKS for c in notebook.cells if "\ntry_it(" in c.source]


def test_every_model_has_one():
    assert [source.splitlines()[0] for source in CELLS] == list(AGAIN)


def test_the_answers_say_what_was_recorded():
    for model in range(1, 11):
        (mine,), others = map(of_study, (f"{model}-try", model))
        assert "within" in position_in_band(mine, others), model  # as each answer says
        train = [run.train_accuracy[1] for run in others]
        low, high = mine.train_accuracy[1] < min(train), mine.train_accuracy[1] > max(train)
        assert (low, high)[model == 10] or model not in (5, 8, 10), model  # the answers of these


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
    exec(f"{AGAIN[setting]}\n{call}", names)
    printed = capsys.readouterr().out
    assert f"training {model}-" in printed
    assert printed.count("epoch ") == 3
    assert "\ntrain accuracy after epoch 2: " in printed
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
