"""Models whose weights come with the package: a file that one of them wrote need not hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# What yields such models; `genfast.models` adds its own.
SOURCES: list[Callable[[], Iterator[Any]]] = []


def shipped_models() -> Iterator[Any]:
    """The models, each loaded when it is asked for."""
    for source in SOURCES:
        yield from source()
