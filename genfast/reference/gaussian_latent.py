"""The Gaussian latent variable in plain PyTorch: the specification of `genfast.ops.gaussian_latent`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.random.philox import normal
from genfast.reference._kinks import clamp
from genfast.reference._spec import Inputs, Sizes, Spec
from genfast.reference._spec import normal as random

LOWEST, HIGHEST = -30.0, 20.0  # log-variances are clamped to them


def gaussian_latent_ref(
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor,
    prior_log_variance: Tensor,
    seed: int,
    first_index: int,
    samples: int,
    first_sample: int,
    per_latent: bool,
) -> tuple[Tensor, Tensor]:
    """`mean` and `log_variance` [B, Z], the prior's [B, Z], or [0, Z] for N(0, I) -> z [B samples, Z] and the KL
    divergence, [B] or [B, Z]."""
    dtype = mean.dtype
    mean, log_variance, prior_mean, prior_log_variance = (
        t.to(torch.promote_types(dtype, torch.float32))
        for t in (mean, log_variance, prior_mean, prior_log_variance)
    )  # fmt: skip
    noise = latent_noise(mean, seed, first_index, samples, first_sample)
    log_variance = clamp(log_variance, LOWEST, HIGHEST)
    z = mean[:, None] + (0.5 * log_variance).exp()[:, None] * noise
    if len(prior_mean):
        prior_log_variance = clamp(prior_log_variance, LOWEST, HIGHEST)
        ratio = log_variance - prior_log_variance
        distance = (mean - prior_mean) ** 2 * (-prior_log_variance).exp()
    else:
        ratio, distance = log_variance, mean**2
    kl = 0.5 * (torch.expm1(ratio) - ratio + distance)
    return z.flatten(0, 1).to(dtype), kl if per_latent else kl.sum(1)


def latent_noise(like: Tensor, seed: int, first_index: int, samples: int, first_sample: int) -> Tensor:
    """Standard normal numbers [B, samples, Z] in the dtype of `like` [B, Z]: number j of sample s of image b is number
    j % 4 of the place (first_index + b, j // 4, draw first_sample + s)."""
    batch, size = like.shape
    image = first_index + torch.arange(batch, device=like.device, dtype=torch.int64)[:, None, None]
    draw = first_sample + torch.arange(samples, device=like.device, dtype=torch.int64)[:, None]
    element = torch.arange((size + 3) // 4, device=like.device, dtype=torch.int64)
    return normal(seed % 2**64, image, element, draw).flatten(2)[:, :, :size].to(like.dtype)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    shape = sizes["B"], sizes["Z"]
    prior = sizes["B"] * sizes["P"], sizes["Z"]
    return {
        "mean": random(generator, *shape),
        "log_variance": random(generator, *shape),
        "seed": 2**64 - 3,
        "first_index": 7,
        "samples": sizes["S"],
        "prior_mean": random(generator, *prior) if sizes["P"] else None,
        "prior_log_variance": random(generator, *prior) if sizes["P"] else None,
        "per_latent": bool(sizes["L"]),
        "first_sample": 5,
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BZSPL", values))


SPEC = Spec(
    name="gaussian_latent",
    reference=gaussian_latent_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 0, 0),
        _sizes(3, 7, 1, 0, 0),
        _sizes(2, 20, 3, 1, 0),
        _sizes(5, 33, 1, 0, 1),
        _sizes(4, 16, 2, 1, 1),
        _sizes(33, 5, 2, 0, 0),
        _sizes(2, 1025, 1, 0, 0),
        _sizes(17, 64, 1, 1, 0),
        _sizes(3, 19, 50, 0, 0),
        _sizes(0, 4, 2, 0, 0),
        _sizes(3, 0, 1, 0, 0),
    ),
    gradcheck=(_sizes(2, 3, 2, 0, 0), _sizes(2, 5, 1, 1, 1)),
    bench={"B=4096 Z=256": _sizes(4096, 256, 1, 0, 0), "B=128 Z=20": _sizes(128, 20, 1, 0, 0)},
    compiled=(_sizes(128, 20, 50, 1, 1),),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    batched=("mean", "log_variance"),
    paper="Auto-Encoding Variational Bayes, Kingma and Welling 2013, section 2.4 and appendix B, arXiv 1312.6114",
    ranges={"Z": range(1, 41), "S": range(1, 5), "P": (0, 1), "L": (0, 1)},
)
