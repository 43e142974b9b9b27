"""IDX files, as MNIST's makers defined them; and what a file is that is none."""

import codecs
import gzip
import zlib
from pathlib import Path

import numpy
import torch
from torch import Tensor

from utils.validation import OneLineError, first_line

GZIP = b"\x1f\x8b"
# The third byte of an IDX file says what its values are.
TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
PURPOSE = {3: "images", 1: "labels"}


class DataError(OneLineError, RuntimeError):
    """The data files are missing, damaged or not of MNIST's layout."""


def content_of(path: Path, remedy: str) -> bytes:
    """What is in a file, decompressed where it is gzip, whatever its name says.

    Raises:
        DataError: for a damaged archive.
    """
    content = path.read_bytes()
    if not content.startswith(GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); {remedy}") from None


def array_of(path: Path, content: bytes, dimensions: int, remedy: str) -> Tensor:
    """The array in an IDX file of bytes: two zeros, type, rank, sizes (big-endian), values.

    Raises:
        DataError: saying what the file is instead.
    """
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        what, mend = _other(content, dimensions, remedy)
        raise DataError(f"{path} is {what}, not an IDX file of {PURPOSE[dimensions]}: {mend}")
    shape = tuple(numpy.frombuffer(content[4:start], ">u4").tolist())
    size = start + int(numpy.prod(shape, dtype=object))
    if len(content) != size:
        kind = "truncated" if len(content) < size else "too long"
        sizes = f"{len(content)} bytes, its header promises {size}"
        raise DataError(f"{path} is {kind} ({sizes}); {remedy}")
    values = numpy.frombuffer(content, numpy.uint8, offset=start)
    return torch.from_numpy(values.reshape(shape).copy())


def _other(content: bytes, dimensions: int, remedy: str) -> tuple[str, str]:
    """What a file is, and how to make the wanted one of it."""
    if not content:
        return "empty", remedy
    if content.startswith(GZIP):
        return "compressed twice", "decompress it once"
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "fetch the file that it stands for with 'git lfs pull'"
    if content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<":
        return "a web page", "download the file itself"
    if content[2:4] == b"\0\0" and content[1] in TYPES and content[0] in (1, 2, 3, 4):
        return "an IDX file with its bytes reversed", "write its header big-endian"
    if content[:2] != b"\0\0" or content[2:3] == b"" or content[2] not in TYPES:
        return "no IDX file", remedy
    if len(content) < 4:
        return "cut off in its header", remedy
    kind, rank = TYPES[content[2]], content[3]
    if kind == TYPES[0x0C] and rank == 2 and dimensions == 1:
        return "QMNIST's table of labels", "keep column 0, the class, as unsigned bytes"
    if content[2] != 0x08:
        return f"an IDX file of {kind}", "convert its values to unsigned bytes, 0 to 255"
    if rank == dimensions:
        return "cut off in its header", remedy
    if rank == {1: 3, 3: 1}[dimensions]:
        return f"a file of {PURPOSE[rank]}", "exchange the two files"
    if dimensions == 3 and rank == 4:
        return "a file of colour images, or of four axes", "make them grey, [N, 28, 28]"
    if dimensions == 3 and rank == 2:
        return "a file of flat images", "reshape them to [N, 28, 28]"
    if dimensions == 1 and rank == 2:
        return "a table of labels", "keep one number an image, its class"
    return f"an IDX file of {rank} dimensions", f"{dimensions} are expected"
