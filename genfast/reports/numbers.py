"""Numbers as a reader and as a program gets them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def number(value: Any, digits: int = 4) -> str:
    """A number with separators of thousands, and of a float so many significant digits; other values as text.

    None and NaN are a dash.

    Example: `number(28630)` is "28,630"; `number(0.123456)` is "0.1235"
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 2}e}"
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def interval(low: float, high: float, digits: int = 3) -> str:
    """`low` to `high`, in words."""
    return f"{number(float(low), digits)} to {number(float(high), digits)}"


def plain(value: Any) -> Any:
    """A result of the package as values of JSON: of a dataclass its fields; a number that is not finite is None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
