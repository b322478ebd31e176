"""A vector to subtract from both sides of a distance, where scores cancel because the data lie far from the origin."""

from __future__ import annotations

import torch
from torch import Tensor


def centre_of(y: Tensor, least: float = 2.0) -> Tensor:
    """The mean of the rows of `y` [M, D], M at least 1, [D] in the dtype of y; a coordinate whose mean is less than
    `least` standard deviations from 0, or no finite number, is 0.

    Data near the origin keep their bits, and one huge row does not shift the others. The mean is rounded to a multiple
    of a power of two not above the deviation: differences of whole numbers stay exact, and equal distances equal.
    """
    y = y.detach()
    wide = y.double()
    # From the first row: a column of one value has a deviation of exactly 0.
    wide = wide - wide[0]
    mean = wide.mean(0)
    deviation = (wide - mean).square().mean(0).sqrt()
    mean = mean + y[0]
    grid = torch.ldexp(torch.ones_like(mean), torch.frexp(deviation).exponent - 1)
    rounded = (mean / grid).round() * grid
    mean = torch.where((deviation > 0) & rounded.isfinite(), rounded, mean)
    return torch.where((mean.abs() >= least * deviation) & mean.isfinite(), mean, 0.0).to(y.dtype)
