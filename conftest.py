"""Tests and nbval see the committed records only, and store none of their own beside them."""

import os
import signal
import sys
import tempfile
from pathlib import Path

collect_ignore_glob = ["**/._*"]  # what macOS leaves beside files
ROOT = Path(__file__).resolve().parent
_RUNS = tempfile.TemporaryDirectory(prefix="mnist-runs-")  # removed when pytest ends

sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run on all cores, one file on each
os.environ.setdefault("MNIST_DEVICE", "cpu")  # where runs repeat bit for bit
os.environ["MNIST_RECORDS"] = str(ROOT / "records")
os.environ["MNIST_RUNS"] = _RUNS.name
os.environ.pop("MNIST_ROOT", None)
if hasattr(signal, "SIGHUP"):  # which nohup has ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
