"""The shared workings of the three notebooks; see the README's layout."""

import sys


def _expected_in_one_line(kind, error, trace, usual=sys.excepthook):
    """Ctrl-C, in the seconds of starting up too, and errors whose message says all."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif hasattr(error, "_render_traceback_"):  # what a notebook shows of it is one line, too
        print(error, file=sys.stderr)
    else:
        usual(kind, error, trace)


sys.excepthook = _expected_in_one_line
