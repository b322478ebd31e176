"""Usage of a codebook."""

from __future__ import annotations

import torch
from torch import Tensor


def codebook_use(codes: Tensor, count: int) -> tuple[float, float]:
    """Usage of a codebook of K by a set of codes.

    Args: codes (integers of any shape, 0 to K - 1), count (K).
    Returns: (share, perplexity): the share of the K codes that occur, 0 to 1; the exponential of the entropy of their
        frequencies, 1 to K.
    Raises: ValueError for a code out of range.
    """
    codes = codes.flatten().cpu()
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < count:
        raise ValueError(f"codebook_use: codes must lie in 0..{count - 1}; got {int(codes.min())}..{int(codes.max())}")
    counts = torch.bincount(codes, minlength=count).double()
    shares = counts / counts.sum().clamp(min=1)
    return float((counts > 0).double().mean()), float(torch.special.entr(shares).sum().exp())
