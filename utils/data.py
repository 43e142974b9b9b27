"""MNIST: find, verify and load; train, validation and test splits.

The four canonical files travel with the project, so nothing needs a network. They are read in
memory, and their content is verified by SHA-256 every time.
"""

import functools
import gzip
import hashlib
import os
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from utils.validation import OneLineError, first_line

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
CANONICAL_CHECKSUM = hashlib.sha256("".join(CANONICAL.values()).encode()).hexdigest()


class DataError(OneLineError, RuntimeError):
    """The data files are missing, damaged or not of MNIST's layout."""


@dataclass(frozen=True)
class Split:
    """Images and labels for one purpose."""

    images: Tensor  # [N, 28, 28] uint8, 0 is black background, 255 is ink
    labels: Tensor  # [N] int64, 0..9

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, index: Tensor | slice) -> "Split":
        """Some of the images, with their labels."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """Training and test images of an MNIST-like data set, with the checksum that identifies it."""

    train: Split  # everything one may train on, in file order
    test: Split  # used for evaluation only
    checksum: str  # SHA-256 over the four files' checksums, 64 hex digits

    @property
    def canonical(self) -> bool:
        """Whether these are MNIST's own four files."""
        return self.checksum == CANONICAL_CHECKSUM


def load_mnist(root: str | Path | None = None) -> Dataset:
    """Load and verify the data set under `root`, or $MNIST_ROOT, or the one in this project.

    Looks for the four files, gzipped or not, in `<root>/MNIST/raw/`, `<root>/raw/`, `<root>` itself
    and any `<root>/*/raw/`. A data set other than MNIST is loaded too, with a notice on stderr the
    first time. A DataError if files are missing, damaged, or not 28x28 IDX images with labels 0..9.
    """
    # A relative $MNIST_ROOT is relative to the project, not to the notebook.
    root = root or ROOT / os.path.expanduser(os.environ.get("MNIST_ROOT") or "data")
    root = Path(os.path.abspath(os.path.expanduser(root)))  # resolve() raises on circular links
    try:
        folders = [root / "MNIST" / "raw", root / "raw", root, *sorted(root.glob("*/raw"))]
        paths = next(filter(None, map(_files, folders)), None)
        if paths is None:
            seen = sorted(path.name for path in root.glob("[!.]*"))[:5] if root.is_dir() else []
            seen += ["it is no folder"] if root.is_file() else []
            fault = f"no MNIST files in {root} ({', '.join(seen) or 'nothing is there'})"
            expected = f"{', '.join(CANONICAL)}, each alone or as .gz, in {root} or its MNIST/raw/"
            raise DataError(f"{fault}; expected {expected}")
        return _load(paths, tuple(path.stat().st_mtime_ns for path in paths))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None


def _files(folder: Path) -> tuple[Path, ...] | None:
    """The four files of a folder, in the order of `CANONICAL`; None if it has none of them."""
    found = []
    for name in CANONICAL:
        dotted = name.replace("-idx", ".idx")  # as some archives call them
        names = f"{name}.gz", name, f"{dotted}.gz", dotted
        found.append(next((folder / n for n in names if (folder / n).is_file()), None))
    missing = [name for name, path in zip(CANONICAL, found, strict=True) if path is None]
    if len(missing) == len(CANONICAL):
        return None
    if missing:
        fault = f"{missing[0]} is missing, or no file, while other MNIST files are in {folder}"
        raise DataError(f"{fault}; put all four there")
    return tuple(found)


@functools.lru_cache(4)
def _load(paths: tuple[Path, ...], modified: tuple[int, ...]) -> Dataset:
    contents = [_content(path) for path in paths]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    checksum = hashlib.sha256("".join(digests).encode()).hexdigest()
    train, test = (_split(paths[i : i + 2], contents[i : i + 2]) for i in (0, 2))
    data = Dataset(train, test, checksum)
    if not data.canonical:
        counts = torch.bincount(train.labels, minlength=10).tolist()
        print(
            f"NOTICE: {paths[0].parent} does not hold the canonical MNIST (checksum "
            f"{checksum[:12]}): its runs compare with no published figure. {len(train)} training "
            f"images, {counts} of the digits 0 to 9, mean grey {train.images.float().mean():.0f} "
            f"(MNIST's is 33); {len(test)} test images.",
            file=sys.stderr,
        )
    return data


def _content(path: Path) -> bytes:
    """What is in a file, decompressed where it is gzip, whatever its name says."""
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); {_remedy(path)}") from None


def _array(path: Path, content: bytes, dimensions: int) -> Tensor:
    """The array in an IDX file of bytes: two zeros, type 8, rank, sizes (big-endian), values.

    Source: the format's definition by MNIST's makers, LeCun, Cortes and Burges.
    """
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        kind = f"an IDX file of unsigned bytes with {dimensions} dimension(s)"
        found = f"{len(content)} bytes that begin with {content[:4].hex(' ') or 'nothing'}"
        expected = bytes([0, 0, 8, dimensions]).hex(" ")
        raise DataError(f"{path} is not {kind}: {found}, expected {expected}; {_remedy(path)}")
    shape = tuple(numpy.frombuffer(content[4:start], ">u4").tolist())
    size = start + int(numpy.prod(shape, dtype=object))
    if len(content) != size:
        kind = "truncated" if len(content) < size else "too long"
        sizes = f"{len(content)} bytes, its header promises {size}"
        raise DataError(f"{path} is {kind} ({sizes}); {_remedy(path)}")
    values = numpy.frombuffer(content, numpy.uint8, offset=start)
    return torch.from_numpy(values.reshape(shape).copy())


def _split(paths: tuple[Path, Path], contents: list[bytes]) -> Split:
    """One half of the data, checked for shape and range."""
    images, labels = map(_array, paths, contents, (3, 1))
    if not len(images) or images.shape[1:] != (28, 28):
        fault = f"{paths[0]} holds images of shape {tuple(images.shape)}; expected [N, 28, 28]"
        raise DataError(f"{fault}, N of 1 or more: resize them to 28x28 pixels")
    if len(images) != len(labels):
        fault = f"{paths[0]} has {len(images)} images but {paths[1].name} {len(labels)} labels"
        raise DataError(f"{fault}; both must come from the same data set")
    if (most := int(labels.max())) > 9:
        raise DataError(f"{paths[1]} has label {most}; expected 0 to 9: renumber the classes")
    return Split(images, labels.long())


def _remedy(path: Path) -> str:
    if path.is_relative_to(ROOT / "data"):
        return "put the project's own file there again with 'git checkout -- data'"
    return "put the original file there"


def split_validation(train: Split, images: int = VALIDATION_IMAGES) -> tuple[Split, Split]:
    """Split training images into (fit, validation), stratified by class and always the same.

    `images` of MNIST's 60,000 are held out, and the same share of any other set. The larger
    validation split contains the smaller.
    """
    count = len(train) * images // 60_000
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
    return train.part(~held_out), train.part(held_out)


def pixel_statistics(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images, on the scale 0..1.

    Exact: computed in integers from the histogram of the 256 grey levels.
    """
    counts, levels = torch.bincount(images.flatten(), minlength=256), torch.arange(256)
    mean = int((counts * levels).sum()) / images.numel()
    variance = int((counts * levels**2).sum()) / images.numel() - mean**2
    return mean / 255, variance**0.5 / 255
