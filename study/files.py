"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PART = ".part-"  # a file that is not whole yet; then random letters


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends without an error, else never."""
    part = tempfile.NamedTemporaryFile(dir=path.parent, prefix=PART, delete=False)  # noqa: SIM115
    try:
        with part:  # Windows replaces no open file
            yield part
            part.flush()
            os.fsync(part.fileno())
        with contextlib.suppress(OSError):  # cosmetic, and some file systems refuse it
            os.chmod(part.name, 0o644)
        os.replace(part.name, path)
    except BaseException:
        Path(part.name).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file in one step, so that another process sees the old content or the new."""
    with atomic_file(path) as part:
        part.write(content.encode() if isinstance(content, str) else content)
