"""Samples from latents of the prior N(0, I), in blocks that do not depend on how the images are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genfast import ops
from genfast.engine.decoder import BLOCK
from genfast.engine.protocols import ImageSpec
from genfast.random.streams import PRIOR


def prior_blocks(
    n: int, latent: int, *, seed: int, first: int, labels: Tensor | None, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor | None, slice]]:
    """Latents of the images first .. first + n - 1, in blocks of `BLOCK` images: `(begin, z, labels, part)`.

    A block has the images begin .. begin + BLOCK - 1, of which the slice `part` was requested. z is float32 [BLOCK, Z];
    the latent of image i depends on (seed, i) alone. labels are int64 [BLOCK] or None; images that were not requested
    have the label of the nearest one that was.
    """
    start = first // BLOCK * BLOCK
    blocks = range(start, first + n, BLOCK)
    mean = torch.zeros(len(blocks) * BLOCK, latent, device=device, dtype=torch.float32)
    z, _ = ops.gaussian_latent(mean, mean, seed, start, first_sample=PRIOR)
    if labels is not None and n:
        places = torch.arange(start - first, start - first + len(z), dtype=torch.int64, device=device)
        labels = labels[places.clamp(0, n - 1)]
    for begin, block in zip(blocks, z.split(BLOCK), strict=True):
        block_labels = None if labels is None else labels[begin - start : begin - start + BLOCK]
        yield begin, block, block_labels, slice(max(0, first - begin), first + n - begin)


def sample_prior(
    images: Callable[[Tensor, Tensor | None, int], Tensor],
    spec: ImageSpec,
    latent: int,
    n: int,
    *,
    seed: int,
    first: int,
    temperature: float,
    labels: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Images of latents z ~ N(0, temperature^2 I), uint8 [n, C, H, W].

    Args:
        images: maps z [BLOCK, Z], labels int64 [BLOCK] or None, and the index of the first image of the block to images
            uint8 [BLOCK, C, H, W].
        spec: the format of the images.
        latent: Z.
        n, seed, first, temperature, labels: as `genfast.sample` has checked them.
        device: of the latents and the images.
    """
    parts = [torch.empty(0, *spec.shape, dtype=torch.uint8, device=device)]
    for begin, z, block_labels, part in prior_blocks(n, latent, seed=seed, first=first, labels=labels, device=device):
        parts.append(images(temperature * z, block_labels, begin)[part])
    return torch.cat(parts)
