"""Draws of a prior N(0, I) over latent vectors, in blocks that do not depend on how images are split."""

import torch

from genfast import ops
from genfast.models._images import BLOCK

# The draw of the prior's numbers: pixels take numbers of the same images from the other end, and noise the last two.
PRIOR_DRAW = 2**32 - 3


def prior_blocks(n, latent, *, seed, first, labels, device):
    """The latents of images first .. first + n - 1, a block at a time: `(begin, z, labels, part)`.

    A block is the images begin .. begin + BLOCK - 1: z float32 [BLOCK, Z], where z of image i depends on (seed, i)
    alone; their labels int64 [BLOCK], those asked for repeated at either end, or None; `part`, the slice of the block
    that was asked for.
    """
    for begin in range(first // BLOCK * BLOCK, first + n, BLOCK):
        mean = torch.zeros(BLOCK, latent, device=device)
        z, _ = ops.gaussian_latent(mean, mean, seed, begin, first_sample=PRIOR_DRAW)
        chosen = None
        if labels is not None:
            place = torch.arange(begin - first, begin - first + BLOCK, device=device).clamp(0, n - 1)
            chosen = labels[place]
        yield begin, z, chosen, slice(max(0, first - begin), first + n - begin)
