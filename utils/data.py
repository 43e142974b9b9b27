"""MNIST: locate -> verify -> tensors; splits for fitting, deciding and measuring.

The four canonical files travel with the project, so nothing needs a network. torchvision reads
them, but checks only that they exist; here their content is verified by SHA-256 every time.
"""

import gzip
import hashlib
import os
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import download_url

from utils.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
VALIDATION_IMAGES = 5_000  # of MNIST's 60,000; a twelfth of any other training set
SPLIT_SEED = 0  # fixed: the same images are held out in every run of the study

# SHA-256 of the extracted canonical files.
CANONICAL = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class DataError(RuntimeError):
    """The data files are missing, damaged or not of MNIST's layout."""


@dataclass(frozen=True)
class Split:
    """Images and labels for one purpose.

    images: [N, 28, 28] uint8, 0 is black background, 255 is ink. labels: [N] int64, 0..9.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Both halves of an MNIST-like data set, with the checksum that identifies it."""

    train: Split  # everything one may train on, in file order
    test: Split  # only ever measured
    checksum: str  # SHA-256 over the four files' checksums, 64 hex digits
    canonical: bool  # whether these are MNIST's own four files


def load_mnist(root: str | Path | None = None) -> Dataset:
    """Load and verify the data set under `root`, or $MNIST_ROOT, or the one in this project.

    Files are looked for as `<root>/MNIST/raw/<name>` or `<name>.gz`. If none is there,
    torchvision's mirrors are asked. A data set other than MNIST is loaded too, with a notice on
    stderr.

    Raises:
        DataError: if files are missing and cannot be downloaded, damaged, or not 28x28 IDX images
            with labels 0..9.
    """
    root = Path(root or os.environ.get("MNIST_ROOT") or ROOT / "data")
    raw = root / "MNIST" / "raw"
    if not any((raw / name).exists() or (raw / f"{name}.gz").exists() for name in CANONICAL):
        _download(raw)
    found = {name: _verified(raw, name) for name in CANONICAL}
    digests = {name: digest for name, (_, digest) in found.items()}
    checksum = hashlib.sha256("".join(digests[name] for name in CANONICAL).encode()).hexdigest()
    paths = {name: path for name, (path, _) in found.items()}
    data = Dataset(_read(paths, "train"), _read(paths, "t10k"), checksum, digests == CANONICAL)
    if not data.canonical:
        print(
            f"NOTICE: the files in {raw} are not the canonical MNIST (checksum {checksum[:12]}); "
            "runs on them are stored under that checksum and compare with no published figure.",
            file=sys.stderr,
        )
    return data


def _verified(raw: Path, name: str) -> tuple[Path, str]:
    """The extracted file and its SHA-256; extracts it first where needed."""
    path, archive = raw / name, raw / f"{name}.gz"
    if path.exists():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest == CANONICAL[name] or not archive.exists():
            return path, digest
    # Absent, or not canonical with an archive beside it: the archive decides.
    content = _decompressed(archive)
    digest = hashlib.sha256(content).hexdigest()
    if not path.exists() or path.read_bytes() != content:
        path = _store(path, content, digest)
    return path, digest


def _decompressed(archive: Path) -> bytes:
    try:
        return gzip.decompress(archive.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{archive} is missing while other MNIST files are there; "
            "put all four files into that folder, or remove them all to download them"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} is damaged ({error}); restore it, e.g. with 'git checkout -- data', "
            "or remove all four files to download them again"
        ) from None


def _store(path: Path, content: bytes, digest: str) -> Path:
    """Write an extracted file beside its archive, or in the temporary folder if read-only."""
    try:
        write_atomically(path, content)
    except OSError:
        path = Path(tempfile.gettempdir()) / f"mnist-{digest[:16]}" / path.name
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)
    return path


def _download(raw: Path) -> None:
    """Fetch the four archives through torchvision, mirror by mirror.

    Raises:
        DataError: naming every place tried.
    """
    try:
        raw.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=raw)
    except OSError as error:
        raise DataError(
            f"no MNIST files in {raw}, and none can be downloaded into it ({error.strerror}); "
            "put the four .gz files there, or set MNIST_ROOT to a folder with MNIST/raw/"
        ) from None
    tried = []
    with folder as part:
        for filename, md5 in MNIST.resources:
            for mirror in MNIST.mirrors:
                try:
                    download_url(mirror + filename, root=part, filename=filename, md5=md5)
                    break
                except (URLError, OSError, RuntimeError) as error:
                    tried.append(f"{mirror}{filename} ({error})")
            else:
                raise DataError(
                    f"no MNIST files in {raw}, and no download worked: tried {'; '.join(tried)}. "
                    "Put the four .gz files there, or set MNIST_ROOT to a folder with MNIST/raw/"
                )
        for filename, _ in MNIST.resources:
            os.replace(Path(part) / filename, raw / filename)


def _read(paths: dict[str, Path], half: str) -> Split:
    """One half through torchvision's IDX reader, checked for shape and range."""
    image_path, label_path = paths[f"{half}-images-idx3-ubyte"], paths[f"{half}-labels-idx1-ubyte"]
    try:
        images = read_image_file(str(image_path))
        labels = read_label_file(str(label_path))
    except (AssertionError, ValueError, RuntimeError, TypeError, KeyError, IndexError) as error:
        raise DataError(
            f"{image_path} or {label_path.name} is truncated or no IDX file of bytes ({error}); "
            "restore it, or remove the extracted file if its .gz stands beside it"
        ) from None
    if images.shape[1:] != (28, 28) or len(images) == 0:
        raise DataError(
            f"{image_path} holds images of shape {tuple(images.shape)}; expected [N, 28, 28]: "
            "resize them to 28x28 pixels"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} has {len(images)} images but {label_path.name} {len(labels)} labels; "
            "both must come from the same data set"
        )
    if labels.max() > 9:
        raise DataError(
            f"{label_path} has label {int(labels.max())}; expected 0 to 9: renumber the classes"
        )
    return Split(images, labels)


def split_validation(train: Split) -> tuple[Split, Split]:
    """Split training images into (fit, validation), stratified by class and always the same.

    Returns 55,000 and 5,000 images for MNIST; one twelfth is held out of any other set.
    """
    count = len(train) * VALIDATION_IMAGES // 60_000
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    per_class = torch.bincount(train.labels, minlength=10) * count / len(train)
    taken = per_class.floor().long()
    largest_remainders = (taken - per_class).argsort(stable=True)[: count - int(taken.sum())]
    taken[largest_remainders] += 1
    held_out = torch.zeros(len(train), dtype=torch.bool)
    for digit in range(10):
        members = (train.labels == digit).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        held_out[members[order[: taken[digit]]]] = True
    return (
        Split(train.images[~held_out], train.labels[~held_out]),
        Split(train.images[held_out], train.labels[held_out]),
    )


def pixel_statistics(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images, on the scale 0..1.

    Exact: computed in integers from the histogram of the 256 grey levels.
    """
    counts = torch.bincount(images.flatten(), minlength=256)
    levels = torch.arange(256)
    pixels = int(counts.sum())
    mean = int((counts * levels).sum()) / pixels
    variance = int((counts * levels**2).sum()) / pixels - mean**2
    return mean / 255, variance**0.5 / 255
