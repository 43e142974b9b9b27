"""What the notebooks teach with: data, augmentation, recipes, training, evaluation, figures."""

import getpass
import os

try:
    getpass.getuser()
except (KeyError, OSError):  # in a container a user may have no name; torch's optimizers ask for it
    os.environ["LOGNAME"] = "nobody"
