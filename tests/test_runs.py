import os
import re
import shutil
import socket
import subprocess
from unittest.mock import Mock

import pytest

from models import MODELS
from study import runs, store
from study.experiments import EXPERIMENTS, FINALS, kind_of
from study.runs import epoch_line, recorded, wanted_runs
from study.store import STUDY, RecordError, load_all
from tests.conftest import QUICK, of_study, python
from utils.data import ROOT
from utils.recipes import RECIPES, Recipe
from utils.training import EpochRow


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    monkeypatch.setenv("MNIST_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path / "runs"))


def test_seeds_are_trained_once_then_replayed_and_nobody_is_asked(small, capsys, monkeypatch):
    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, Mock(side_effect=OSError("no network here")))
    live = runs.runs(4, [0, 1, 0], recipe=QUICK, data=small)
    assert [record.run.seed for record in live] == [0, 1]
    printed = capsys.readouterr().out.splitlines()
    name = live[0].run.name
    for seed, lines in enumerate((printed[:5], printed[5:])):
        assert lines[0] == f"training {name} seed {seed}, 2 epochs"
        assert re.fullmatch(r"this takes about \d+ s", lines[1])
        assert [line.split()[:2] for line in lines[2:4]] == [["epoch", "1"], ["epoch", "2"]]
        assert lines[4].startswith("trained in ")
    monkeypatch.setattr(store, "fit", None)  # whatever trains from now on fails
    assert runs.runs(4, range(2), recipe=QUICK, data=small) == live
    (line,) = capsys.readouterr().out.splitlines()
    confirmed = "test accuracy of seed 0 re-measured and confirmed"
    assert line == f"{name}: replayed seeds 0, 1; {confirmed}"
    live[1].weights_path.unlink()
    assert runs.runs(4, [1], recipe=QUICK, data=small) == live[1:]
    assert capsys.readouterr().out == f"{name}: replayed seed 1\n"
    live[0].path.write_text(live[0].path.read_text().replace("e", "f", 1))
    with pytest.raises(RecordError, match="is damaged"):  # neither replayed nor trained over
        runs.runs(4, recipe=QUICK, data=small)


def test_folders_named_by_the_environment_lie_in_the_project_or_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MNIST_RUNS", "~/mine")
    monkeypatch.setenv("MNIST_RECORDS", os.pathsep.join(["build/some", str(tmp_path / "others")]))
    monkeypatch.chdir(tmp_path)
    folders = [ROOT / "build" / "some", tmp_path / "others", tmp_path / "mine"]
    assert store.record_folders() == folders


def test_the_first_folder_counts_and_others_are_looked_at(make_record, small, tmp_path):
    (wanted,) = wanted_runs(4, recipe=QUICK)
    made = make_record(wanted, data_checksum=small.checksum)
    for folder in ("records/anything", "runs/variations"):
        shutil.copytree(made.path.parent, tmp_path / folder)
    (found,) = runs.runs(4, recipe=QUICK, data=small)
    assert found.path == tmp_path / "records" / "anything" / "seed-00.json"
    assert found == made


@pytest.mark.parametrize(
    ("experiment", "changes", "name"),
    [
        (4, {}, "4"),
        ("9-final", {}, "9-final"),
        (7, {"recipe": {"rotations": [6.9]}}, "8"),
        (8, {"recipe": RECIPES["constant"]}, "7"),
        (6, {"config": MODELS[7]}, "7"),
        (9, {"config": {"middle": (12, 12), "squeeze_2": 10, "late": (10, 12)}}, "10"),
        ("8", {"recipe": Recipe(), "config": MODELS[1]}, "1"),
    ],
)
def test_equal_settings_are_the_same_experiment(experiment, changes, name):
    (run,) = wanted_runs(experiment, 0, **changes)
    assert [run] == wanted_runs(name, 0)


@pytest.mark.parametrize(
    "changes", [{"recipe": {"epochs": 2}}, {"recipe": QUICK}, {"config": {"dropout": 0.1}}]
)
def test_a_variation_is_one_seed_under_a_name_of_its_own(changes):
    (run,) = wanted_runs(4, **changes)
    assert run.name.startswith("4-varied-")
    assert run.name not in EXPERIMENTS
    assert (run.seed, run.model, kind_of(run.name)) == (0, None, "variations")
    assert [run.seed for run in wanted_runs(4)] == list(range(10))
    assert wanted_runs(4, recipe={"epochs": 3})[0].name != run.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experiment": 11}, "unknown experiment 11; nearest are 1"),
        ({"recipe": {"epoch": 2}}, "recipe has no epoch; it has optimizer, "),
        ({"recipe": {1: 2}}, "recipe has no 1; it has optimizer, "),
        ({"recipe": MODELS[4]}, "recipe must be a Recipe or a dictionary of the fields to change"),
        ({"config": {"depth": 2}}, "config has no depth; it has edges, "),
        ({"config": "large"}, "config must be a NetworkConfig or a dictionary of the fields to "),
        ({"seeds": []}, "seeds: there is none"),
        ({"seeds": b"0"}, "seed: .*not b'0'"),
        ({"data": []}, r"data: expected what load_mnist\(\) returns, not \[\]"),
    ],
)
def test_a_wrong_argument_is_one_line(small, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        runs.runs(**{"experiment": 4, "data": small} | arguments)
    assert "\n" not in str(caught.value)


def test_everything_recorded_is_counted(mnist):
    committed = load_all([STUDY])
    wanted: dict[str, set] = {}
    for name in EXPERIMENTS:
        for run in wanted_runs(name):  # two experiments may share a run
            wanted.setdefault(run.key(mnist.checksum), set()).add(run)
    assert committed.keys() <= wanted.keys()
    there = {name: len(list(STUDY.glob(f"finals/{name}/*.json"))) for name in FINALS}
    whole = [name for name in FINALS if there[name] == len(EXPERIMENTS[name].seeds)]
    assert list(recorded(folders=[STUDY])) == [*map(str, MODELS), *whole]
    assert recorded(folders=[]) == {}  # what has not run is left out
    names = [name for name in EXPERIMENTS if (STUDY / kind_of(name) / name).is_dir()]
    shown = {record.key for records in recorded(names, [STUDY]).values() for record in records}
    assert shown == committed.keys()
    assert len(list(STUDY.rglob("seed-*.json"))) == len(committed)  # no two of one key
    kept: dict[str, bool] = {}
    for key, record in committed.items():
        assert record.run in wanted[key]
        assert record.path == record.run.path(STUDY)
        kept[str(record.weights_path)] = EXPERIMENTS[record.run.name].keeps(record.run.seed)
        assert record.weights_path.exists() or not kept[str(record.weights_path)], record.path
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    listed = "\n".join(kept)
    ignored = subprocess.run(command, cwd=ROOT, input=listed, capture_output=True, text=True)
    assert set(ignored.stdout.splitlines()) == {path for path in kept if not kept[path]}


def test_a_run_of_another_seed_joins_no_group(mnist, make_record, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_RECORDS", str(STUDY))
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path))
    (wanted,) = wanted_runs(4, 12)
    made = make_record(wanted, data_checksum=mnist.checksum)
    assert runs.runs(4, 12, data=mnist) == [made]
    assert made not in runs.runs(4, data=mnist) + recorded("4")["4"]
    with pytest.raises(ValueError, match=r"no run of 4 is recorded; .*--models 4 "):
        recorded(["4"], [tmp_path / "records"])


def test_epoch_line_shows_what_was_measured():
    for measured, shown in (
        ((None, None, 0.05, 99.12, 7.25), "test 99.12 %    7.2 s"),
        ((0.1, 97.25, None, None, 7.0), "validation 97.25 %    7.0 s"),
    ):
        row = EpochRow(3, 0.01, 0.1, 98.5, *measured)
        assert epoch_line(row) == f"epoch  3  lr 0.01000  train 98.50 %  {shown}"


def test_a_model_that_is_added_runs_and_a_reload_disturbs_nothing():
    """As in a notebook with %autoreload, after MODELS or RECIPES has a new entry."""
    script = """if True:
        import importlib, models
        from study.runs import runs, wanted_runs
        from utils import recipes
        for module in (models, recipes):
            importlib.reload(module)
        models.MODELS[11] = models.replace(models.MODELS[10], squeeze_2=8)
        models.MODELS[12] = models.replace(models.MODELS[11], squeeze_1=8)
        assert models.build(12).config is models.MODELS[12]
        runs(9, 0)
        runs(9, 0, config=models.MODELS[9], recipe=recipes.RECIPES["plateau"])
        run = wanted_runs(12, 3)[0]
        assert (run.name, run.seed, run.config) == ("12", 3, models.MODELS[12])
        assert vars(run.recipe) == vars(recipes.RECIPES["plateau"])
        runs(11, 0, config={"squeeze_2": 10})
    """
    done = python("-c", script, **{name: None for name in os.environ if name[:6] == "MNIST_"})
    assert done.stderr == ""
    first, second, added, third = done.stdout.splitlines()
    confirmed = "9: replayed seed 0; test accuracy of seed 0 re-measured and confirmed"
    assert first == second == confirmed
    assert added == "11 has no recipe of its own: it takes that of 10"
    assert third.startswith("10: replayed seed 0; ")


def test_a_final_counts_when_all_its_seeds_have_run(tmp_path):
    made = of_study("9-final")[0].path
    shutil.copytree(made.parent, tmp_path / "9-final")
    assert list(recorded(folders=[tmp_path])) == ["9-final"]
    (tmp_path / "9-final" / made.name).unlink()
    assert recorded(folders=[tmp_path]) == {}
    assert len(recorded("9-final", [tmp_path])["9-final"]) == 19
