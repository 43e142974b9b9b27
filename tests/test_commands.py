import os
import signal
import subprocess
import sys
import time

import pytest

from study.commands import status
from tests.conftest import python
from utils.data import ROOT

PROGRAM = """
import sys, time
from pathlib import Path
from utils.validation import OneLineError
from study.commands import status

def main():
    print("99.40", flush=True)
    {0}
    for line in range(10_000):
        print("a figure")
    return 0

sys.exit(status(main))
"""


def run(shell: str, does="pass"):
    """The exit status, what a shell command printed, and what it said on stderr."""
    command = ["bash", "-c", f"set -o pipefail; {shell}", sys.executable, PROGRAM.format(does)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {"cwd": ROOT, "env": env, "capture_output": True, "text": True, "timeout": 300}
    ended = subprocess.run(command, **options)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("shell", "code", "errors"),
    [
        ('"$0" -c "$1" | head -1', 141, ""),
        ('"$0" -c "$1" > /dev/full', 1, "the output: No space left on device\n"),
        ('"$0" -c "$1" >&-', 0, ""),
        ('"$0" -m study.verdict --help | true', 141, ""),
        ('"$0" -m study.verdict --help > /dev/full', 1, "the output: No space left on device\n"),
    ],
    ids=("reader left", "no room", "closed", "help unread", "help without room"),
)
def test_output_that_cannot_be_written_ends_a_command(shell, code, errors):
    assert run(shell)[::2] == (code, errors)


def test_an_expected_error_is_one_line_of_status_1():
    assert run('"$0" -c "$1"', 'raise OneLineError("no")') == (1, "99.40\n", "no\n")
    missing = run('"$0" -c "$1"', 'open("not there")')
    assert missing == (1, "99.40\n", "not there: No such file or directory\n")
    with pytest.raises(ZeroDivisionError):  # whatever is not expected
        status(lambda: 1 / 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_interrupt_stops_no_cleaning_up(number, tmp_path):
    cleaning = f"""
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        time.sleep(1)
        Path({str(tmp_path / "clean")!r}).write_text("clean")
    """
    command = [sys.executable, "-c", PROGRAM.format(cleaning.strip())]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    assert [process.stdout.readline() for _ in range(2)][1] == "ready\n"
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert (tmp_path / "clean").read_text() == "clean"


def test_a_user_without_a_name_trains_like_any_other(small_root):
    """Containers have such users; torch asks for the name at its first optimizer."""
    pytest.importorskip("pwd")
    code = """
import os, pwd
def nobody(*_):
    raise KeyError("getpwuid(): uid not found: 54321")
pwd.getpwuid = nobody
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
from models import MODELS
from utils.data import load_mnist
from utils.recipes import Recipe
from utils.training import fit
print(len(fit(MODELS[4], Recipe(epochs=1), load_mnist(), 0).history))
"""
    ended = python("-c", code, MNIST_ROOT=small_root)
    assert (ended.stdout, ended.returncode) == ("1\n", 0), ended.stderr


@pytest.mark.parametrize(
    ("started_by", "default"), [("-m", "SIG_DFL"), ("x.py", "default_int_handler")]
)
def test_ctrl_c_while_a_command_line_imports_shows_no_traceback(started_by, default):
    code = f"import sys; sys.argv = [{started_by!r}]; import signal, study; "
    done = python("-c", f"{code}print(signal.getsignal(signal.SIGINT) == signal.{default})")
    assert done.stdout == "True\n", done.stderr
