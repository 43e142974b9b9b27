import dataclasses
import json
import os
from dataclasses import replace

import numpy
import pytest

from benchmarks import engines
from models import MODELS
from utils import records, search
from utils.experiments import RECIPES, Recipe
from utils.records import (
    Job,
    RecordError,
    RunInterruptedError,
    find,
    load,
    load_all,
    load_network,
    run_key,
    train,
    verify,
)
from utils.training import ENGINE, EpochRow, NonFiniteLossError

QUICK = Recipe(learning_rate=0.05, batch_size=100, epochs=2)
JOB = Job("4-quick", MODELS[4], QUICK, 0)


@pytest.fixture
def record(small, tmp_path):
    return train(JOB, small, tmp_path)


def edit(record, **fields):
    content = json.loads(record.path.read_text())
    content.update(fields)
    record.path.write_text(json.dumps(content))


def test_a_record_is_found_verified_and_complete(record, small, tmp_path):
    found = find(record.key, [tmp_path])
    assert found == record
    assert "weights verified, test accuracy re-measured" in verify(found, small)
    content = json.loads(record.path.read_text())
    for name in ("config", "recipe", "seed", "history", "confusion", "versions", "engine",
                 "seconds", "weights_sha256", "parameters", "engine_version"):  # fmt: skip
        assert content[name] or name == "seed", name
    assert {"device", "threads", "precision", "layout", "fused"} == set(content["engine"])
    assert sum(map(sum, found.confusion)) == len(small.test)
    assert not list(tmp_path.glob("*.partial.json"))


def test_the_key_names_everything_that_decides_a_run():
    base = run_key(MODELS[4], QUICK, 0, "data")
    assert base == run_key(MODELS[4], QUICK, 0, "data")
    others = [
        run_key(MODELS[5], QUICK, 0, "data"),
        run_key(MODELS[4], replace(QUICK, momentum=0.8), 0, "data"),
        run_key(MODELS[4], QUICK, 1, "data"),
        run_key(MODELS[4], QUICK, 0, "other data"),
    ]
    assert len({base, *others}) == 5


def test_a_run_is_trained_once_and_then_replayed(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_RECORDS", str(tmp_path))
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path))
    live = records.run(4, recipe=QUICK, data=small)
    assert "trained" in capsys.readouterr().out
    monkeypatch.setattr(records, "fit", None)  # training again would fail
    replayed = records.run(4, recipe=QUICK, data=small)
    assert replayed == live
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:2]] == [["epoch", "1"], ["epoch", "2"]]
    assert printed[2].startswith("replayed 4-constant-varied-seed0")


def test_changing_one_number_makes_another_run():
    assert records.job(4).label == "4-constant"
    varied = records.job(4, recipe=replace(RECIPES["constant"], momentum=0.8))
    assert varied.label == "4-constant-varied"
    assert varied.key("data") != records.job(4).key("data")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "null", '{"config": []}'])
def test_damaged_record(record, content):
    record.path.write_text(content)
    with pytest.raises(RecordError, match=f"record .*{record.path.name} is damaged"):
        load(record.path)


@pytest.mark.parametrize(
    "fields", [{"confusion": [[0] * 10] * 10}, {"confusion": [[1]]}, {"label": "best"}]
)
def test_record_with_a_nonsensical_field(record, fields):
    edit(record, **fields)
    with pytest.raises(RecordError, match="is damaged"):
        load(record.path)


def test_edited_record(record):
    edit(record, seed=1)
    with pytest.raises(RecordError, match="its contents have key"):
        load(record.path)


def test_record_with_a_prettier_accuracy(record):
    rows = [dataclasses.asdict(row) for row in record.history]
    rows[-1]["test_accuracy"] = 99.9
    edit(record, history=rows)
    with pytest.raises(RecordError, match="confusion matrix disagrees"):
        load(record.path)


def test_record_with_an_epoch_missing(record):
    edit(record, history=[dataclasses.asdict(record.history[0])])
    with pytest.raises(RecordError, match="it has 1 epochs, its recipe 2"):
        load(record.path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:2_000] + bytes([content[2_000] ^ 1]) + content[2_001:],
    ],
)
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
    other = train(replace(JOB, seed=1), small, tmp_path)
    record.weights_path.write_bytes(other.weights_path.read_bytes())
    with pytest.raises(RecordError, match="not those of the record"):
        verify(record, small)


def test_missing_weights_leave_the_history_replayable(record, small):
    record.weights_path.unlink()
    assert "its weights are not kept" in verify(record, small)
    with pytest.raises(RecordError, match="committed for seed 0"):
        load_network(record)


@pytest.mark.parametrize(("images", "agrees"), [(0, True), (1, False)])
def test_re_measured_accuracy_must_agree(record, small, images, agrees):
    # 3 of 10,000 images is less than one of the 200 here: one changed label must be noticed.
    labels = small.test.labels.clone()
    network = load_network(record)
    right = (
        records.predict(network, small.test.images, record.statistics).argmax(1)
        == small.test.labels
    )
    for index in right.nonzero().squeeze(1)[:images]:
        labels[index] = (labels[index] + 1) % 10
    data = dataclasses.replace(small, test=dataclasses.replace(small.test, labels=labels))
    if agrees:
        verify(record, data)
    else:
        with pytest.raises(RecordError, match="test images right as recorded, but"):
            verify(record, data)


def test_another_engine_version_says_so(record, small):
    edit(record, engine_version=ENGINE + 1)
    assert f"recorded by engine version {ENGINE + 1}" in verify(load(record.path), small)


def test_ctrl_c_keeps_the_history_and_says_how_to_go_on(small, tmp_path):
    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError, match=r"after epoch 1 of 2 .*partial\.json.*again"):
        train(JOB, small, tmp_path, report=interrupt)
    (partial,) = tmp_path.glob("*.partial.json")
    assert len(json.loads(partial.read_text())["history"]) == 1
    assert load_all([tmp_path]) == []
    train(JOB, small, tmp_path)
    assert not partial.exists()


def test_a_diverging_run_keeps_its_history_and_loses_no_record(record, small, tmp_path):
    before = record.path.read_text()
    bad = Job("1-bad", MODELS[1], replace(QUICK, learning_rate=1e30), 0)
    with pytest.raises(NonFiniteLossError, match="1-bad seed 0: loss is not finite at epoch 1"):
        train(bad, small, tmp_path)
    assert record.path.read_text() == before


def test_store_that_cannot_be_written_fails_before_training(small, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setattr(records, "fit", None)
    with pytest.raises(RecordError, match=r"cannot store runs in .*MNIST_RUNS or --store"):
        train(JOB, small, in_the_way / "runs")


def test_an_interrupted_write_leaves_the_old_record(record, tmp_path, monkeypatch):
    before = record.path.read_bytes()
    monkeypatch.setattr(os, "replace", _fail)
    with pytest.raises(OSError, match="power cut"):
        records.write_atomically(record.path, "new")
    assert record.path.read_bytes() == before
    assert not list(tmp_path.glob(".part-*"))


def _fail(*_):
    raise OSError("power cut")


def test_every_committed_record_is_whole_and_of_this_engine(mnist):
    committed = load_all()
    labels = {(record.label, record.seed) for record in committed}
    assert {(records.job(model).label, 0) for model in MODELS} <= labels
    for record in committed:
        if record.seed == 0:
            assert record.weights_path.exists(), record.path
    for folder in (search.FOLDER, engines.FAST, engines.REFERENCE):
        aside = load_all([folder])
        assert aside, folder
        committed += aside
    for record in committed:
        assert record.engine_version == ENGINE, record.path
        assert record.data_checksum == mnist.checksum, record.path
        assert record.parameters == sum(
            p.numel() for p in records.build(record.config).parameters()
        )


@pytest.mark.parametrize("model", [1, 10])
def test_a_committed_record_re_measures(mnist, model):
    record = find(records.job(model).key(mnist.checksum))
    assert "confirmed" in verify(record, mnist)


def test_epoch_line_shows_what_was_measured():
    row = EpochRow(3, 0.01, 0.1, 98.5, None, None, 0.05, 99.12, 7.25)
    assert records.epoch_line(row) == ("epoch  3  lr 0.01000  train 98.50 %  test 99.12 %    7.2 s")
