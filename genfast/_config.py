"""Settings as dataclasses, with the help, the bounds and the choices of each field in its metadata."""

from __future__ import annotations

import sys
from dataclasses import MISSING, Field, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from genfast._text import shown

T = TypeVar("T")
LARGEST = sys.float_info.max
KINDS = {bool: "a bool", str: "a str", dict: "a dict", NoneType: "None"}


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
    cls = type(config)
    name, hints = cls.__name__, _hints(cls)  # type: ignore[arg-type]  # a class can be hashed
    for option in fields(config):
        _check_option(config, name, option, hints[option.name], getattr(config, option.name))


def from_json(cls: type[T], values: Any, where: str) -> T:
    """A settings dataclass from a value of a file. ValueError, which `where` begins, for anything else than its fields.

    A field without a default must be there. Types, bounds and choices are checked by the class, see `check_options`.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected the fields of {cls.__name__}; got {shown(repr(values), 100)}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    if unknown := sorted(values.keys() - known.keys()):
        got = shown(", ".join(unknown))
        raise ValueError(f"{where}: expected fields of {cls.__name__}; got {got}")
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    if missing := sorted(needed - values.keys()):
        raise ValueError(f"{where}: expected the fields {', '.join(sorted(needed))}; got no {', '.join(missing)}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _check_option(config: Any, name: str, option: Field[Any], kind: Any, value: Any) -> None:
    """One value of a field of `kind`: a class, a Literal, a tuple of numbers, or a union of classes."""
    choices, parts = option.metadata.get("choices"), get_args(kind)
    if get_origin(kind) is Literal:
        choices = parts
    if choices and not (isinstance(value, str) and value in choices):
        got = shown(repr(value), 100)
        raise ValueError(f"{name}: {option.name} must be one of {', '.join(choices)}; got {got}")
    if kind in (int, float):
        _check_number(config, name, option, kind, value)
    elif get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)) or len(value) != len(parts):
            raise ValueError(f"{name}: {option.name} must be {len(parts)} numbers; got {shown(repr(value), 100)}")
        for part, part_kind in zip(value, parts, strict=True):
            _check_number(config, name, option, part_kind, part)
    elif not choices and not isinstance(value, classes := _classes(kind)):
        expected = " or ".join(KINDS.get(c, f"a {c.__name__}") for c in classes)
        raise TypeError(f"{name}: {option.name} must be {expected}; got {shown(repr(value), 100)}")


def _classes(kind: Any) -> tuple[type, ...]:
    """The classes that a type hint names, for isinstance."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(get_origin(part) or part for part in parts)


def _check_number(config: Any, name: str, option: Field[Any], kind: type, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        expected, got = "a number" if kind is float else "an int", shown(repr(value), 100)
        raise TypeError(f"{name}: {option.name} must be {expected}; got {got}")
    bounds = option.metadata
    low = getattr(config, bounds["ge"]) if isinstance(bounds.get("ge"), str) else bounds.get("ge")
    above, high, below = bounds.get("gt"), bounds.get("le"), bounds.get("lt")
    fits = (low is None or value >= low) and (above is None or value > above)
    fits = fits and (high is None or value <= high) and (below is None or value < below)
    if not (fits and -LARGEST <= value <= LARGEST):
        expected = _int_range(value, low, high) if kind is int else _range(low, above, high, below)
        raise ValueError(f"{name}: {option.name} must be {expected}; got {shown(repr(value), 100)}")


def _int_range(value: float, low: float | None, high: float | None) -> str:
    return (
        f"at least {low}"
        if low is not None and value < low
        else "a finite number"
        if high is None
        else f"at most {high}"
    )


def _range(low: float | None, above: float | None, high: float | None, below: float | None) -> str:
    if low is None and above is None:
        return "a finite number" if high is None else f"a finite number of at most {high:g}"
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
