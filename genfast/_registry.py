"""Registries that fill themselves: a file in a room is enough to add to it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, MutableMapping
from typing import Any

# (kind, name) -> the module that registered it.
_MODULES: dict[tuple[str, str], str] = {}


def add(registry: MutableMapping[str, Any], kind: str, name: str, value: Any, module: str) -> None:
    """Put a value into a registry; `module` may define it again, as a cell of a notebook does.

    Raises: ValueError for a name that another module has registered, which would be replaced without a word.
    """
    owner = _MODULES.setdefault((kind, name), module)
    if owner != module:
        raise ValueError(f"{kind} {name}: expected a name that is not taken; got that of {owner}")
    registry[name] = value


def import_modules(package: str, path: Iterable[str]) -> list[str]:
    """Import every module of a package that has no leading underscore, in alphabetical order, so that its decorators
    register what it holds; returns their names."""
    names = module_names(path)
    for name in names:
        importlib.import_module(f"{package}.{name}")
    return names


def module_names(path: Iterable[str]) -> list[str]:
    """The modules of a package that have no leading underscore, in alphabetical order."""
    return sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
