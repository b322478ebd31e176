"""The aggregate posterior in plain PyTorch: the specification of `genfast.ops.aggregate_posterior`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast.reference._kinks import clamp
from genfast.reference._spec import Inputs, Sizes, Spec, normal
from genfast.reference.gaussian_latent import HIGHEST, LOWEST


def aggregate_posterior_ref(z: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """`z` [N, Z], `mean` and `log_variance` [M, Z] -> log sum over the M Gaussians of their density at z [N], and of
    that of every latent alone [N, Z]; half precision is computed in float32."""
    z, mean, log_variance = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (z, mean, log_variance))
    log_variance = clamp(log_variance, LOWEST, HIGHEST)
    distance = (z[:, None] - mean) ** 2 * (-log_variance).exp()
    log_density = -0.5 * (math.log(2 * math.pi) + log_variance + distance)
    return log_density.sum(2).logsumexp(1), log_density.logsumexp(1)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {
        "z": normal(generator, sizes["B"], sizes["Z"]),
        "mean": normal(generator, sizes["M"], sizes["Z"]),
        "log_variance": normal(generator, sizes["M"], sizes["Z"]),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BMZ", values))


SPEC = Spec(
    name="aggregate_posterior",
    reference=aggregate_posterior_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1),
        _sizes(3, 5, 2),
        _sizes(16, 16, 8),
        _sizes(17, 19, 5),
        _sizes(7, 33, 3),
        _sizes(65, 2, 7),
        _sizes(5, 70, 20),
        _sizes(40, 40, 1),
        _sizes(0, 4, 3),
    ),
    gradcheck=(_sizes(3, 4, 2), _sizes(1, 2, 3)),
    bench={"B=256 L=64": _sizes(256, 256, 64), "B=128 L=10": _sizes(128, 128, 10)},
    compiled=(_sizes(100, 100, 130),),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    batched=("z",),
    paper="Isolating Sources of Disentanglement in VAEs, Chen et al. 2018, equation 5, arXiv 1802.04942",
    ranges={"Z": range(1, 12), "M": range(1, 40)},
)
