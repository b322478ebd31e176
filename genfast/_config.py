"""Settings as dataclasses, with the help, the bounds and the choices of each field in its metadata."""

from __future__ import annotations

import math
from dataclasses import Field, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def option(
    default: T,
    help: str,
    *,
    ge: float | str | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
    from_data: bool = False,
) -> T:
    """A field of a settings dataclass.

    Args:
        default, help: of the field; the command line shows both.
        ge, gt, le, lt: bounds of a number; ge may name another field.
        choices: the strings that are allowed.
        from_data: whether the data, or another training, decide it; then the command line has no such option.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {"help": help, **bounds, "choices": choices, "from_data": from_data}
    return field(default=default, metadata=metadata)


def inherited(base: type, name: str, default: T) -> T:
    """The field `name` of a base class, with another default."""
    option = next(option for option in fields(base) if option.name == name)
    return field(default=default, metadata=option.metadata)


def check_options(config: Any) -> None:
    """Raise TypeError or ValueError for a field that has another type, or lies outside its bounds or choices."""
    name, hints = type(config).__name__, get_type_hints(type(config))
    for option in fields(config):
        value, kind, choices = getattr(config, option.name), hints[option.name], option.metadata.get("choices")
        if get_origin(kind) is Literal:
            choices = get_args(kind)
        if choices and value not in choices:
            raise ValueError(f"{name}: {option.name} must be one of {', '.join(choices)}; got {value!r}")
        if kind is bool and not isinstance(value, bool):
            raise TypeError(f"{name}: {option.name} must be a bool; got {value!r}")
        if kind in (int, float):
            _check_number(config, name, option, kind, value)
        elif get_origin(kind) is tuple:
            if not isinstance(value, (tuple, list)) or len(value) != len(get_args(kind)):
                raise ValueError(f"{name}: {option.name} must be {len(get_args(kind))} numbers; got {value!r}")
            for part, part_kind in zip(value, get_args(kind), strict=True):
                _check_number(config, name, option, part_kind, part)


def _check_number(config: Any, name: str, option: Field[Any], kind: type, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise TypeError(f"{name}: {option.name} must be {'a number' if kind is float else 'an int'}; got {value!r}")
    bounds = option.metadata
    low = getattr(config, bounds["ge"]) if isinstance(bounds.get("ge"), str) else bounds.get("ge")
    above, high, below = bounds.get("gt"), bounds.get("le"), bounds.get("lt")
    fits = (low is None or value >= low) and (above is None or value > above)
    fits = fits and (high is None or value <= high) and (below is None or value < below)
    if not (fits and math.isfinite(value)):
        expected = _int_range(value, low, high) if kind is int else _range(low, above, high, below)
        raise ValueError(f"{name}: {option.name} must be {expected}; got {value!r}")


def _int_range(value: float, low: float | None, high: float | None) -> str:
    return f"at least {low}" if low is not None and value < low else f"at most {high}"


def _range(low: float | None, above: float | None, high: float | None, below: float | None) -> str:
    if high is None and below is None:
        return f"a finite number above {above:g}" if low is None else f"a finite number of at least {low:g}"
    start = f"[{low:g}" if low is not None else f"({above:g}"
    return f"a number in {start}, {high:g}]" if below is None else f"a number in {start}, {below:g})"


def documented(cls: type[T]) -> type[T]:
    """Class decorator: the docstring of a dataclass, with the help of each of its fields."""
    options = fields(cls)  # type: ignore[arg-type]  # a dataclass, which `type[T]` does not say
    lines = [f"    {option.name}: {option.metadata['help']}" for option in options if "help" in option.metadata]
    cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\nAttributes:\n" + "\n".join(lines) + "\n"
    return cls
