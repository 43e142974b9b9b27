import gzip
import hashlib
import os
import random
import shutil
from dataclasses import replace

import pytest
import torch

from models import MODELS
from study.records import SEAL, count_parameters, dumps, loads
from study.store import STUDY, RecordError, load, load_all, load_network, weights_checksum
from tests.conftest import QUICK, RUN
from utils.data import DataError, load_mnist
from utils.device import ENGINE_VERSION
from utils.evaluation import accuracy
from utils.recipes import learning_rate


def test_the_key_names_everything_that_decides_a_run():
    other = {"config": MODELS[5], "recipe": replace(QUICK, momentum=0.8), "seed": 1}
    other |= {"measure_test": False, "reference": True}
    keys = {replace(RUN, **{name: value}).key("da7a") for name, value in other.items()}
    keys |= {RUN.key("da7a"), RUN.key("0000"), RUN.key("da7a", ENGINE_VERSION + 1)}
    assert len(keys) == 8
    assert replace(RUN, name="5").key("da7a") == RUN.key("da7a")


def test_every_part_of_a_committed_record_agrees_with_the_others():
    """A record is checked against its seal and its key; here its parts against each other."""
    for record in load_all([STUDY]).values():
        run, rows = record.run, record.history
        recipe = run.recipe
        assert record.parameters == count_parameters(run.config)
        assert [row.epoch for row in rows] == list(range(1, recipe.epochs + 1))
        for row in rows:
            validated = (row.validation_loss, row.validation_accuracy)
            tested = (row.test_loss, row.test_accuracy)
            assert [figure is not None for figure in validated] == [recipe.validation] * 2
            assert [figure is not None for figure in tested] == [run.measure_test] * 2
            if not recipe.schedule.startswith("plateau"):
                rate = learning_rate(recipe, row.epoch - 1, 1)
                assert row.learning_rate == pytest.approx(rate, rel=1e-9)
        assert (record.confusion is not None) == run.measure_test
        if record.confusion:
            assert [len(row) for row in record.confusion] == [10] * 10
            assert sum(map(sum, record.confusion)) == 10_000
            assert accuracy(record.confusion) == pytest.approx(rows[-1].test_accuracy, abs=1e-9)


def flips(path, places, read, same):
    """Flip a byte at each place in turn; returns (unnoticed and changed, found in one line)."""
    whole, silent, messages = path.read_bytes(), 0, []
    draw = random.Random(0)
    for turn, place in enumerate(places):
        flipped = bytes([whole[place] ^ draw.randrange(1, 256)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        os.utime(path, ns=(turn, turn))  # a file is read again where its time has changed
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
    places = anywhere(300, record.path.stat().st_size)
    silent, found = flips(record.path, places, lambda: load(record.path), record.__eq__)
    assert silent == 0
    assert found >= 295  # a line feed may become a carriage return


def test_every_changed_byte_of_the_weights_is_found(record):
    def same(network):
        return weights_checksum(network.state_dict()) == record.weights_sha256

    size = record.weights_path.stat().st_size
    places = anywhere(100, size) + anywhere(100, size, size - 1_500)  # the archive's directory
    silent, found = flips(record.weights_path, places, lambda: load_network(record), same)
    assert silent == 0
    assert found >= 100  # in the directory, some mean nothing


@pytest.mark.parametrize("packed", [False, True])
def test_every_changed_byte_of_the_data_is_found(small_root, tmp_path, packed):
    shutil.copytree(small_root, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "MNIST" / "raw"
    for path in list(raw.iterdir()) if packed else ():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    whole = load_mnist(tmp_path)

    def same(read):  # or else known by another checksum, so that no record of these is found
        tensors = [(read.train, whole.train), (read.test, whole.test)]
        equal = [torch.equal(a.images, b.images) for a, b in tensors]
        equal += [torch.equal(a.labels, b.labels) for a, b in tensors]
        return read.checksum != whole.checksum or all(equal)

    total = 0
    for path in sorted(raw.iterdir()):
        places = [*anywhere(20, path.stat().st_size), *range(0, 16, 2)]
        silent, found = flips(path, places, lambda: load_mnist(tmp_path), same)
        assert silent == 0
        total += found
    assert total >= 16  # 4 of each head; bytes in a gzip header may mean nothing


def sealed(body: str) -> str:
    return f'{body}{SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1', "null", "\0"])
@pytest.mark.parametrize("seal", [str, sealed])
def test_no_record_at_all(record, content, seal):
    record.path.write_text(seal(content))
    with pytest.raises(RecordError, match="is damaged") as caught:
        load(record.path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seed": 0', '"seed": 1', "its contents have another key"),
        ('"momentum": 0.9', '"momentum": 0.8', "its contents have another key"),
        ('"parameters": 8714', '"parameters": "8714"', "record.parameters: .*valid integer"),
        ('"processor":', '"surplus": 1, "processor":', "record.surplus: unexpected keyword"),
        ('"epoch": 1', '"surplus": 1, "epoch": 1', "surplus: unexpected keyword"),
        ('"name": "4-quick"', '"name": "9/../9"', "run.name"),
    ],
)
def test_a_sealed_text_is_checked_for_its_key_and_its_types(record, old, new, message):
    body = record.path.read_text().rpartition(SEAL)[0]
    assert dumps(record) == sealed(body) == record.path.read_text()
    assert loads(sealed(body)) == record
    with pytest.raises(ValueError, match=message):
        loads(sealed(body.replace(old, new, 1)))
