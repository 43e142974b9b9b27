"""Tests and nbval see the committed records only: your own runs/ change nothing."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

sys.path.insert(0, str(ROOT))
os.environ.setdefault("MNIST_DEVICE", "cpu")  # where runs repeat bit for bit
os.environ["MNIST_RECORDS"] = str(ROOT / "records")
os.environ.pop("MNIST_ROOT", None)
os.environ.pop("MNIST_RUNS", None)
