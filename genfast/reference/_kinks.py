"""Functions with a kink, whose derivative there is stated here: torch's own changes with its version.

Each is a choice between smooth functions, and differentiates to any order, forward and backward. A NaN stays one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clamp(x: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """The nearest of [low, high]: the derivative is 1 in it, at both ends too, and 0 outside."""
    return torch.where((x >= low) & (x <= high), x, x.detach().clamp(low, high))


def relu(x: Tensor) -> Tensor:
    """0 for negative values: the derivative at 0 is 0."""
    return torch.where(x <= 0, x.detach().relu(), x)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """`slope * x` for negative values: the derivative at 0 is `slope`."""
    return torch.where(x > 0, x, slope * x)


def absolute(x: Tensor) -> Tensor:
    """|x|: the derivative at 0 is 0."""
    return x * x.detach().sign()
