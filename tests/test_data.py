import gzip
import hashlib
import os
import re
import shutil
from unittest.mock import Mock

import pytest
import torch
from torchvision.datasets import MNIST

from tests.conftest import subset, write_idx
from utils.data import (
    CANONICAL,
    ROOT,
    DataError,
    Dataset,
    Split,
    load_mnist,
    pixel_statistics,
    split_validation,
)

ARCHIVES = ROOT / "data" / "MNIST" / "raw"


@pytest.fixture
def raw(tmp_path, small):
    """The raw folder of a root with the small data set, extracted."""
    write_idx(tmp_path / "MNIST" / "raw", small)
    return tmp_path / "MNIST" / "raw"


def refusal(root) -> str:
    """Why a data set is refused, which is one line."""
    with pytest.raises(DataError) as error:
        load_mnist(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_canonical_data_is_the_default(mnist):
    assert mnist.canonical
    for filename, md5 in MNIST.resources:
        assert hashlib.md5((ARCHIVES / filename).read_bytes()).hexdigest() == md5
    assert mnist.train.images.shape == (60_000, 28, 28)
    assert mnist.test.images.shape == (10_000, 28, 28)
    assert mnist.train.images.dtype == torch.uint8
    assert torch.bincount(mnist.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "form"),
    [
        ("MNIST/raw/{}", bytes),
        ("raw/{}.gz", gzip.compress),
        ("FashionMNIST/raw/{}", gzip.compress),
        ("{dotted}", bytes),  # as from Kaggle
    ],
)
def test_layouts(tmp_path, raw, small, place, form):
    for source in raw.iterdir():
        dotted = source.name.replace("-idx", ".idx")
        path = tmp_path / "root" / place.format(source.name, dotted=dotted)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(form(source.read_bytes()))
        if path.suffix == ".gz":
            (path.parent / source.name).write_bytes(b"half extracted by another program")
        elif path.name != source.name:  # Kaggle has folders of the other name beside the files
            (path.parent / source.name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    data = load_mnist(tmp_path / "root")
    assert sorted(tmp_path.rglob("*")) == before  # read in memory, nothing extracted
    assert not data.canonical
    assert torch.equal(data.train.images, small.train.images)
    assert torch.equal(data.test.labels, small.test.labels)
    assert data.test.labels.dtype == torch.int64


def test_the_root_may_be_named_by_the_environment_or_begin_at_home(raw, small, monkeypatch):
    root = raw.parent.parent
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    monkeypatch.setenv("MNIST_ROOT", f"~/{root.name}")
    assert torch.equal(load_mnist().train.images, small.train.images)
    # A relative one lies in the project: a notebook and a command line mean the same folder.
    monkeypatch.setenv("MNIST_ROOT", os.path.relpath(root, ROOT))
    monkeypatch.chdir(root)
    assert torch.equal(load_mnist().train.images, small.train.images)


def test_another_data_set_loads_with_a_notice_once_and_is_read_again_if_changed(
    raw, small, mnist, capsys
):
    first, again = load_mnist(raw), load_mnist(str(raw))
    (notice,) = capsys.readouterr().err.splitlines()
    assert "does not hold the canonical MNIST" in notice
    assert first.checksum[:12] in notice
    assert "600 training images, [58, 79, " in notice
    assert "200 test images" in notice
    assert first.checksum == again.checksum != mnist.checksum
    changed = Split(255 - small.train.images, small.train.labels)
    write_idx(raw, Dataset(changed, small.test, ""))
    os.utime(raw / "train-images-idx3-ubyte", (1, 1))
    after = load_mnist(raw)
    assert torch.equal(after.train.images, changed.images)
    assert after.checksum != first.checksum


def test_mnist_under_another_name_is_canonical_without_a_notice(tmp_path, mnist, capsys):
    (tmp_path / "link").symlink_to(ARCHIVES)
    assert load_mnist(tmp_path / "link").checksum == mnist.checksum
    assert capsys.readouterr().err == ""


def test_nothing_there_names_what_was_found_and_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("no digits")
    text = refusal(tmp_path)
    assert all(part in text for part in (str(tmp_path), "notes.txt", *CANONICAL, "MNIST/raw"))
    assert [path.name for path in tmp_path.rglob("*")] == ["notes.txt"]
    assert "nothing is there" in refusal(tmp_path / "absent")
    assert "it is no folder" in refusal(tmp_path / "notes.txt")
    (tmp_path / "loop").symlink_to("loop")
    assert "no MNIST files in" in refusal(tmp_path / "loop")


@pytest.mark.parametrize("missing", [*CANONICAL][::3])
def test_one_file_missing_or_a_folder(raw, missing):
    (raw / missing).unlink()
    text = refusal(raw.parents[1])
    assert f"{missing} is missing, or no file, while other MNIST files are in {raw}" in text
    (raw / missing).mkdir()
    assert refusal(raw.parents[1]) == text


DAMAGED = [
    (lambda content: content[:-100], r"truncated \(470316 bytes, its header promises 470416\)"),
    (lambda content: content + b"x", "is too long"),
    (lambda content: content[:4] + b"\xff" * 12 + content[16:], "is truncated"),  # 2^96 pixels
    (lambda content: content[:7], "7 bytes that begin with 00 00 08 03, expected 00 00 08 03"),
    (lambda content: b"", "is not an IDX file .*: 0 bytes that begin with nothing"),
    (lambda content: b"<!DOCTYPE html>", "is not an IDX file .*begin with 3c 21 44 4f"),
    (lambda content: content[:2] + b"\x0c" + content[3:], "00 00 0c 03, expected 00 00 08 03"),
    (lambda content: gzip.compress(content)[:-1], "is damaged"),
    (lambda content: gzip.compress(content)[:-8] + b"\0" * 8, r"is damaged \(CRC check failed"),
    (lambda content: gzip.compress(b"")[:10] + b"\7", "is damaged"),  # a block of no known type
]


@pytest.mark.parametrize(("damage", "said"), DAMAGED)
def test_a_damaged_file_or_archive_is_named_with_what_was_found(raw, damage, said):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    text = refusal(raw.parents[1])
    assert text.startswith(str(path))
    assert re.search(said, text), text
    assert text.endswith("put the original file there")


def test_of_the_projects_own_files_a_useless_one_is_to_be_checked_out(raw, monkeypatch):
    monkeypatch.setattr("utils.data.ROOT", raw.parent)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"noise")
    shutil.copytree(raw, raw.parent / "data" / "raw")
    assert refusal(raw.parent / "data").endswith("'git checkout -- data'")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: Split(s.images[:, :20, :20], s.labels), "(600, 20, 20); expected [N, 28, 28]"),
        (lambda s: Split(s.images[:0], s.labels[:0]), "(0, 28, 28); expected [N, 28, 28], N of 1"),
        (lambda s: Split(s.images, s.labels + 3), "label 12; expected 0 to 9"),
    ],
)
def test_wrong_shape_labels_and_counts(raw, small, change, fault):
    write_idx(raw, Dataset(change(small.train), small.test, ""))
    assert fault in refusal(raw.parents[1])
    write_idx(raw, small)
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    assert "600 images but train-labels-idx1-ubyte 200 labels" in refusal(raw.parents[1])


@pytest.mark.parametrize("method", ["read_bytes", "is_file"])
def test_what_cannot_be_read(raw, monkeypatch, method):
    # A test that runs as root cannot take its own right to read away, so reading fails here.
    refused = PermissionError(13, "Permission denied", str(raw))
    monkeypatch.setattr(f"pathlib.Path.{method}", Mock(side_effect=refused))
    assert refusal(raw) == f"{raw} cannot be read: Permission denied"


def test_validation_split_is_fixed_stratified_and_disjoint_and_inside_a_larger_one(mnist):
    (fit, validation), (rest, larger) = (split_validation(mnist.train, n) for n in (5_000, 10_000))
    assert [*map(len, (fit, validation, rest, larger))] == [55_000, 5_000, 50_000, 10_000]
    everything = torch.bincount(mnist.train.labels)
    held_out = torch.bincount(validation.labels)
    assert (held_out - everything / 12).abs().max() < 1
    assert torch.equal(held_out + torch.bincount(fit.labels), everything)
    assert torch.equal(split_validation(mnist.train)[1].images, validation.images)
    # Disjoint: the two parts together have every image once (compared by pixel sums).
    both = torch.cat([fit.images, validation.images]).flatten(1).sum(1)
    assert torch.equal(both.sort().values, mnist.train.images.flatten(1).sum(1).sort().values)
    images = {image.tobytes() for image in larger.images.numpy()}
    assert all(image.tobytes() in images for image in validation.images.numpy())


@pytest.mark.parametrize("count", [1, 11, 12, 601])
def test_a_twelfth_of_any_other_set_is_held_out(mnist, count):
    fit, validation = split_validation(subset(mnist, count, 0).train)
    assert (len(fit), len(validation)) == (count - count // 12, count // 12)


def test_pixel_statistics_agree_with_torch(mnist):
    pixels = mnist.train.images.double() / 255
    expected = pixels.mean().item(), pixels.std(correction=0).item()
    assert pixel_statistics(mnist.train.images) == pytest.approx(expected, abs=1e-9)
