"""The shared workings of the three notebooks; docs/house.md has each file in a line."""

import getpass
import importlib.util
import os
import sys
from pathlib import Path


def _expected_in_one_line(kind, error, trace, usual=sys.excepthook):
    """Ctrl-C, in the seconds of starting up too, and errors whose message says all."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif hasattr(error, "_render_traceback_"):  # what a notebook shows of it is one line, too
        print(error, file=sys.stderr)
    else:
        usual(kind, error, trace)


sys.excepthook = _expected_in_one_line

_meant = Path(__file__).resolve().parent.parent / "models.py"
_found = importlib.util.find_spec("models")
if _found is None or Path(_found.origin or "").resolve() != _meant:
    raise ImportError(
        f"'import models' finds {_found.origin if _found else 'nothing'}, meant is {_meant}: "
        f"put {_meant.parent} first on the path, e.g. with PYTHONPATH"
    )

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name, for which torch asks
    os.environ["LOGNAME"] = "nobody"
