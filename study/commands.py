"""What the command lines share: an expected error is one line, lost output stops nothing."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TextIO

from utils.validation import OneLineError

# Windows has no hang-up.
INTERRUPTS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
QUIET = INTERRUPTS - {signal.SIGTERM}  # which a terminal sends; by SIGTERM workers are ended
INTERRUPTED = 130  # the status by which shells know Ctrl-C


class _Output:
    """A stream whose reader may leave and whose disk may fill: then the rest goes nowhere."""

    def __init__(self, stream: TextIO | None):
        if stream is None:  # it was closed
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self.stream = stream
        self.lost: OSError | None = None
        with contextlib.suppress(AttributeError):
            self.stream.reconfigure(errors="replace")  # letters that a terminal lacks

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._attempt(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def _attempt(self, action: Callable, *arguments: str) -> None:
        try:
            action(*arguments)
        except OSError as error:
            self.lost = error
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())


def status(main: Callable[[], int]) -> int:
    """The exit status of a command line's `main`: 1 after an expected error, 130 if interrupted.

    Such an error is one line on stderr. Where output can no longer be written, what is computed is
    finished all the same, and the status is 1 unless its reader left (`| head`). SIGTERM and a
    closed terminal interrupt as Ctrl-C does, and once is enough: a second one stops no clean-up.
    """
    out, err = _Output(sys.stdout), _Output(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with _interruptible():
                code = main()
        except SystemExit as ended:  # argparse's, after --help or a wrong option
            code = ended.code or 0
        except KeyboardInterrupt as error:
            print(error if str(error) else "interrupted", file=err)
            code = INTERRUPTED
        except OneLineError as error:
            print(error, file=err)
            code = 1
        finally:
            atexit.register(_ignore_interrupts)  # while Python clears up: all is said and done
            out.flush()
        if out.lost and not isinstance(out.lost, BrokenPipeError):
            print(f"the output could not be written: {out.lost.strerror}", file=err)
            code = code or 1
    return code


def _ignore_interrupts() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def undisturbed():
    """Within, an interrupt waits for the end of the block, and what is started hears no terminal's.

    A terminal sends them to all processes, of which one that is still importing would show a
    traceback, and Python's own, which watches over shared memory, would die.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    heard: list[int] = []
    kept = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number, handler in kept.items():
        if callable(handler):
            signal.signal(number, lambda number, _: heard.append(number))
    hush = getattr(signal, "pthread_sigmask", None)  # Windows has none
    try:
        if hush:
            hush(signal.SIG_BLOCK, QUIET)  # threads and processes inherit it
            resource_tracker.ensure_running()  # now, since it unblocks SIGINT
            hush(signal.SIG_BLOCK, QUIET)
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if hush:
            hush(signal.SIG_UNBLOCK, QUIET)
        if heard:
            signal.raise_signal(heard[0])


@contextlib.contextmanager
def _interruptible():
    """Within, the first signal raises KeyboardInterrupt and further ones are ignored."""

    def interrupt(*_):
        _ignore_interrupts()
        raise KeyboardInterrupt

    kept = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number, handler in kept.items():
        if handler != signal.SIG_IGN:  # nohup's wish
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
