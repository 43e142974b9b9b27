"""What the command lines share: an expected error, or an interrupt, is one line."""

import atexit
import os
import signal
import sys
from collections.abc import Callable

from utils.validation import OneLineError

# Windows has no SIGHUP.
INTERRUPTS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
INTERRUPTED, NO_READER = 130, 141  # as shells count: 128 and the number of the signal


def status(main: Callable[[], int]) -> int:
    """The exit status of a command line's `main`: 1 after an expected error, 130 if interrupted.

    Such an error is one line on stderr. SIGTERM and a closed terminal interrupt as Ctrl-C does, and
    once is enough: a second one stops no clean-up. Where the reader of the output leaves (such as
    `head`), the command ends with status 141.
    """
    atexit.register(_ignore_interrupts)  # while Python clears up
    for number in INTERRUPTS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _interrupt)
    try:
        try:
            code = main()
        except SystemExit as ended:  # argparse's, after --help or a wrong option
            code = ended.code or 0
        except (KeyboardInterrupt, OneLineError) as error:
            print(str(error) or "interrupted", file=sys.stderr)
            code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        print(end="", flush=True)
    except OSError as error:
        if sys.stdout:  # or Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return NO_READER
        print(f"{error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _ignore_interrupts() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(*_) -> None:
    _ignore_interrupts()
    raise KeyboardInterrupt
