"""The Gaussian likelihood in plain PyTorch: the specification of `genfast.ops.gaussian`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast.reference._kinks import clamp
from genfast.reference._spec import Inputs, Sizes, Spec, normal
from genfast.reference.gaussian_latent import HIGHEST, LOWEST


def gaussian_nll_ref(x: Tensor, mean: Tensor, log_variance: Tensor, weight: Tensor | None = None) -> Tensor:
    """`x`, `mean`, `log_variance` and `weight` [B, ...], the weight None or empty for ones -> nats per image [B]."""
    x, mean, log_variance = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, mean, log_variance))
    x, mean, log_variance = present(weight, x, mean, log_variance)
    log_variance = clamp(log_variance, LOWEST, HIGHEST)
    nats = 0.5 * (math.log(2 * math.pi) + log_variance + (x - mean) ** 2 * (-log_variance).exp())
    return weighted(nats, weight).reshape(x.shape[0], x.shape[1:].numel()).sum(1)


def present(weight: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with 0 where the weight is 0: whatever stands there, a NaN too, has no part in sums and gradients."""
    if weight is None or weight.shape != tensors[0].shape:
        return tensors
    return tuple(torch.where(weight > 0, tensor, 0) for tensor in tensors)


def weighted(nats: Tensor, weight: Tensor | None) -> Tensor:
    """`nats` times `weight`, or as they are if there is none."""
    return nats if weight is None or weight.shape != nats.shape else nats * weight.to(nats.dtype)


def make_weight(kind: int, generator: torch.Generator, *shape: int) -> Tensor | None:
    """A weight for a test: none for 0, bytes 0 and 1 for 1."""
    return torch.randint(2, shape, generator=generator, dtype=torch.uint8, device="cpu") if kind else None


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    shape = tuple(sizes[k] for k in "BCHW")
    return {
        "x": normal(generator, *shape),
        "mean": normal(generator, *shape),
        "log_variance": normal(generator, *shape),
        "weight": make_weight(sizes["M"], generator, *shape),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCHWM", values))


SPEC = Spec(
    name="gaussian_nll",
    reference=gaussian_nll_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 0),
        _sizes(3, 3, 1, 7, 1),
        _sizes(2, 1, 7, 1, 0),
        _sizes(2, 3, 19, 18, 1),
        _sizes(2, 1, 32, 32, 0),
        _sizes(3, 2, 3, 5, 1),
        _sizes(1, 1, 25, 41, 1),
        _sizes(33, 1, 4, 4, 0),
        _sizes(5, 3, 29, 31, 0),
        _sizes(0, 3, 2, 2, 0),
        _sizes(2, 3, 0, 2, 1),
    ),
    gradcheck=(_sizes(2, 2, 2, 2, 0), _sizes(1, 1, 3, 1, 1)),
    bench={"B=256 3x64x64": _sizes(256, 3, 64, 64, 0), "B=64 1x28x28": _sizes(64, 1, 28, 28, 0)},
    compiled=(_sizes(256, 3, 64, 64, 1),),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    batched=("x", "mean", "log_variance", "weight"),
    paper="Auto-Encoding Variational Bayes, Kingma and Welling 2013, appendix C.2, arXiv 1312.6114",
    ranges={"M": (0, 1)},
)
