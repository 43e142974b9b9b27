import contextlib
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import psutil
import pytest
from distributed import Client, LocalCluster

from models import MODELS
from study import sweep as sweep_module
from study.commands import status
from study.records import Run
from study.store import load_all, load_network, train
from study.sweep import ClusterError, main
from study.sweep import sweep as run_sweep
from tests.conftest import QUICK, python
from utils.data import ROOT

# Ctrl-C works, also where a shell has it ignored.
HEARD = partial(signal.signal, signal.SIGINT, signal.default_int_handler)


NO_WORKER = "no worker is left: start some, and the sweep goes on"


def command(root, store, *options, before=HEARD):
    sweeping = [sys.executable, "-m", "study.sweep", "--store", str(store), *options]
    own = {"cwd": ROOT, "env": os.environ | {"MNIST_ROOT": str(root)}, "start_new_session": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(sweeping, preexec_fn=before, **own, **pipes)


def complaints(errors: str) -> list[str]:
    """The lines on stderr but for the notice that the small data set is not MNIST."""
    return [line for line in errors.splitlines() if not line.startswith("NOTICE")]


def wait_for(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return []


def stored(folder) -> list:
    return list(folder.rglob("seed-*.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "11"], "unknown experiment '11'; nearest are 1"),
        (["--models", ""], "unknown experiment ''"),
        (["--seeds", str(2**63)], "seed: "),
        (["--jobs", "0"], "--jobs must be 1 to 1000, not 0"),
    ],
)
def test_a_wrong_argument_is_one_line(options, message, capsys):
    assert main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("root", "store", "message"),
    [
        (None, "damaged", "is damaged"),
        (None, "file/runs", "cannot store "),
        (None, "blocked", "blocked/models/4 (Not a directory); make room"),
        ("nowhere", "runs", "no MNIST files in "),
    ],
)
def test_what_a_sweep_cannot_use_is_one_line(
    small_root, tmp_path, monkeypatch, capsys, root, store, message
):
    record = tmp_path / "damaged" / "4" / "seed-00.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    (tmp_path / "blocked" / "models").mkdir(parents=True)
    for name in ("file", "blocked/models/4"):  # where a folder would be
        (tmp_path / name).write_text("")
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / root if root else small_root))
    assert status(lambda: main(["--models", "4", "6", "--store", str(tmp_path / store)])) == 1
    (line,) = complaints(capsys.readouterr().err)
    assert message in line
    assert record.read_text() == "{"


def test_why_no_worker_can_start_is_one_line(small_root, tmp_path):
    path = tmp_path / "unguarded.py"
    path.write_text(f"""
from pathlib import Path
from study.runs import wanted_runs
from study.sweep import sweep
sweep(wanted_runs(4, 0), Path({str(tmp_path / "store")!r}))
""")
    done = python(str(path), MNIST_ROOT=small_root, PYTHONPATH=ROOT)
    assert f"every worker would run {path} itself: call sweep() there under" in done.stderr
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (24, 24))
    process = command(small_root, tmp_path, "--models", "4", before=few)
    (line,) = complaints(process.communicate(timeout=120)[1])
    assert line.startswith("no workers can be started here ([Errno 24] Too many open files); they")


@pytest.mark.parametrize("runs", [1, 3])
def test_there_are_never_more_workers_than_runs(small_root, tmp_path, monkeypatch, runs):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    connected = Mock(side_effect=ClusterError)
    monkeypatch.setattr(sweep_module, "connected", connected)
    with pytest.raises(ClusterError):
        run_sweep([Run("4-quick", MODELS[4], QUICK, seed) for seed in range(runs)], tmp_path, 2)
    connected.assert_called_once_with(None, min(runs, 2))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and one worker of two threads, which cannot read MNIST themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_ROOT", str(tmp_path_factory.mktemp("empty")))
        options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
        options["scheduler_kwargs"] = {"dashboard_address": "127.0.0.1:0"}  # never taken already
        with LocalCluster(**options) as cluster:
            yield cluster


def test_a_cluster_fails_run_by_run_and_gives_the_bits_of_one_process(
    small, small_root, cluster, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    good = [Run("5-quick", MODELS[5], QUICK, seed) for seed in range(3)]
    bad = [
        Run("1-diverging", MODELS[1], replace(QUICK, learning_rate=1e30)),
        Run("1-large", MODELS[1], replace(QUICK, batch_size=601)),
    ]
    options = {"folder": tmp_path, "address": cluster.scheduler_address}
    failures = run_sweep([*bad, *good, good[0]], **options)
    texts = [
        "1-diverging seed 0: loss is not finite at epoch 1",
        "1-large seed 0: batch_size is 601 but there are 600 training images",
    ]
    assert len(failures) == len(texts)
    assert all(map(str.startswith, sorted(failures), texts))
    output, errors = (text.splitlines() for text in capsys.readouterr())
    assert output[0] == f"0 of 5 runs are already in {tmp_path}"
    outcomes = sorted(output[1:] + complaints("\n".join(errors)))
    assert [line[:15] for line in outcomes] == [f"{n:4d} of 5 runs:" for n in range(1, 6)]
    assert sum("FAILED" in line for line in errors) == 2
    assert sum("is trained" in line for line in output) == 3

    found = load_all([tmp_path])
    assert [record.run for record in found.values()] == good
    alone = [train(run, small, tmp_path / "alone") for run in good]
    remote = list(found.values())
    assert [record.weights_sha256 for record in remote] == [r.weights_sha256 for r in alone]
    assert all(load_network(record) for record in remote)

    assert run_sweep(good, **options) == []
    assert capsys.readouterr().out.splitlines() == [f"3 of 3 runs are already in {tmp_path}"]


def test_a_cluster_that_cannot_be_used_is_one_line(small_root, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(small_root))
    run = Run("4-quick", MODELS[4], QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "PATIENCE", 1)
        for address in ("tcp://127.0.0.1:9", "nonsense://", "tcp://", ""):
            with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {address} "):
                run_sweep([run], tmp_path, address=address)
    address = cluster.scheduler_address
    monkeypatch.setattr(sweep_module, "ENGINE_VERSION", 99)
    with pytest.raises(ClusterError, match=r"runs engine version \d+, this is version 99"):
        run_sweep([run], tmp_path, address=address)
    monkeypatch.setattr(sweep_module, "_engine_version", math.sqrt)  # needs an argument
    with pytest.raises(ClusterError, match="no worker that can run this project's code"):
        run_sweep([run], tmp_path, address=address)


def test_a_killed_cluster_worker_costs_only_what_it_was_at(small_root, cluster, tmp_path):
    """One worker of two threads: both runs at work are repeated, the finished one is not."""
    cluster.scheduler.transition_log.clear()
    with Client(cluster) as client:
        (pid,) = client.run(os.getpid).values()
    options = ("--models", "8", "--seeds", "0", "1", "2", "--address", cluster.scheduler_address)
    process = command(small_root, tmp_path, *options)
    wait_for(lambda: stored(tmp_path), process)
    psutil.Process(pid).suspend()  # so that what is counted is what is there when it dies
    time.sleep(1)
    finished = len(stored(tmp_path))
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert sorted(record.run.seed for record in load_all([tmp_path]).values()) == [0, 1, 2]
    log = [entry for entry in cluster.scheduler.transition_log if "_train_on_worker" in entry.key]
    ended = Counter(entry.key for entry in log if entry.finish == "memory")
    started = Counter(entry.key for entry in log if entry.finish == "processing")
    assert sorted(ended.values()) == [1, 1, 1]
    assert sorted(started.values()) == [1] * finished + [2] * (3 - finished)
    assert finished < 3
    assert set(complaints(errors)) <= {NO_WORKER}  # where another one takes long to start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["workers start", "a run has finished"])
def test_an_interrupted_sweep_is_one_line_and_leaves_no_worker(
    number, moment, small_root, tmp_path
):
    process = command(small_root, tmp_path, "--models", "8", "--seeds", *"01234567", "--jobs", "2")
    early = moment == "workers start"
    wait_for(lambda: workers_of(process) if early else stored(tmp_path), process)
    workers = workers_of(process)
    if number == signal.SIGTERM:
        process.send_signal(number)
    for _ in range(0 if number == signal.SIGTERM else 2):  # by a terminal; twice is impatience
        os.killpg(process.pid, number)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert complaints(errors) == [
        f"interrupted; finished runs are in {tmp_path}, and the same command goes on from there"
    ]
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert bool(load_all([tmp_path])) != early
    assert not list(tmp_path.rglob(".part-*"))


def test_a_killed_sweep_leaves_no_worker_and_goes_on(small_root, tmp_path):
    options = ("--models", "8", "6", "--seeds", "0", "1", "--jobs", "2")
    first = command(small_root, tmp_path, *options)
    wait_for(lambda: stored(tmp_path) and len(workers_of(first)) == 2, first)
    workers = workers_of(first)
    first.kill()
    first.communicate(timeout=120)
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive
    before = {record.key: record for record in load_all([tmp_path]).values()}

    last = command(small_root, tmp_path, *options)
    wait_for(lambda: len(stored(tmp_path)) > len(before), last)
    workers_of(last)[0].kill()
    output, errors = last.communicate(timeout=600)
    assert last.returncode == 0, errors
    assert not complaints(errors)
    left = 4 - len(before)
    assert output.splitlines()[0] == f"{len(before)} of 4 runs are already in {tmp_path}"
    assert [line[:15] for line in output.splitlines()[1:]] == [
        f"{n:4d} of {left} runs:" for n in range(1, left + 1)
    ]  # a line per finished run
    after = load_all([tmp_path])
    assert len(after) == 4
    assert before.items() <= after.items()


def test_that_no_worker_is_left_is_said_once(monkeypatch, capsys):
    client = Mock()
    client.nthreads.side_effect = [{"tcp://a": 1}, {}, {}, {"tcp://b": 1}, {}, OSError("closed")]
    monkeypatch.setattr(sweep_module, "PATIENCE", 0.01)
    sweep_module._watch(client, threading.Event())
    assert capsys.readouterr().err.splitlines() == [NO_WORKER, NO_WORKER]
