"""Registries that fill themselves: a file in a room is enough to add to it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable


def import_modules(package: str, path: Iterable[str]) -> list[str]:
    """Import every module of a package that has no leading underscore, in alphabetical order, so that its decorators
    register what it holds; returns their names."""
    names = sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
    for name in names:
        importlib.import_module(f"{package}.{name}")
    return names
