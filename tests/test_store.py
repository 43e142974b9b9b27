import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import numpy
import pytest

from models import MODELS
from study import store
from study.records import Run
from study.store import RecordError, load, load_all, load_network, train, verify, write_atomically
from tests.conftest import QUICK, RUN
from utils.device import ENGINE_VERSION, Engine
from utils.training import NonFiniteLossError, predict


def found(run, checksum, folder):
    return load_all([folder]).get(run.key(checksum))


def test_a_record_is_found_verified_and_complete(record, small, tmp_path):
    assert found(RUN, small.checksum, tmp_path) == record
    assert record.run == RUN
    assert record.engine_version == ENGINE_VERSION
    assert record.data_checksum == small.checksum
    assert {"python", "torch", "numpy"} <= set(record.versions)
    assert isinstance(record.engine, Engine)
    assert record.processor
    assert [row.epoch for row in record.history] == [1, 2]
    assert sum(map(sum, record.confusion)) == len(small.test)
    names = [path.name for path in sorted(record.path.parent.iterdir())]
    assert names == ["seed-00.json", "seed-00.npz"]


def test_what_is_stored_is_never_replaced(make_record, tmp_path):
    record = make_record()
    others = [make_record(data_checksum="0123"), make_record(engine_version=ENGINE_VERSION + 1)]
    assert load_all([tmp_path]) == {each.key: each for each in (record, *others)}
    assert found(RUN, "0123", tmp_path) == others[0]
    assert found(RUN, "da7a", tmp_path) == record  # of this engine, not of a newer one
    assert all(map(load_network, (record, *others)))


def test_records_are_found_by_the_key_inside(make_record, tmp_path):
    record, other = make_record(), make_record(replace(RUN, seed=1))
    shutil.copy(other.path, record.path)
    record.weights_path.unlink()
    assert found(RUN, "da7a", tmp_path) is None
    assert found(other.run, "da7a", tmp_path) == other
    assert list(load_all([tmp_path])) == [other.key]
    moved = record.path.rename(record.path.with_name("seed-07.json"))
    assert load(moved).run.seed == 1


def test_weights_with_pickled_code_are_refused(record):
    class Code:
        def __reduce__(self):
            return print, ("this must never run",)

    with record.weights_path.open("wb") as file:
        numpy.savez(file, weights=numpy.array([Code()], dtype=object))
    with pytest.raises(RecordError, match="allow_pickle"):
        load_network(record)


def test_other_weights_than_recorded(make_record):
    record, other = make_record(), make_record(replace(RUN, seed=1))
    shutil.copy(other.weights_path, record.weights_path)
    with pytest.raises(RecordError, match="not those of the record"):
        load_network(record)


def test_what_cannot_be_read_is_not_called_damaged(record, small):
    with pytest.raises(ValueError, match=r"expected a record, .* not \[<"):
        load_network([record])
    record.weights_path.unlink()
    assert not verify(record, small)  # the history alone can be replayed
    with pytest.raises(RecordError, match="kept for seed 0"):
        load_network(record)
    record.weights_path.mkdir()
    with pytest.raises(RecordError, match=r"npz cannot be read: Is a directory"):
        load_network(record)
    record.path.unlink()
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        load(record.path)


def test_a_folder_that_is_not_there_is_named(record, tmp_path, monkeypatch):
    for place in (tmp_path / "typo", record.path):
        with pytest.raises(RecordError, match=f"{place} is not there, or no folder"):
            load_all([place])
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path / "none yet"))
    assert load_all([tmp_path / "none yet"]) == {}


def test_re_measured_accuracy_must_agree(record, small):
    # 3 of 10,000 images is less than one of the 200 here: one changed label must be noticed.
    assert verify(record, small)
    labels = small.test.labels.clone()
    guesses = predict(load_network(record), small.test.images, record.statistics).argmax(1)
    index = int((guesses == labels).nonzero()[0])
    labels[index] = (labels[index] + 1) % 10
    with pytest.raises(RecordError, match="test images are classified correctly as recorded"):
        verify(record, replace(small, test=replace(small.test, labels=labels)))


def interrupt(*_):
    raise SystemError from KeyboardInterrupt()  # as compiled code passes an interrupt on


def test_a_run_that_does_not_end_says_so_and_stores_nothing(small, tmp_path, monkeypatch):
    with pytest.raises(store.RunInterruptedError, match="interrupted 4-quick seed 0; finished"):
        train(RUN, small, tmp_path, report=interrupt)
    bad = Run("1-bad", MODELS[1], replace(QUICK, learning_rate=1e30))
    with pytest.raises(NonFiniteLossError, match="loss is not finite at epoch 1"):
        train(bad, small, tmp_path)
    assert not list(tmp_path.rglob("*"))
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(store, "fit", None)  # it fails before training
    with pytest.raises(RecordError, match=r"cannot store .*MNIST_RUNS or --store"):
        train(RUN, small, tmp_path / "file" / "runs")


def test_a_full_disk_after_training_is_one_line(make_record, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=full))
    with pytest.raises(RecordError, match=r"cannot store .*\(No space left on device\); make room"):
        make_record()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(SystemError):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_threads_that_store_at_once_lose_and_mix_nothing(make_record, tmp_path):
    """Different runs of one name, as of two data sets: one place, two weights."""
    with ThreadPoolExecutor(2) as pool:
        for seed in range(60):
            run = replace(RUN, seed=seed)
            made = list(pool.map(lambda c, r=run: make_record(r, data_checksum=c), ("aa", "bb")))
            stored = [found(run, checksum, tmp_path) for checksum in ("aa", "bb")]
            assert stored == made
            assert all(map(load_network, stored))


def test_a_run_that_was_stored_meanwhile_is_left_alone(make_record, tmp_path):
    first = make_record()
    part = first.path.with_name(".part-of-a-killed-process")
    part.touch()
    assert make_record(seconds=2.0) == first
    assert load_network(first)
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert part.exists()
    make_record(replace(RUN, seed=1))
    assert not part.exists()


def test_a_record_with_other_line_endings_is_damaged(record):
    record.path.write_bytes(record.path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(RecordError, match="changed after it was sealed"):
        load(record.path)
