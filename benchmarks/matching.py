"""Whether what was measured computes what the reference computes, in the same run and at the same sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Of the largest value: sums of many terms round, and the error scales with what they come to.
ALLOWED = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 4e-3}
# Whole numbers: where float32 and float64 see a tie otherwise, the draw or the code is the neighbour.
FEW = 5e-3


@dataclass(frozen=True)
class Match:
    """Whether a result is that of the reference, and the largest difference from it, relative to its largest value."""

    matches: bool
    difference: float


def match(
    got: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype = torch.float32, slack: float = 1.0
) -> Match:
    """Results by name against those of the reference, which are in a higher precision if there is one.

    The difference is relative to the largest value of a result; of whole numbers it is the share that differ.
    `dtype`: that of the computation; `slack`: how many times as far as the rounding of one they may be.
    """
    worst, matches = 0.0, got.keys() == expected.keys()
    for name in got.keys() & expected.keys():
        difference, allowed = _difference(got[name].detach(), expected[name].detach(), dtype)
        worst, matches = max(worst, difference), matches and difference <= slack * allowed
    return Match(matches, worst)


def _difference(got: Tensor, expected: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """How far a result is off, and how far it may be."""
    if got.shape != expected.shape:
        return math.inf, 0.0
    if not got.numel():
        return 0.0, 0.0
    if not got.is_floating_point():
        return float((got != expected).double().mean()), FEW
    off = (got.double() - expected.double()).abs() / max(1.0, float(expected.abs().max()))
    worst = float(torch.where(off.isnan(), torch.inf, off).max())
    return worst, ALLOWED[dtype]


def named(values: Iterable[Any]) -> dict[str, Tensor]:
    """Tensors among values, by their numbers."""
    return {str(number): value for number, value in enumerate(values) if isinstance(value, Tensor)}
