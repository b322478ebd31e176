"""Ctrl-C while the command line is being imported, which takes seconds: one line instead of a traceback.

`genfast` imports this before all else. In a process that is not the command line it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys


def is_command() -> bool:
    """Whether this process is `genfast ...` or `python -m genfast ...`."""
    if sys.argv[:1] == ["-m"]:  # while the package is imported, before its __main__ is found
        words = sys.orig_argv
        return "-mgenfast" in words or ("-m", "genfast") in zip(words, words[1:], strict=False)
    return os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0] == "genfast"


def leave(number: int, frame: object) -> None:
    """Handle a signal before there is anything to tidy up."""
    os.write(2, b"genfast: error: interrupted\n")
    os._exit(128 + number)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
