import errno
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from models import MODELS
from study import store
from study.files import PART, write_atomically
from study.records import RecordError, Run, RunInterruptedError, dumps, loads
from study.store import load, load_all, load_network, train, verify, weights_checksum
from tests.conftest import QUICK, RUN
from utils.device import ENGINE_VERSION, Engine
from utils.training import NonFiniteLossError, predict


def found(run, checksum, folder):
    return load_all([folder]).get(run.key(checksum))


def test_a_record_is_found_verified_and_complete(record, small, tmp_path):
    assert found(RUN, small.checksum, tmp_path) == record
    assert verify(record, small)
    assert loads(dumps(record)) == record
    assert record.run == RUN
    assert record.engine_version == ENGINE_VERSION
    assert record.data_checksum == small.checksum
    assert {"python", "torch", "numpy"} <= set(record.versions)
    assert isinstance(record.engine, Engine)
    assert record.processor
    assert [row.epoch for row in record.history] == [1, 2]
    assert sum(map(sum, record.confusion)) == len(small.test)
    assert sorted(path.name for path in record.path.parent.iterdir()) == [
        "seed-00.json", "seed-00.npz",
    ]  # fmt: skip


def test_a_new_engine_version_finds_no_older_record(record, small, tmp_path, monkeypatch):
    monkeypatch.setattr(Run.key, "__defaults__", (ENGINE_VERSION + 1,))
    monkeypatch.setattr(store, "ENGINE_VERSION", ENGINE_VERSION + 1)
    assert found(RUN, small.checksum, tmp_path) is None
    assert load_all([tmp_path]) == {record.key: record}  # and it is still whole
    newer = train(RUN, small, tmp_path)
    assert found(RUN, small.checksum, tmp_path) == newer != record
    assert load(record.path) == record  # beside it, not instead of it


def test_records_are_found_by_the_key_inside(record, small, tmp_path):
    other = train(replace(RUN, seed=1), small, tmp_path)
    shutil.copy(other.path, record.path)
    record.weights_path.unlink()
    assert found(RUN, small.checksum, tmp_path) is None
    assert found(replace(RUN, seed=1), small.checksum, tmp_path) == other
    assert list(load_all([tmp_path])) == [other.key]
    record.path.rename(record.path.with_name("seed-07.json"))
    assert load(record.path.with_name("seed-07.json")).run.seed == 1


def test_what_is_stored_is_never_replaced(record, small, tmp_path):
    other = train(RUN, replace(small, checksum="0123"), tmp_path)
    assert other.path != record.path
    assert load_all([tmp_path]) == {record.key: record, other.key: other}
    assert found(RUN, "0123", tmp_path) == other
    assert load_network(other)
    assert load_network(record)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b""])
def test_damaged_weights(record, damage):
    record.weights_path.write_bytes(damage(record.weights_path.read_bytes()))
    with pytest.raises(RecordError, match=r"\.npz is damaged"):
        load_network(record)


def test_weights_with_pickled_code_are_refused(record):
    class Code:
        def __reduce__(self):
            return print, ("this must never run",)

    with record.weights_path.open("wb") as file:
        numpy.savez(file, weights=numpy.array([Code()], dtype=object))
    with pytest.raises(RecordError, match="allow_pickle"):
        load_network(record)


def test_other_weights_than_recorded(record, small, tmp_path):
    other = train(replace(RUN, seed=1), small, tmp_path)
    shutil.copy(other.weights_path, record.weights_path)
    with pytest.raises(RecordError, match="not those of the record"):
        verify(record, small)


def test_weights_that_are_no_file_are_not_waited_for(record, small):
    record.weights_path.unlink()
    os.mkfifo(record.weights_path)
    with pytest.raises(RecordError, match="it is no file"):
        verify(record, small)
    record.weights_path.unlink()
    record.weights_path.symlink_to("nowhere")
    with pytest.raises(RecordError, match="it is no file"):
        verify(record, small)


def test_numbers_of_another_type_are_none_of_this_network(record):
    with numpy.load(record.weights_path) as arrays:
        wide = {name: arrays[name].astype(numpy.float64) for name in arrays.files}
    numpy.savez(record.weights_path, **wide)
    digest = weights_checksum({name: torch.from_numpy(array) for name, array in wide.items()})
    with pytest.raises(RecordError, match="its numbers are of another type"):
        load_network(replace(record, weights_sha256=digest))


@pytest.mark.parametrize("method", ["read_text", "read_bytes"])
def test_what_cannot_be_read_is_not_called_damaged(record, method, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, method, refuse)
    store._load.cache_clear()
    with pytest.raises(RecordError, match="cannot be read: Permission denied"):
        load_network(load(record.path))


def test_what_is_no_record_has_no_network(record):
    with pytest.raises(ValueError, match=r"expected a record, .* not \[Rec"):
        load_network([record])


def test_folders_that_cannot_be_looked_into_are_named(record, tmp_path, monkeypatch):
    with pytest.raises(RecordError, match=r"typo cannot be looked into \(No such file"):
        load_all([tmp_path / "typo"])
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path / "none yet"))
    assert load_all([tmp_path / "none yet"]) == {}
    with pytest.raises(RecordError, match=r"json cannot be looked into \(Not a directory"):
        load_all([record.path])


def test_missing_weights_leave_the_history_replayable(record, small):
    record.weights_path.unlink()
    assert not verify(record, small)
    with pytest.raises(RecordError, match="kept for seed 0"):
        load_network(record)


@pytest.mark.parametrize(("images", "agrees"), [(0, True), (1, False)])
def test_re_measured_accuracy_must_agree(record, small, images, agrees):
    # 3 of 10,000 images is less than one of the 200 here: one changed label must be noticed.
    labels = small.test.labels.clone()
    guesses = predict(load_network(record), small.test.images, record.statistics).argmax(1)
    for index in (guesses == labels).nonzero().squeeze(1)[:images]:
        labels[index] = (labels[index] + 1) % 10
    data = replace(small, test=replace(small.test, labels=labels))
    if agrees:
        assert verify(record, data)
    else:
        with pytest.raises(RecordError, match="test images right as recorded, but"):
            verify(record, data)


def test_ctrl_c_says_how_to_go_on_and_stores_nothing(small, tmp_path):
    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError, match=r"4-quick seed 0 after epoch 1 of 2; .*again"):
        train(RUN, small, tmp_path, report=interrupt)
    assert not load_all([tmp_path])
    assert not list(tmp_path.rglob("*"))


def test_a_diverging_run_stores_nothing(small, tmp_path):
    bad = Run("1-bad", MODELS[1], replace(QUICK, learning_rate=1e30))
    with pytest.raises(NonFiniteLossError, match="loss is not finite at epoch 1"):
        train(bad, small, tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_store_that_cannot_be_written_fails_before_training(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(store, "fit", None)
    with pytest.raises(RecordError, match=r"cannot store runs in .*MNIST_RUNS or --store"):
        train(RUN, small, tmp_path / "file" / "runs")


def test_a_full_disk_after_training_is_one_line(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        RecordError, match=r"cannot be stored \(No space left on device\); make room"
    ):
        train(RUN, small, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_that_is_full_until_the_file_is_closed_leaves_no_part(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(tmp_path / "file", "in a buffer, which closing would write, too")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_parts_of_dead_processes_are_removed_and_no_others(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "4").mkdir()
    owners = (f"{PART}{ended.pid}-x", f"4/{PART}{ended.pid}-y", f"{PART}{os.getpid()}-x",
              f".part-elsewhere-{ended.pid}-x")  # fmt: skip
    for name in owners:
        (tmp_path / name).touch()
    store.check_writable(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"4", *owners[2:]}
    assert not list((tmp_path / "4").iterdir())


def test_a_record_that_is_no_file(record):
    record.path.unlink()
    record.path.mkdir()
    with pytest.raises(RecordError, match="is no file; remove it"):
        load(record.path)
    record.path.rmdir()
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        load(record.path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_file_is_closed_before_it_replaces_another(record, monkeypatch):
    """Windows replaces no open file."""
    replace_, opened = os.replace, []

    def watched(source, target):
        links = (link for link in Path("/proc/self/fd").iterdir() if link.exists())
        opened.extend(link for link in links if link.resolve() == Path(source).resolve())
        replace_(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_atomically(record.path, "new")
    assert record.path.read_text() == "new"
    assert not opened


def test_an_interrupted_write_leaves_the_old_record(record, monkeypatch):
    def fail(*_):
        raise OSError("power cut")

    before = record.path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="power cut"):
        write_atomically(record.path, "new")
    assert record.path.read_bytes() == before
    assert not list(record.path.parent.glob(".part-*"))
