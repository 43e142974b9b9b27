import gzip
import random
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import MODELS
from study import store
from study.records import RecordError, loads
from study.store import load, load_network
from tests.conftest import QUICK, RUN, forge, seal, unseal
from utils import data
from utils.data import DataError, load_mnist
from utils.device import ENGINE_VERSION


def assert_refused(path, message=None):
    """One line, of the one kind, that names the file and the remedy."""
    with pytest.raises(RecordError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "is damaged" in str(caught.value)
    assert "or delete the run's .json and .npz to train it again" in str(caught.value)


def test_the_key_names_everything_that_decides_a_run():
    runs = [
        RUN,
        replace(RUN, config=MODELS[5]),
        replace(RUN, recipe=replace(QUICK, momentum=0.8)),
        replace(RUN, seed=1),
        replace(RUN, measure_test=False),
        replace(RUN, reference=True),
    ]
    keys = {run.key("da7a") for run in runs}
    assert len(keys | {RUN.key("0000"), RUN.key("da7a", ENGINE_VERSION + 1)}) == 8
    assert replace(RUN, name="5").key("da7a") == RUN.key("da7a")


def test_a_key_treats_15_and_15_0_alike():
    whole, broken = (
        replace(RUN, recipe=replace(QUICK, rotations=angles)) for angles in ((6.9, 15), [6.9, 15.0])
    )
    assert whole.key("da7a") == broken.key("da7a") != RUN.key("da7a")
    assert whole == broken


def flips(path, places, read, same):
    """Flip a byte at each place in turn; (unnoticed and changed, found in one line)."""
    whole, silent, messages = path.read_bytes(), 0, []
    draw = random.Random(0)
    for place in places:
        flipped = bytes([whole[place] ^ draw.randrange(1, 256)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        try:
            silent += not same(read())
        except (RecordError, DataError) as error:
            messages.append(str(error))
    path.write_bytes(whole)
    assert not any("\n" in message for message in messages)
    return silent, len(messages)


def anywhere(number, stop, start=0):
    draw = random.Random(1)
    return [draw.randrange(start, stop) for _ in range(number)]


def test_every_changed_byte_of_a_record_is_found(record):
    def read():
        store._load.cache_clear()  # one tick of the file system's clock may see several flips
        return load(record.path)

    places = anywhere(500, record.path.stat().st_size)
    silent, found = flips(record.path, places, read, lambda read: read == record)
    assert silent == 0
    assert found >= 490  # a line feed may become a carriage return


def test_every_changed_byte_of_the_weights_is_found(record):
    state = load_network(record).state_dict()

    def same(network):
        return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())

    size = record.weights_path.stat().st_size
    places = anywhere(150, size) + anywhere(150, size, size - 1_500)  # the archive's directory
    silent, found = flips(record.weights_path, places, lambda: load_network(record), same)
    assert silent == 0
    assert found >= 150  # in the directory, some mean nothing


@pytest.mark.parametrize("packed", [False, True])
def test_every_changed_byte_of_the_data_is_found(small_root, tmp_path, packed):
    shutil.copytree(small_root, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "MNIST" / "raw"
    for path in list(raw.iterdir()) if packed else ():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    whole = load_mnist(tmp_path)

    def read():
        data._load.cache_clear()
        return load_mnist(tmp_path)

    def same(read):  # or else known by another checksum, so that no record of these is found
        tensors = [(read.train, whole.train), (read.test, whole.test)]
        equal = [torch.equal(a.images, b.images) for a, b in tensors]
        equal += [torch.equal(a.labels, b.labels) for a, b in tensors]
        return read.checksum != whole.checksum or all(equal)

    total = 0
    for path in sorted(raw.iterdir()):
        places = [*anywhere(20, path.stat().st_size), *range(0, 16, 2)]
        silent, found = flips(path, places, read, same)
        assert silent == 0
        total += found
    assert total >= 16  # 4 of each head; bytes in a gzip header may mean nothing


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "null", "\0"])
@pytest.mark.parametrize("again", [False, True])
def test_no_record_at_all(record, content, again):
    record.path.write_text(seal(content) if again else content)
    assert_refused(record.path, None if again else "changed after it was sealed")


def history(epoch, **fields):
    return lambda content: content["history"][epoch].update(fields)


def put(**fields):
    return lambda content: content.update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(parameters=7_999), "its network has another size"),
        (put(parameters="8714"), "valid integer"),
        (history(0, test_accuracy=100.5), "less than or equal to 100"),
        (history(0, test_accuracy=float("nan")), "finite"),
        (history(0, test_accuracy=None), "its test figures"),
        (history(0, test_accuracy="99.5"), "valid number"),
        (history(1, test_accuracy=99.5), "confusion matrix disagrees"),
        (history(1, test_accuracy=None), "its test figures"),
        (history(1, test_accuracy=float("nan")), "finite"),
        (history(0, train_loss=float("inf")), "finite"),
        (history(0, learning_rate=0.1), "its learning rates are not"),
        (history(0, validation_loss=0.1, validation_accuracy=99.0), "its validation figures"),
        (history(0, surplus=1), "surplus: unexpected"),
        (lambda content: content["history"].reverse(), "its epochs are not 1 to 2"),
        (lambda content: content["history"].pop(), "its epochs are not 1 to 2"),
        (lambda content: content["history"].clear(), "its epochs are not 1 to 2"),
        (put(engine_version=ENGINE_VERSION + 1), "another key"),
        (put(engine_version="x"), "engine_version"),
        (put(data_checksum="0"), "another key"),
        (put(confusion=None), "its confusion matrix"),
        (put(confusion=[[1]]), "confusion matrix disagrees"),
        (put(confusion=[[0] * 10] * 10), "confusion matrix disagrees"),
        (put(confusion=[[-1] * 10] * 10), "greater than or equal to 0"),
        (put(surplus=1), "surplus: unexpected"),
        (put(weights_sha256="x"), "weights_sha256"),
        (put(path="/elsewhere"), "not its to say"),
        (put(statistics=[0.1]), "statistics"),
        (put(versions=None), "versions"),
        (put(key="0123456789abcdef"), "another key"),
        (lambda content: content.pop("processor"), "processor"),
        (lambda content: content["run"].update(name="be st"), "run.name"),
        (lambda content: content["run"].update(name="9/../9"), "run.name"),
        (lambda content: content["run"].update(seed=1), "another key"),
        (lambda content: content["run"].update(measure_test=False), "another key"),
        (lambda content: content["run"].update(surplus=1), "surplus: unexpected"),
        (lambda content: content["run"]["recipe"].update(epochs=1), "another key"),
        (lambda content: content["run"]["recipe"].update(surplus=1), "surplus: unexpected"),
        (lambda content: content["run"]["config"].update(surplus=1), "surplus: unexpected"),
        (lambda content: content["run"]["config"].update(dropout=0.5), "another key"),
        (lambda content: content["engine"].update(surplus=1), "surplus: unexpected"),
    ],
)
def test_a_forged_and_resealed_record_is_one_line(record, change, message):
    record.path.write_text(forge(record.path.read_text(), change))
    assert_refused(record.path, message)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["run"].update(measure_test=False),
        lambda content: content["run"]["config"].update(edges=[10, 13]),
        lambda content: content["run"]["config"].update(edges=[10, 10**30]),
        lambda content: content["run"]["recipe"].update(learning_rate=0.06),
        lambda content: content["run"]["recipe"].update(validation=True),
        lambda content: content["run"]["recipe"].update(epochs=3),
        lambda content: content["run"]["recipe"].update(epochs=10**30),
    ],
)
def test_a_forger_who_computes_the_key_must_make_all_parts_agree(record, change):
    record.path.write_text(forge(record.path.read_text(), change, key=True))
    assert_refused(record.path)


ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=300, database=None, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_in_a_record_changes_nothing_unnoticed(trained, data):
    """Forged and sealed again: refused in one line, or what it says agrees with itself."""
    text = trained.path.read_text()
    value = data.draw(ANY)

    def change(content: dict) -> None:
        while True:
            keys = list(content) if isinstance(content, dict) else range(len(content))
            key = data.draw(st.sampled_from(keys))
            inner = content[key]
            if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
                content = inner
            else:
                content[key] = value
                return

    try:
        found = loads(forge(text, change))
    except ValueError as error:
        refused = str(error)
        assert len(refused.splitlines()) == 1
    else:
        assert found.key == trained.key
        assert found.test_accuracy[-1] == trained.test_accuracy[-1]


@pytest.mark.parametrize(
    ("field", "twice"),
    [
        ('"seconds":', '"seconds": 0, "seconds":'),
        ('"epoch": 1,', '"epoch": 1, "epoch": 1,'),
        ('"seed": 0,', '"seed": 1, "seed": 0,'),
        ('"config": {', '"config": {"dropout": 0.0,'),
    ],
)
def test_a_field_twice_is_refused(record, field, twice):
    text = unseal(record.path.read_text())
    assert field in text
    record.path.write_text(seal(text.replace(field, twice, 1)))
    assert_refused(record.path, "a field stands twice")
