"""Graceful handling of Ctrl-C and SIGTERM: a run ends between two updates."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# SIGHUP: of a terminal that is closed.
SIGNALS = [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")]


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """A context with an event that the first Ctrl-C, SIGTERM or SIGHUP sets; a second one has its usual effect.

    A signal that is ignored, such as SIGHUP under nohup, stays so.
    """
    stop = threading.Event()
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(number: int, frame: object) -> None:
        stop.set()
        restore()

    if threading.current_thread() is threading.main_thread():  # other threads cannot set signal handlers
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
