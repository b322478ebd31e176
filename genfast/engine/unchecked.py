"""Warnings: which foreign models were compared with their author's loss; the others are pointed to `genfast.check`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from torch import nn


class UncheckedModel(UserWarning):
    """A foreign model is used whose conventions `genfast.check` has not compared with its author's loss."""


# For each model the keys of the conventions that agreed with the loss, see `Conventions.key`.
_AGREED: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()
# Models that need no pointing: once in a process is enough.
_POINTED: WeakSet[nn.Module] = WeakSet()


def remember(model: nn.Module, key: Any) -> None:
    """Conventions of a model agreed with its author's loss."""
    _AGREED.setdefault(model, set()).add(key)


def needs_pointing(model: nn.Module, key: Any) -> bool:
    """Whether to point to `genfast.check`: once for a model whose conventions were not found to agree."""
    if model in _POINTED or key in _AGREED.get(model, ()):
        return False
    _POINTED.add(model)
    return True


@contextmanager
def checking(model: nn.Module) -> Iterator[None]:
    """A context in which engines of a model are made to be checked, and point to nothing."""
    pointed = model in _POINTED
    _POINTED.add(model)
    try:
        yield
    finally:
        if not pointed:
            _POINTED.discard(model)


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """A warning that names the line of the user's code, however deep in genfast it comes up."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "genfast":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
