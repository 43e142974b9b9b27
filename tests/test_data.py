import functools
import gzip
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from torchvision.datasets import MNIST

from tests.conftest import subset, write_idx
from utils.data import (
    CANONICAL,
    ROOT,
    DataError,
    Split,
    load_mnist,
    pixel_statistics,
    split_validation,
)

ARCHIVES = ROOT / "data" / "MNIST" / "raw"


@pytest.fixture
def archives(tmp_path):
    """A root with the four canonical archives, not yet extracted."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in CANONICAL:
        shutil.copy(ARCHIVES / f"{name}.gz", raw)
    return raw


def test_canonical_data_is_the_default(mnist):
    assert mnist.canonical
    assert mnist.train.images.shape == (60_000, 28, 28)
    assert mnist.test.images.shape == (10_000, 28, 28)
    assert mnist.train.images.dtype == torch.uint8
    assert torch.bincount(mnist.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_archives_are_extracted_and_a_changed_byte_is_mended(archives, mnist):
    root = archives.parent.parent
    assert load_mnist(root).checksum == mnist.checksum
    extracted = archives / "t10k-images-idx3-ubyte"
    content = bytearray(extracted.read_bytes())
    content[5_000] ^= 1
    extracted.write_bytes(content)
    assert load_mnist(root).checksum == mnist.checksum
    extracted.write_bytes(content[:1_000])
    assert torch.equal(load_mnist(root).test.images, mnist.test.images)


def test_many_processes_may_extract_at_once(archives, mnist):
    code = "import sys; from utils.data import load_mnist; print(load_mnist(sys.argv[1]).checksum)"
    command = [sys.executable, "-c", code, str(archives.parent.parent)]
    runs = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert {run.communicate()[0].strip() for run in runs} == {mnist.checksum}
    assert sorted(p.name for p in archives.iterdir() if not p.name.endswith(".gz")) == sorted(
        CANONICAL
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: b"no gzip at all", "is damaged"),
    ],
)
def test_damaged_archive(archives, damage, message):
    archive = archives / "t10k-labels-idx1-ubyte.gz"
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=f"{archive.name} {message}"):
        load_mnist(archives.parent.parent)


def test_one_file_missing(archives):
    (archives / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="is missing while other MNIST files are there"):
        load_mnist(archives.parent.parent)


def test_no_files_and_no_network_names_every_place(tmp_path, monkeypatch):
    mirrors = ["http://127.0.0.1:9/first/", "http://127.0.0.1:9/second/"]
    monkeypatch.setattr(MNIST, "mirrors", mirrors)
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    for place in (str(tmp_path), *mirrors):
        assert place in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_downloaded_from_the_first_mirror_that_has_them(
    tmp_path, monkeypatch, mnist
):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=ARCHIVES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirrors = ["http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_port}/"]
        monkeypatch.setattr(MNIST, "mirrors", mirrors)
        assert load_mnist(tmp_path).checksum == mnist.checksum
        server.shutdown()
    assert sorted(path.suffix for path in (tmp_path / "MNIST" / "raw").glob("*.gz")) == [".gz"] * 4


def test_another_data_set_loads_with_a_notice(tmp_path, mnist, capsys, monkeypatch):
    write_idx(tmp_path / "MNIST" / "raw", subset(mnist, 300, 100))
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    data = load_mnist()
    assert not data.canonical
    assert data.checksum != mnist.checksum
    assert "not the canonical MNIST" in capsys.readouterr().err
    assert torch.equal(data.train.images, mnist.train.images[:300])


def test_a_folder_that_cannot_be_written_is_read_all_the_same(archives, mnist, monkeypatch):
    # A test that runs as root cannot take its own right to write away, so writing there fails here.
    import utils.data

    write = utils.data.write_atomically

    def refuse(path, content):
        if path.parent == archives:
            raise PermissionError(13, "Permission denied")
        write(path, content)

    monkeypatch.setattr(utils.data, "write_atomically", refuse)
    assert load_mnist(archives.parent.parent).checksum == mnist.checksum
    assert not (archives / "t10k-images-idx3-ubyte").exists()


def _images(data, images):
    return Split(images, data.train.labels[: len(images)])


def test_wrong_image_shape_labels_and_counts(tmp_path, small):
    raw = tmp_path / "MNIST" / "raw"
    small_images, labels = small.train.images, small.train.labels
    cases = [
        (Split(small_images[:, :20, :20], labels), r"expected \[N, 28, 28\]"),
        (Split(small_images, labels + 3), "expected 0 to 9"),
    ]
    for train, message in cases:
        write_idx(raw, subset(small, 1, 1).__class__(train, small.test, "", False))
        with pytest.raises(DataError, match=message):
            load_mnist(tmp_path)
    write_idx(raw, small)
    other = tmp_path / "other"
    write_idx(other, subset(small, 500, 100))
    shutil.copy(other / "train-labels-idx1-ubyte", raw)
    with pytest.raises(DataError, match="has 600 images but train-labels-idx1-ubyte 500 labels"):
        load_mnist(tmp_path)


def test_truncated_file_of_another_data_set(tmp_path, small):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, small)
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated or no IDX file"):
        load_mnist(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="truncated or no IDX file"):
        load_mnist(tmp_path)


def test_validation_split_is_fixed_stratified_and_disjoint(mnist):
    fit, validation = split_validation(mnist.train)
    assert (len(fit), len(validation)) == (55_000, 5_000)
    everything = torch.bincount(mnist.train.labels)
    held_out = torch.bincount(validation.labels)
    assert (held_out - everything / 12).abs().max() < 1
    assert torch.equal(held_out + torch.bincount(fit.labels), everything)
    again = split_validation(mnist.train)[1]
    assert torch.equal(again.images, validation.images)
    # Disjoint: the two parts together have every image once (compared by pixel sums).
    both = torch.cat([fit.images, validation.images]).flatten(1).sum(1)
    assert torch.equal(both.sort().values, mnist.train.images.flatten(1).sum(1).sort().values)


def test_pixel_statistics_agree_with_torch(mnist):
    mean, deviation = pixel_statistics(mnist.train.images)
    pixels = mnist.train.images.double() / 255
    assert mean == pytest.approx(pixels.mean().item(), abs=1e-12)
    assert deviation == pytest.approx(pixels.std(correction=0).item(), abs=1e-9)


def test_archives_are_the_canonical_ones():
    for filename, md5 in MNIST.resources:
        content = (ARCHIVES / filename).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5
        assert hashlib.sha256(gzip.decompress(content)).hexdigest() == CANONICAL[filename[:-3]]
