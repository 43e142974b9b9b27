import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from models import MODELS
from utils.data import ROOT
from utils.experiments import Recipe
from utils.records import Job, load_all
from utils.sweep import main, parse_experiments, parse_seeds, sweep


def command(small_root, store, *options):
    environment = {**os.environ, "MNIST_ROOT": str(small_root), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "utils.sweep", "--store", str(store), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ranges_and_lists():
    assert parse_experiments("1-3,10") == ["1", "2", "3", "10"]
    assert parse_experiments("9-final,10") == ["9-final", "10"]
    assert parse_seeds("0-2,7") == [0, 1, 2, 7]


def test_a_sweep_is_interrupted_and_goes_on_where_it_stopped(small_root, tmp_path):
    first = command(small_root, tmp_path, "--models", "8,6,4", "--seeds", "0-1", "--jobs", "2")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*seed?-????????????????.json")):
        assert time.monotonic() < deadline, first.stderr.read()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "the same command goes on from there" in errors
    done = {path.name: path.read_text() for path in tmp_path.glob("*seed?-????????????????.json")}
    assert 1 <= len(done) < 6

    second = command(small_root, tmp_path, "--models", "8,6,4", "--seeds", "0-1", "--jobs", "2")
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    finished = int(output.split()[0])
    assert finished >= len(done)
    assert f"{finished} of 6 runs are already in" in output
    epoch_lines = [line for line in output.splitlines() if " epoch " in line]
    assert len(epoch_lines) == 15 * (6 - finished)
    assert f"overall: {6 - finished} of {6 - finished} runs" in output
    assert len(load_all([tmp_path])) == 6
    for name, content in done.items():
        assert (tmp_path / name).read_text() == content
    assert not list(tmp_path.glob("*.partial.json"))


def complaints(errors: str) -> list[str]:
    """The lines on stderr but for the notice that the small data set is not MNIST."""
    return [line for line in errors.strip().splitlines() if not line.startswith("NOTICE")]


def test_a_damaged_record_is_one_line_and_is_kept(small_root, tmp_path):
    first = command(small_root, tmp_path, "--models", "4", "--jobs", "1")
    assert first.communicate(timeout=120)
    assert first.returncode == 0
    (record,) = tmp_path.glob("*.json")
    record.write_text("{")
    broken = command(small_root, tmp_path, "--models", "4,6", "--jobs", "1")
    _, errors = broken.communicate(timeout=120)
    assert broken.returncode == 1
    (line,) = complaints(errors)
    assert "is damaged" in line
    assert record.read_text() == "{"


def test_one_diverging_run_leaves_the_others_standing(small_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    quick = Recipe(learning_rate=0.05, epochs=2)
    bad = replace(quick, learning_rate=1e30)
    jobs = [Job("1-bad", MODELS[1], bad, 0), Job("4-good", MODELS[4], quick, 0)]
    (failure,) = sweep(jobs, tmp_path, workers=2)
    assert failure.startswith("1-bad seed 0: loss is not finite at epoch 1")
    assert [record.label for record in load_all([tmp_path])] == ["4-good"]
    assert "overall: 2 of 2 runs, 4 of 4 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "11"], "unknown experiment '11'; the experiments are 1, 2"),
        (["--models", "nine"], "unknown experiment 'nine'"),
        (["--models", "3-1"], "ranges run upwards, such as 1-3, not 3-1"),
        (["--seeds", "2-0"], "ranges run upwards"),
        (["--seeds", "x"], "seeds are whole numbers"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
    ],
)
def test_bad_arguments(options, message, capsys):
    assert main(options) == 2
    assert message in capsys.readouterr().err


def test_store_that_cannot_be_written(small_root, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    process = command(small_root, blocked / "runs", "--models", "4", "--jobs", "1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = complaints(errors)
    assert line.startswith("cannot store runs in ")


def test_missing_data_is_one_line(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    process = command(tmp_path, tmp_path / "runs", "--models", "4")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(errors.strip().splitlines()) == 1
