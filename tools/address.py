"""Stamp the repository's address: `python -m tools.address https://github.com/OWNER/NAME`.

The address is not known to the code. It is kept in one place, `tools/address.txt`; stamping copies
it into the notebooks' setup cells and puts Colab badges into README and notebooks. Without an
address there is no badge, so that no badge is ever dead.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

from study.files import write_atomically
from utils.data import ROOT

BEGIN, END = "<!-- badge -->", "<!-- /badge -->"
ASSIGNMENT = re.compile(r'^ADDRESS = ".*"', re.MULTILINE)


def check_address(address: str) -> str:
    """The address without a trailing slash or '.git'.

    Raises:
        ValueError: if it is no https:// or file:// address of a repository.
    """
    if not re.fullmatch(r"(https://[\w.-]+/[\w.-]+/[\w.-]+|file:///[^\s\"]+)/?", address):
        raise ValueError(f"the address must look like https://github.com/OWNER/NAME, not {address}")
    address = address.rstrip("/")
    return address.removesuffix(".git") if address.startswith("https") else address


def badge(address: str, notebook: str) -> str:
    """Markdown of the Colab badge of one notebook; empty for other hosts than GitHub."""
    github = re.fullmatch(r"https://github\.com/(.+)", address)
    if not github:
        return ""
    target = f"https://colab.research.google.com/github/{github[1]}/blob/main/notebooks/{notebook}"
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open {notebook} in Colab]({image})]({target})"


def stamp_text(text: str, badges: str) -> str:
    """Replace what stands between the badge markers."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{badges}{END}", text, flags=re.DOTALL)


def stamp(address: str, root: Path = ROOT) -> list[Path]:
    """Write address and badges into the project under `root`; returns the files changed.

    Raises:
        ValueError: if the address is malformed; nothing is written then.
    """
    address = check_address(address)
    notebooks = sorted((root / "notebooks").glob("[!.]*.ipynb"))
    changed = [root / "tools" / "address.txt", root / "README.md", *notebooks]
    write_atomically(changed[0], address + "\n")
    badges = " ".join(filter(None, (badge(address, path.name) for path in notebooks)))
    write_atomically(changed[1], stamp_text(changed[1].read_text(encoding="utf-8"), badges))
    for path in notebooks:
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cell.source = stamp_text(cell.source, badge(address, path.name))
            else:
                cell.source = ASSIGNMENT.sub(lambda _: f'ADDRESS = "{address}"', cell.source)
        write_atomically(path, nbformat.writes(book) + "\n")
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.address", description=__doc__)
    parser.add_argument("address", help="e.g. https://github.com/OWNER/NAME")
    try:
        changed = stamp(parser.parse_args(arguments).address)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for path in changed:
        print(f"stamped {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
