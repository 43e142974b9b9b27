import shutil

import pytest

from study import evidence
from study.commands import status
from study.experiments import EXPERIMENTS
from study.store import STUDY


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A study of two experiments, one of whose seeds are all recorded but one."""
    for name in ("1/seed-00.json", "1/seed-00.npz", "1/seed-01.json", "2/seed-03.json"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(STUDY / "models" / name, path)
    monkeypatch.setattr(evidence, "STUDY", tmp_path)
    monkeypatch.setenv("MNIST_ROOT", "elsewhere")  # the study is about its own data all the same
    whole = dict(EXPERIMENTS)
    for name in whole:
        if name not in ("1", "2"):
            del EXPERIMENTS[name]
    yield tmp_path
    EXPERIMENTS.clear()  # monkeypatch would put them back in another order
    EXPERIMENTS.update(whole)


def test_what_is_missing_is_named_and_what_is_there_measured_again(few, capsys):
    assert evidence.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["missing: 1, seeds 2, 3, 4", "missing: 2, seeds 0, 1, 2, 4"]
    assert lines[2].startswith("3 records hold, 1 networks were measured again and agree, 7 runs")


def test_a_plan_that_was_edited_after_its_runs_is_one_line(few, capsys, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "2", EXPERIMENTS["1"])
    assert evidence.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{few / '2' / 'seed-03.json'} is of no experiment of the plan")


def test_a_damaged_record_is_one_line(few, capsys):
    path = few / "1" / "seed-01.json"
    path.write_text(path.read_text().replace("0", "1", 1))
    assert status(evidence.main) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
