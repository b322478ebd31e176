"""Text that comes from elsewhere in messages: of files, such as their names, and of other errors."""

from __future__ import annotations

MOST = 500
MESSAGE = 2000  # of a whole message, which may name many files


def shown(value: object, most: int = MOST) -> str:
    """`str(value)` as a message shows it: on one line, and with at most about `most` characters.

    A name or a content may hold anything: a line break, an escape sequence of a terminal, a mark that reverses the
    order of the letters. What is not printable is written as Python would: `\\n`, `\\x1b`, `\\u202e`.
    """
    text = str(value)
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
