"""Stamp the repository's address: `python -m tools.address https://github.com/OWNER/NAME`.

`tools/address.txt` holds the address. Stamping copies it into the notebooks' setup cells and puts
Colab badges into README and notebooks. Without an address there is no badge.
"""

import re
import sys
from pathlib import Path

from utils.data import ROOT

COLAB = "https://colab.research.google.com"
ADDRESS = r'(https://[\w.-]+/[\w.-]+/[\w.-]+?)(?:\.git)?/*|(file:///[^\s"\\]+)'


def stamp(address: str, root: Path = ROOT) -> None:
    """Write the address, and for GitHub the badges, into the project under `root`.

    A ValueError if it is no https:// or file:// address of a repository; nothing is written then.
    """
    if not (found := re.fullmatch(ADDRESS, address)):
        raise ValueError(f"the address must look like https://github.com/OWNER/NAME, not {address}")
    address, badges = found[1] or found[2], {}
    host, _, repository = address.partition("github.com/")
    for path in sorted(root.glob("[na][op]*/[!.]*.ipynb")):  # notebooks/ and appendix/
        image = f"![Open {path.name} in Colab]({COLAB}/assets/colab-badge.svg)"
        link = f"{COLAB}/github/{repository}/blob/main/{path.relative_to(root).as_posix()}"
        badges[path] = f"[{image}]({link})" if host == "https://" else ""
    badges[root / "README.md"] = " ".join(badges.values())
    for path, badge in badges.items():
        text = path.read_text(encoding="utf-8")
        text = re.sub("(?<=<!-- badge -->).*?(?=<!-- /badge -->)", badge, text)
        text = re.sub(r'(?<=ADDRESS = \\").*?(?=\\")', address, text)
        path.write_text(text, encoding="utf-8", newline="\n")
    (root / "tools" / "address.txt").write_text(f"{address}\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        stamp(" ".join(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
