"""Draws of a prior N(0, I) over latent vectors, in blocks that do not depend on how images are split."""

import torch

from genfast import ops
from genfast.engine.decoder import BLOCK
from genfast.random.streams import PRIOR


def prior_blocks(n, latent, *, seed, first, labels, device):
    """The latents of images first .. first + n - 1, a block at a time: `(begin, z, labels, part)`.

    A block is the images begin .. begin + BLOCK - 1: z float32 [BLOCK, Z], where z of image i depends on (seed, i)
    alone; their labels int64 [BLOCK], those asked for repeated at either end, or None; `part`, the slice of the block
    that was asked for.
    """
    start = first // BLOCK * BLOCK
    blocks = range(start, first + n, BLOCK)
    mean = torch.zeros(len(blocks) * BLOCK, latent, device=device)
    z, _ = ops.gaussian_latent(mean, mean, seed, start, first_sample=PRIOR)
    if labels is not None and n:
        labels = labels[torch.arange(start - first, start - first + len(z), device=device).clamp(0, n - 1)]
    for begin, part in zip(blocks, z.split(BLOCK), strict=True):
        chosen = None if labels is None else labels[begin - start : begin - start + BLOCK]
        yield begin, part, chosen, slice(max(0, first - begin), first + n - begin)
