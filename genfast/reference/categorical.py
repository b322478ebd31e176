"""The categorical likelihood and sampler in plain PyTorch: the specification of `genfast.ops.categorical`.

Logits are [B, N, L, ...]: N places before the levels and any number after them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genfast.random import inverse_cdf, uniform
from genfast.reference._spec import Inputs, Sizes, Spec, normal


def categorical_nll_ref(x: Tensor, logits: Tensor) -> Tensor:
    """`x`, levels [B, N, ...], `logits` [B, N, L, ...] -> nats per image [B], float32 for half precision."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = wide.log_softmax(2).gather(2, x[:, :, None].long())
    return -log_probs.flatten(1).sum(1)


def categorical_sample_ref(
    logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int
) -> Tensor:
    """`logits` [B, N, L, ...] -> levels [B, N, ...]: the one at which the distribution function passes u."""
    logits = logits.movedim(2, -1)
    return inverse_cdf(logits, place_uniform(logits[..., 0], seed, first_index, first_element), temperature)


def place_uniform(like: Tensor, seed: int, first_index: int, first_element: int) -> Tensor:
    """The random numbers of every place (n, m) of `like` [B, N, ...]: its element is m N + n, so that with N colours
    before the pixels, as with nothing after them, pixels count in raster order and colours inside a pixel."""
    batch, places, *inner = like.shape
    image = first_index + torch.arange(batch, device=like.device, dtype=torch.int64)
    pixels = torch.arange(torch.Size(inner).numel(), device=like.device, dtype=torch.int64)
    element = first_element + pixels * places + torch.arange(places, device=like.device, dtype=torch.int64)[:, None]
    return uniform(seed % 2**64, image[:, None, None], element).view(like.shape)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, channels, levels, height, width = (sizes[k] for k in "BCLHW")
    shape = (batch, channels, height, width)
    return {
        "x": torch.randint(levels, shape, generator=generator, dtype=torch.uint8, device="cpu"),
        "logits": normal(generator, batch, channels, levels, height, width, scale=2.0),
    }


def _make_sample(sizes: Sizes, generator: torch.Generator) -> Inputs:
    settings = {"seed": 2**64 - 3, "first_index": 7, "temperature": 0.75, "first_element": 11}
    return {"logits": _make(sizes, generator)["logits"], **settings}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCLHW", values))


_COMMON: dict[str, Any] = {
    "shapes": (
        _sizes(1, 1, 2, 1, 1),
        _sizes(3, 3, 5, 1, 7),
        _sizes(2, 1, 256, 7, 1),
        _sizes(2, 3, 16, 5, 13),
        _sizes(2, 1, 17, 8, 8),
        _sizes(3, 2, 31, 3, 5),
        _sizes(2, 3, 255, 3, 3),
        _sizes(33, 1, 2, 4, 4),
        _sizes(3, 3, 33, 6, 11),
        _sizes(0, 3, 4, 2, 2),
        _sizes(2, 3, 4, 0, 2),
    ),
    "gradcheck": (_sizes(2, 2, 3, 2, 2), _sizes(1, 1, 2, 3, 1)),
    "bench": {
        "B=16 3x32x32 L=256": _sizes(16, 3, 256, 32, 32),
        "B=64 1x28x28 L=256": _sizes(64, 1, 256, 28, 28),
    },
    "compiled": (_sizes(64, 1, 2, 28, 28), _sizes(64, 1, 5, 28, 28)),
    "ranges": {"B": range(4), "C": range(1, 4), "L": (2, 3, 4, 7, 15, 16, 17, 33, 64, 255, 256)},
}
_PAPER = "Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 2.2, arXiv 1601.06759"

SPEC = Spec(
    name="categorical_nll",
    reference=categorical_nll_ref,
    make=_make,
    gradients="every order in logits, deterministic; the first is native, the higher ones run the reference",
    batched=("x", "logits"),
    paper=_PAPER,
    **_COMMON,
)
SAMPLER = Spec(
    name="categorical_sample",
    reference=categorical_sample_ref,
    make=_make_sample,
    gradients="none",
    kind="sampler",
    paper=_PAPER,
    **_COMMON,
)
