"""Options of an original that are taken by name, with the values alone that are served."""

from __future__ import annotations

from typing import Any


def refuse(call: str, served: dict[str, tuple[Any, ...]], options: dict[str, Any]) -> None:
    """TypeError for an option that the original does not have, ValueError for a value that is not served."""
    for name, value in options.items():
        if name not in served:
            raise TypeError(f"{call}: arguments must be those of the original; got {name!r}")
        is_number = isinstance(value, (bool, int, float))
        if not any(value is one or (is_number and value == one) for one in served[name]):
            expected = " or ".join(map(repr, served[name]))
            raise ValueError(f"{call}: {name} must be {expected}, as nothing else is served; got {value!r}")
