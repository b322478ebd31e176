"""The Bernoulli likelihood and sampler in plain PyTorch: the specification of `genfast.ops.bernoulli`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from genfast.random import inverse_cdf
from genfast.reference._spec import Inputs, Sizes, Spec, normal
from genfast.reference.categorical import place_uniform
from genfast.reference.gaussian import make_weight, present, weighted


def bernoulli_nll_ref(x: Tensor, logits: Tensor, weight: Tensor | None = None) -> Tensor:
    """`x` in [0, 1], `logits` and `weight`, all [B, ...], the weight None or empty for ones -> nats per image [B]; half
    precision is summed in float32.

    An infinite logit costs nothing where it is right: a term of weight 0 is left out.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    x, wide = present(weight, x.to(wide.dtype), wide)
    one = torch.where(x > 0, x * logsigmoid(wide), 0)
    zero = torch.where(x < 1, (1 - x) * logsigmoid(-wide), 0)
    return -weighted(one + zero, weight).flatten(1).sum(1)


def bernoulli_sample_ref(logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> Tensor:
    """`logits` [B, N, ...] -> uint8 0 or 1 of the same shape: whether u passes the probability of 0."""
    return inverse_cdf(logits[..., None], place_uniform(logits, seed, first_index, first_element), temperature)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    shape = tuple(sizes[k] for k in "BCHW")
    return {
        "x": torch.randint(2, shape, generator=generator, dtype=torch.uint8, device="cpu"),
        "logits": normal(generator, *shape, scale=3.0),
        "weight": make_weight(sizes["M"], generator, *shape),
    }


def _make_sample(sizes: Sizes, generator: torch.Generator) -> Inputs:
    settings = {"seed": 2**64 - 3, "first_index": 7, "temperature": 0.75, "first_element": 11}
    return {"logits": _make(sizes, generator)["logits"], **settings}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCHWM", (*values, 0) if len(values) < 5 else values))


_COMMON: dict[str, Any] = {
    "shapes": (
        _sizes(1, 1, 1, 1),
        _sizes(3, 3, 1, 7, 1),
        _sizes(2, 1, 7, 1),
        _sizes(2, 3, 19, 18, 1),
        _sizes(2, 1, 32, 32),
        _sizes(3, 2, 3, 5, 1),
        _sizes(1, 1, 25, 41),
        _sizes(33, 1, 4, 4),
        _sizes(5, 3, 29, 31),
        _sizes(0, 3, 2, 2),
        _sizes(2, 3, 0, 2),
    ),
    "gradcheck": (_sizes(2, 2, 2, 2), _sizes(1, 1, 3, 1, 1)),
    "bench": {"B=64 1x28x28": _sizes(64, 1, 28, 28), "B=16 3x32x32": _sizes(16, 3, 32, 32)},
    "compiled": (_sizes(256, 3, 64, 64, 1),),
}

SPEC = Spec(
    name="bernoulli_nll",
    reference=bernoulli_nll_ref,
    make=_make,
    gradients="every order in logits, deterministic; the first is native, the higher ones run the reference",
    batched=("x", "logits", "weight"),
    ranges={"M": (0, 1)},
    paper="Auto-Encoding Variational Bayes, Kingma and Welling 2013, appendix C.1, arXiv 1312.6114",
    **_COMMON,
)
SAMPLER = Spec(
    name="bernoulli_sample",
    reference=bernoulli_sample_ref,
    make=_make_sample,
    gradients="none",
    kind="sampler",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 5.3, arXiv 1601.06759",
    **_COMMON,
)
