"""What the notebooks teach with: data, augmentation, recipes, training, evaluation, figures."""

import getpass
import importlib.util
import os
from pathlib import Path

_meant = Path(__file__).resolve().parent.parent / "models.py"
_found = importlib.util.find_spec("models")
if _found is None or Path(_found.origin or "").resolve() != _meant:
    raise ImportError(
        f"'import models' finds {_found.origin if _found else 'nothing'}, expected {_meant}: "
        f"put {_meant.parent} first on the path, e.g. with PYTHONPATH"
    )

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name; torch's optimizers ask for it
    os.environ["LOGNAME"] = "nobody"
