"""Random orders, by torch's generator."""

from __future__ import annotations

import torch
from torch import Tensor


def permutation(n: int, seed: int) -> Tensor:
    """The numbers below n in the random order of a seed: int64 [n], on the CPU."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randperm(n, generator=generator, dtype=torch.int64, device="cpu")
