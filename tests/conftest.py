"""Shared fixtures: the real MNIST, and small subsets of it that train in a second."""

import struct
from pathlib import Path

import pytest
import torch

from utils.data import Dataset, Split, load_mnist

torch.set_num_threads(1)  # subsets this small gain nothing from more


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    return load_mnist()


def subset(data: Dataset, train: int, test: int) -> Dataset:
    return Dataset(
        Split(data.train.images[:train], data.train.labels[:train]),
        Split(data.test.images[:test], data.test.labels[:test]),
        f"the first {train} and {test}",
        False,
    )


@pytest.fixture(scope="session")
def small(mnist) -> Dataset:
    """The first 600 training and 200 test images."""
    return subset(mnist, 600, 200)


def write_idx(raw: Path, data: Dataset) -> None:
    """Write a data set as four extracted IDX files."""
    raw.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", data.train), ("t10k", data.test)):
        n, height, width = split.images.shape
        head = struct.pack(">IIII", 0x0803, n, height, width)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + split.images.numpy().tobytes())
        labels = bytes(split.labels.tolist())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x0801, n) + labels)


@pytest.fixture(scope="session")
def small_root(small, tmp_path_factory) -> Path:
    """The small data set as files, for commands that read MNIST_ROOT."""
    root = tmp_path_factory.mktemp("small-mnist")
    write_idx(root / "MNIST" / "raw", small)
    return root
