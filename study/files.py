"""Files that appear whole or not at all."""

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

PART = f".part-{socket.gethostname()}-"  # then the process, and random letters


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends without an error, else never."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{PART}{os.getpid()}-", delete=False
    ) as part:
        try:
            yield part
            part.flush()
            os.fsync(part.fileno())
            part.close()  # Windows replaces no open file
            with contextlib.suppress(OSError):  # cosmetic, and some file systems refuse it
                os.chmod(part.name, 0o644)
            os.replace(part.name, path)
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk, once more
                part.close()
            Path(part.name).unlink(missing_ok=True)  # it may have been moved just now
            raise


def remove_parts(folder: Path) -> None:
    """Delete what processes of this machine that are no more have left half written in a store."""
    for path in folder.rglob(".part-*"):
        owner = re.match(rf"{re.escape(PART)}(\d+)-", path.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            path.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file in one step, so that another process sees the old content or the new."""
    with atomic_file(path) as part:
        part.write(content.encode() if isinstance(content, str) else content)
