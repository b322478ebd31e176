"""Files, errors and sizes in a message of one line."""

from __future__ import annotations

from genfast._text import shown


def reason(error: BaseException) -> str:
    """The message of an error, or its kind if it has none."""
    return shown(" ".join(str(error).split())) or type(error).__name__


def in_bytes(size: float) -> str:
    """A number of bytes."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'s' * (number != 1)}"
