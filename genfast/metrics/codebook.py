"""How evenly a codebook is used."""

import torch


def codebook_use(codes, count):
    """What a set of codes uses of a codebook of K.

    Args: codes (integers of any shape, 0 to K - 1), count (K).
    Returns: (share, perplexity): of the K codes the share that occurs, 0 to 1; exp of the entropy of how often each
        does, 1 to K, as many equally frequent codes would give it.
    Raises: ValueError for a code that is none.
    """
    codes = codes.flatten().cpu()
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < count:
        raise ValueError(f"codebook_use: codes must lie in 0..{count - 1}; got {int(codes.min())}..{int(codes.max())}")
    counts = torch.bincount(codes, minlength=count).double()
    shares = counts / counts.sum().clamp(min=1)
    return float((counts > 0).double().mean()), float(torch.special.entr(shares).sum().exp())
