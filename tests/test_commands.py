import os
import signal
import subprocess
import sys
import time

import pytest

from study.commands import status
from utils.data import ROOT
from utils.validation import OneLineError

PROGRAM = """
import sys, time
from pathlib import Path
from utils.validation import OneLineError
from study.commands import status

def main():
    print("99.40 ± 0.05", flush=True)
    {0}
    for line in range(10_000):
        print("a figure")
    Path(sys.argv[1]).write_text("finished")
    return 0

sys.exit(status(main))
"""


def run(shell: str, store, does="pass", **environment):
    """The exit status, what a shell command printed, and what it said on stderr."""
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}", sys.executable, PROGRAM.format(does), store],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | environment,
        capture_output=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ('"$0" -c "$1" "$2" | head -1', 0, ""),
        ('"$0" -c "$1" "$2" > /dev/full', 1, "the output could not be written: No space left"),
        ('"$0" -c "$1" "$2" >&-', 0, ""),
        ('"$0" -c "$1" "$2" > /dev/full 2> /dev/full', 1, ""),
    ],
    ids=("reader left", "no room", "closed", "nowhere to say so"),
)
def test_output_that_is_lost_stops_nothing(shell, code, said, tmp_path):
    done = tmp_path / "done"
    ended, _, errors = run(shell, done)
    assert (ended, errors[: len(said) or None]) == (code, said)
    assert len(errors.splitlines()) == bool(said)
    assert done.read_text() == "finished"


def test_a_terminal_that_lacks_a_letter_shows_a_question_mark(tmp_path):
    code, output, errors = run(
        '"$0" -c "$1" "$2" | head -1', tmp_path / "x", PYTHONIOENCODING="ascii"
    )
    assert (code, output, errors) == (0, "99.40 ? 0.05\n", "")


@pytest.mark.parametrize(("output", "code"), [("| true", 0), ("> /dev/full", 1)])
def test_help_that_nobody_reads_is_no_error(output, code, tmp_path):
    ended, _, errors = run(f'"$0" -m study.verdict --help {output}', tmp_path)
    assert ended == code
    assert len(errors.splitlines()) == code


def test_an_expected_error_is_one_line_of_status_1(tmp_path, capsys):
    assert run('"$0" -c "$1" "$2"', tmp_path, 'raise OneLineError("no")')[::2] == (1, "no\n")

    def main():
        raise OneLineError("what was wrong")

    kept = sys.stdout
    assert status(main) == 1
    assert capsys.readouterr().err == "what was wrong\n"
    assert sys.stdout is kept
    with pytest.raises(ZeroDivisionError):  # whatever is not expected
        status(lambda: 1 / 0)


def test_an_expected_error_outside_a_command_is_one_line_too():
    raising = "from utils.validation import OneLineError; raise OneLineError('what was wrong')"
    ended = subprocess.run(
        [sys.executable, "-c", raising], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "what was wrong\n")


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
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(cleaning.strip()), tmp_path / "x"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert [process.stdout.readline() for _ in range(2)][1] == "ready\n"
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert (tmp_path / "clean").read_text() == "clean"


def test_another_models_file_earlier_on_the_path_is_named(tmp_path):
    (tmp_path / "models.py").write_text("")
    code = f"import sys; sys.path.insert(1, {str(ROOT)!r}); import utils"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = ended.stderr.splitlines()[-1]
    assert (
        f"finds {tmp_path / 'models.py'}, meant is {ROOT / 'models.py'}: put {ROOT} first" in last
    )


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
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"MNIST_ROOT": str(small_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("1\n", 0), ended.stderr
