import gzip
import hashlib
import os
import re
import shutil
import struct

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
    assert mnist.train.images.shape == (60_000, 28, 28)
    assert mnist.test.images.shape == (10_000, 28, 28)
    assert mnist.train.images.dtype == torch.uint8
    assert torch.bincount(mnist.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_archives_are_the_canonical_ones():
    for filename, md5 in MNIST.resources:
        content = (ARCHIVES / filename).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5
        assert hashlib.sha256(gzip.decompress(content)).hexdigest() == CANONICAL[filename[:-3]]


def test_archives_are_read_in_memory_and_nothing_is_written(tmp_path, mnist, capsys):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in CANONICAL:
        shutil.copy(ARCHIVES / f"{name}.gz", raw)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"half extracted by another program")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    data = load_mnist(tmp_path)
    assert data.checksum == mnist.checksum
    assert torch.equal(data.test.images, mnist.test.images)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert capsys.readouterr().err == ""


def as_they_are(folder):
    assert {path.name for path in folder.iterdir()} >= set(CANONICAL)


def as_archives(folder):
    for path in folder.iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def as_kaggle(folder):
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    for name in CANONICAL:  # beside each file a folder of the other name, with the file again
        (folder / name).mkdir()


def without_suffix(folder):
    for path in folder.iterdir():
        path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize("form", [as_they_are, as_archives, as_kaggle, without_suffix])
@pytest.mark.parametrize("place", ["MNIST/raw", "raw", ".", "FashionMNIST/raw"])
def test_layouts(tmp_path, small, place, form):
    write_idx(tmp_path / place, small)
    form(tmp_path / place)
    data = load_mnist(tmp_path)
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


def test_another_data_set_loads_with_a_notice_printed_once(raw, mnist, capsys):
    root = raw.parent.parent
    first, again = load_mnist(root), load_mnist(str(root))
    (notice,) = capsys.readouterr().err.splitlines()
    assert "does not hold the canonical MNIST" in notice
    assert first.checksum[:12] in notice
    assert "600 training images, [58, 79, " in notice
    assert "200 test images" in notice
    assert first.checksum == again.checksum != mnist.checksum


def test_a_file_that_changed_is_read_again(raw, small):
    root = raw.parent.parent
    before = load_mnist(root)
    changed = Split(255 - small.train.images, small.train.labels)
    write_idx(raw, Dataset(changed, small.test, ""))
    os.utime(raw / "train-images-idx3-ubyte", (1, 1))
    after = load_mnist(root)
    assert torch.equal(after.train.images, changed.images)
    assert after.checksum != before.checksum


def test_nothing_there_names_what_was_found_and_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("no digits")
    text = refusal(tmp_path)
    for part in (str(tmp_path), "notes.txt", *CANONICAL, "MNIST/raw"):
        assert part in text
    assert [path.name for path in tmp_path.rglob("*")] == ["notes.txt"]
    assert "nothing is there" in refusal(tmp_path / "absent")
    assert "it is no folder" in refusal(tmp_path / "notes.txt")
    assert "File name too long" in refusal(tmp_path / ("n" * 300))
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "no MNIST files in" in refusal(tmp_path / "a")


@pytest.mark.parametrize("missing", CANONICAL)
@pytest.mark.parametrize("folder", [True, False])
def test_one_file_missing_or_a_folder(raw, missing, folder):
    (raw / missing).unlink()
    if folder:
        (raw / missing).mkdir()
    text = refusal(raw.parent.parent)
    assert f"{missing} is missing, or no file, while other MNIST files are in {raw}" in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda archive: archive[: len(archive) // 2],
        lambda archive: archive[:-1],
        lambda archive: archive[:500] + bytes([archive[500] ^ 255]) + archive[501:],
        lambda archive: archive[:10] + b"\x07" + archive[11:],  # a block of no known type
        lambda archive: b"no gzip at all",
        lambda archive: b"",
    ],
)
def test_damaged_archive(raw, damage):
    as_archives(raw)
    archive = raw / "t10k-images-idx3-ubyte.gz"
    archive.write_bytes(damage(archive.read_bytes()))
    text = refusal(raw.parent.parent)
    assert text.startswith(str(archive))
    assert re.search("is damaged|is truncated|is not an IDX file", text)
    assert text.endswith("put the original file there")


def idx(kind: int, *shape: int) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + b"\0" * 40


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-100], r"is truncated \(470316 bytes, its header promises 47041"),
        (lambda content: content + b"x", "is too long"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "is truncated"),  # 2^96 pixels
        (lambda content: content[:7], "7 bytes that begin with 00 00 08 03, expected 00 00 08 03"),
        (lambda content: b"", "is not an IDX file .*: 0 bytes that begin with nothing"),
        (lambda content: b"<!DOCTYPE html>", "is not an IDX file .*begin with 3c 21 44 4f"),
        (lambda content: idx(0x0C, 600, 28, 28), "begin with 00 00 0c 03, expected 00 00 08 03"),
        (lambda content: idx(8, 600, 784), "begin with 00 00 08 02, expected 00 00 08 03"),
    ],
)
def test_a_file_that_is_something_else_is_named_with_what_was_found(raw, damage, said):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    text = refusal(raw.parent.parent)
    assert text.startswith(str(path))
    assert re.search(said, text), text
    assert "git checkout" not in text  # these are not the project's files


def test_of_the_projects_own_files_a_useless_one_is_to_be_checked_out(raw, monkeypatch):
    monkeypatch.setattr("utils.data.ROOT", raw.parents[2])
    home = raw.parents[2] / "data"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(raw, home / "MNIST" / "raw")
    (home / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"noise")
    assert refusal(home).endswith("'git checkout -- data'")


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
    assert fault in refusal(raw.parent.parent)
    write_idx(raw, small)
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    assert "600 images but train-labels-idx1-ubyte 200 labels" in refusal(raw.parent.parent)


@pytest.mark.parametrize("method", ["read_bytes", "is_file"])
def test_what_cannot_be_read(raw, monkeypatch, method):
    # A test that runs as root cannot take its own right to read away, so reading fails here.
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(f"pathlib.Path.{method}", refuse)
    text = refusal(raw.parent.parent)
    assert text.startswith(str(raw))
    assert text.endswith("cannot be read: Permission denied")


def test_validation_split_is_fixed_stratified_and_disjoint(mnist):
    fit, validation = split_validation(mnist.train)
    assert (len(fit), len(validation)) == (55_000, 5_000)
    everything = torch.bincount(mnist.train.labels)
    held_out = torch.bincount(validation.labels)
    assert (held_out - everything / 12).abs().max() < 1
    assert torch.equal(held_out + torch.bincount(fit.labels), everything)
    assert torch.equal(split_validation(mnist.train)[1].images, validation.images)
    # Disjoint: the two parts together have every image once (compared by pixel sums).
    both = torch.cat([fit.images, validation.images]).flatten(1).sum(1)
    assert torch.equal(both.sort().values, mnist.train.images.flatten(1).sum(1).sort().values)


def test_a_larger_validation_split_contains_the_smaller(mnist):
    smaller, (fit, larger) = split_validation(mnist.train)[1], split_validation(mnist.train, 10_000)
    assert (len(fit), len(larger)) == (50_000, 10_000)
    images = {image.tobytes() for image in larger.images.numpy()}
    assert all(image.tobytes() in images for image in smaller.images.numpy())


@pytest.mark.parametrize("count", [1, 11, 12, 100, 601])
def test_a_twelfth_of_any_other_set_is_held_out(mnist, count):
    fit, validation = split_validation(subset(mnist, count, 0).train)
    assert (len(fit), len(validation)) == (count - count // 12, count // 12)


def test_pixel_statistics_agree_with_torch(mnist):
    mean, std = pixel_statistics(mnist.train.images)
    pixels = mnist.train.images.double() / 255
    assert mean == pytest.approx(pixels.mean().item(), abs=1e-12)
    assert std == pytest.approx(pixels.std(correction=0).item(), abs=1e-9)
