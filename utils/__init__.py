"""What the notebooks teach with: data, augmentation, recipes, training, evaluation, figures."""

import getpass
import os

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name; torch's optimizers ask for it
    os.environ["LOGNAME"] = "nobody"
