"""The first images of MNIST as a data set of their own, for tests and for `tools.reliability`."""

import hashlib
import struct
from pathlib import Path

from utils.data import Dataset


def subset(data: Dataset, train: int, test: int) -> Dataset:
    """The first `train` training and `test` test images, with a checksum of their own."""
    checksum = hashlib.sha256(f"the first {train} and {test}".encode()).hexdigest()
    return Dataset(data.train.part(slice(train)), data.test.part(slice(test)), checksum)


def write_idx(raw: Path, data: Dataset) -> None:
    """Write a data set as four extracted IDX files into the folder `raw`."""
    raw.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", data.train), ("t10k", data.test)):
        n, height, width = split.images.shape
        head = struct.pack(">IIII", 0x0803, n, height, width)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + split.images.numpy().tobytes())
        labels = struct.pack(">II", 0x0801, n) + bytes(split.labels.tolist())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(labels)
