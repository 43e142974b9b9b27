import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from distributed import Client, LocalCluster

from models import MODELS
from tests.conftest import subset, write_idx
from utils.data import ROOT
from utils.experiments import Recipe
from utils.records import Job, load_all
from utils.sweep import main, parse_experiments, parse_seeds, sweep
from utils.workers import ClusterError


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
    assert f"has ended: {6 - finished} of {6 - finished} runs" in output
    assert all("min left" in line for line in epoch_lines)
    assert "4-constant               final test accuracy" in output
    assert "(n = 2)" in output
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
    output = capsys.readouterr().out
    assert "4/4 epochs,   0.0 min left" in output
    assert "has ended: 2 of 2 runs" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "11"], "unknown experiment '11'; the experiments are 1, 2"),
        (["--models", "nine"], "unknown experiment 'nine'"),
        (["--models", "3-1"], "ranges run upwards, such as 1-3, not 3-1"),
        (["--seeds", "2-0"], "ranges run upwards"),
        (["--seeds", "x"], "seeds are whole numbers"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--backend", "dask"], "go together"),
        (["--address", "tcp://127.0.0.1:1"], "go together"),
        (["--backend", "dask", "--address", "x", "--jobs", "2"], "--jobs is for this machine"),
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


@pytest.fixture(scope="module")
def longer_root(mnist, tmp_path_factory):
    """Enough images that a run lasts long enough to be killed in the middle."""
    root = tmp_path_factory.mktemp("longer-mnist")
    write_idx(root / "MNIST" / "raw", subset(mnist, 3_000, 200))
    return root


def epochs_by_run(lines: list[str]) -> dict[str, list[int]]:
    """{"8-rotation seed 0": [1, 2, ...]} as printed."""
    found: dict[str, list[int]] = {}
    for line in lines:
        if match := re.search(r"left  (\S+ seed \d+) +epoch +(\d+) ", line):
            found.setdefault(match[1], []).append(int(match[2]))
    return found


def finish_after_a_kill(process, kill) -> dict[str, list[int]]:
    """Kill a worker when two runs are at epoch 4; the printed epochs, if the sweep ends well."""
    lines: list[str] = []
    while sum(4 in epochs for epochs in epochs_by_run(lines).values()) < 2:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    kill()
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return epochs_by_run(lines + rest.splitlines())


def assert_one_run_was_repeated(epochs: dict[str, list[int]], runs: int):
    again = [run for run, seen in epochs.items() if seen != list(range(1, 16))]
    assert len(epochs) == runs
    assert len(again) == 1, epochs
    assert epochs[again[0]][-15:] == list(range(1, 16))
    assert epochs[again[0]].count(1) == 2


def test_a_killed_process_costs_only_its_run(longer_root, tmp_path):
    process = command(longer_root, tmp_path, "--models", "8", "--seeds", "0-2", "--jobs", "2")

    def kill():
        children = psutil.Process(process.pid).children()
        workers = [child for child in children if "LokyProcess" in " ".join(child.cmdline())]
        assert len(workers) == 2
        workers[0].kill()

    assert_one_run_was_repeated(finish_after_a_kill(process, kill), runs=3)
    assert len(load_all([tmp_path])) == 3


def test_a_dask_cluster_of_two_processes_one_of_them_killed(longer_root, tmp_path, monkeypatch):
    """The workers cannot read MNIST themselves: the images must come from the sweep."""
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    records = tmp_path / "records"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            pids = list(client.run(os.getpid).values())
        address = ["--backend", "dask", "--address", cluster.scheduler_address]
        process = command(longer_root, records, "--models", "8", "--seeds", "0-2", *address)
        epochs = finish_after_a_kill(process, lambda: os.kill(pids[0], signal.SIGKILL))
        assert_one_run_was_repeated(epochs, runs=3)

        here = command(longer_root, tmp_path / "here", "--models", "8")
        here.communicate(timeout=120)
        (local,) = load_all([tmp_path / "here"])
        remote = load_all([records])
        assert [record.seed for record in remote] == [0, 1, 2]
        assert remote[0].weights_sha256 == local.weights_sha256
        assert all(record.weights_path.exists() for record in remote)

        again = command(longer_root, records, "--models", "8", "--seeds", "0-2", *address)
        output, _ = again.communicate(timeout=120)
        assert "3 of 3 runs are already in" in output


def test_a_diverging_run_on_a_cluster_is_one_line(small_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    bad = Job("1-bad", MODELS[1], Recipe(learning_rate=1e30, epochs=2), 0)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        (failure,) = sweep([bad], tmp_path, address=cluster.scheduler_address)
    assert failure.startswith("1-bad seed 0: loss is not finite at epoch 1")


def test_a_cluster_that_cannot_be_used_is_one_line(small_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    job = Job("4-constant", MODELS[4], Recipe(epochs=1), 0)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 "):
        sweep([job], tmp_path, address="tcp://127.0.0.1:9")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setattr("utils.workers.ENGINE", 99)
        with pytest.raises(ClusterError, match=r"runs engine version \d+, this is version 99"):
            sweep([job], tmp_path, address=cluster.scheduler_address)
        monkeypatch.setattr("utils.workers._engine_version", math.sqrt)  # needs an argument
        with pytest.raises(ClusterError, match="cannot run this project's code"):
            sweep([job], tmp_path, address=cluster.scheduler_address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match="pip install distributed"):
        sweep([job], tmp_path, address="tcp://127.0.0.1:9")
