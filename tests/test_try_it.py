"""Every "Try it" cell of the notebooks: its recorded answer, and another change that trains."""

from unittest.mock import Mock

import numpy
import pytest
from matplotlib import pyplot

from study.experiments import TRIED
from study.runs import recorded
from study.show import lesson
from study.show.plots import position_in_band
from study.store import STUDY
from tests.conftest import of_study
from tests.test_notebooks import NOTEBOOKS, cells

AGAIN = {  # what a cell has, as recorded, and what a reader may change it to
    "LEARNING_RATE = 0.1": "LEARNING_RATE = 0.2",
    "SQUEEZE = 16": "SQUEEZE = 12",
    "NORMED = EVERY_3X3  # or some of them: (1, 2)": "NORMED = (1, 2)",
    "NORMED = (3, 4, 5, 6)": "NORMED = (5, 6)",
    "DROPOUT = 0.5": "DROPOUT = 0.2",
    "NORMED = EVERY_3X3": "NORMED = (1, 6)",
    "MIDDLE = (20, 20)": "MIDDLE = (18, 18)",
    "DEGREES = 180.0": "DEGREES = 30.0",
    "RATE = 0.001": "RATE = 0.02",
    "SECOND = 0.0": "SECOND = 5.0",
}
CODE = [cell.source for path in NOTEBOOKS for cell in cells(path, "code")]
CELLS = [source for source in CODE if "\ntry_it(" in source]


def test_every_model_has_one():
    assert [source.splitlines()[0] for source in CELLS] == list(AGAIN)


def test_the_answers_say_what_was_recorded():
    for model in range(1, 11):
        name = max(name for name in TRIED if name.startswith(f"{model}-"))  # the larger, if any
        (mine,), others = map(of_study, (name, model))
        side = {3: "above", 5: "below", 8: "below", 9: "below"}.get(model, "within")
        assert f", {side} the " in position_in_band(mine, others), model
        train = [run.train_accuracy[1] for run in others]
        assert model != 5 or mine.train_accuracy[1] < min(train)
        assert model not in (4, 10) or mine.train_accuracy[1] > max(train)
        if model == 3:  # about where the recorded seeds end
            ends = [run.test_accuracy[-1] for run in others]
            assert min(ends) < mine.test_accuracy[1] < max(ends)
        if model == 8:  # "To take a 9 for a 6 is the most frequent mistake of this run."
            wrong = numpy.array(mine.confusion) * (1 - numpy.eye(10))
            assert divmod(int(wrong.argmax()), 10) == (9, 6)


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
