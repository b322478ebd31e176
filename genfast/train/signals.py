"""Ctrl-C and SIGTERM as a request, so that a run ends between two updates."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def stop_signals():
    """An event that the first Ctrl-C or SIGTERM sets; a second one acts as if this were not here."""
    stop, previous = threading.Event(), {}

    def restore():
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(number, frame):
        stop.set()
        restore()

    if threading.current_thread() is threading.main_thread():  # Python takes signal handlers nowhere else
        previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()
