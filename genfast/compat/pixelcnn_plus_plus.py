"""The losses and samplers of PyTorch ports of PixelCNN++, in their order of parameters.

A network of such a port gives 10 K numbers for a colour pixel: K logits; then for R, G and B in turn K means, K
log-scales and K coefficients; and 3 K for a grey one: K logits, K means, K log-scales. Pixels are the 256 levels scaled
to [-1, 1], 2 level / 255 - 1.

Two things are more exact than in the ports. Where a level has a probability under 1e-5, they take its density times the
width of a level, in the place of the probability: 1e-4 to 1e-2 nats a value. They draw a number in [-1, 1], here it is
one of the 256 levels, and the next channel is drawn given that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genfast import ops
from genfast.nn.gaussian_latent import drawn_seed

__all__ = [
    "discretized_mix_logistic_loss",
    "discretized_mix_logistic_loss_1d",
    "sample_from_discretized_mix_logistic",
    "sample_from_discretized_mix_logistic_1d",
]
LEVELS = 256


def discretized_mix_logistic_loss(x: Tensor, l: Tensor, sum_all: bool = True) -> Tensor:
    """Negative log-likelihood of colour images: `genfast.logistic_mixture_nll`.

    Args:
        x: float [B, 3, H, W] in [-1, 1], each value one of the 256 levels; no gradient.
        l: float [B, 10 K, H, W], of the network.
        sum_all: True: of the batch, []; False: of each image, [B].
    Returns: nats; float32, or float64 for float64.
    Raises: ValueError for a shape that does not fit, or a value of x that is none of the levels; TypeError for x in a
        half type, which does not hold them.
    Paper: PixelCNN++, Salimans et al. 2017, section 2.1, arXiv 1701.05517.
    Example: `discretized_mix_logistic_loss(images * 2 - 1, network(images * 2 - 1))`
    """
    return _loss("discretized_mix_logistic_loss", x, _blocks("discretized_mix_logistic_loss", l), 3, sum_all)


def discretized_mix_logistic_loss_1d(x: Tensor, l: Tensor, sum_all: bool = True) -> Tensor:
    """`discretized_mix_logistic_loss` of grey images: x [B, 1, H, W], l [B, 3 K, H, W]."""
    return _loss("discretized_mix_logistic_loss_1d", x, l, 1, sum_all)


def sample_from_discretized_mix_logistic(l: Tensor, nr_mix: int, seed: int | None = None) -> Tensor:
    """Colour images drawn from a mixture: `genfast.logistic_mixture_sample`.

    Args:
        l: float [B, 10 K, H, W].
        nr_mix: K.
        seed: int in [0, 2**64); None: from torch's CPU generator, so that `torch.manual_seed` holds.
    Returns: [B, 3, H, W] in [-1, 1], each value one of the 256 levels, of the dtype of l.
    Raises: ValueError for a number of parameters that is not 10 K.
    """
    name = "sample_from_discretized_mix_logistic"
    _check_count(name, l, 10 * nr_mix)
    return _sample(_blocks(name, l), 3, seed, l.dtype)


def sample_from_discretized_mix_logistic_1d(l: Tensor, nr_mix: int, seed: int | None = None) -> Tensor:
    """`sample_from_discretized_mix_logistic` of grey images: l [B, 3 K, H, W] -> [B, 1, H, W]."""
    _check_count("sample_from_discretized_mix_logistic_1d", l, 3 * nr_mix)
    return _sample(l, 1, seed, l.dtype)


def _loss(name: str, x: Tensor, params: Tensor, channels: int, sum_all: bool) -> Tensor:
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name}: x must have shape [B, {channels}, H, W]; got {tuple(x.shape)}")
    if x.requires_grad:
        raise ValueError(f"{name}: x must not require a gradient, as it has none; got one that does")
    nll = ops.logistic_mixture_nll(_levels(name, x), params, LEVELS)
    return nll.sum() if sum_all else nll


def _levels(name: str, x: Tensor) -> Tensor:
    """The levels that values in [-1, 1] stand for."""
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: x must be float32 or float64, which hold {LEVELS} levels exactly; got {x.dtype}")
    scaled = (x.float() + 1) * ((LEVELS - 1) / 2)
    levels = scaled.round()
    good = ((scaled - levels).abs() <= 0.01) & (levels >= 0) & (levels < LEVELS)  # not where it is NaN
    if not torch.compiler.is_compiling() and not bool(good.all()):
        raise ValueError(
            f"{name}: x must hold the {LEVELS} levels scaled to [-1, 1], 2 level / 255 - 1; got others: is it scaled "
            "otherwise, or has noise been added?"
        )
    return levels.to(torch.uint8)


def _blocks(name: str, l: Tensor) -> Tensor:
    """From means, log-scales and coefficients of a channel to those of all channels, block by block."""
    if l.ndim != 4 or l.shape[1] % 10 or not l.shape[1]:
        raise ValueError(f"{name}: l must have shape [B, 10 K, H, W] with K>=1; got {tuple(l.shape)}")
    size = l.shape[1] // 10
    rest = l[:, size:].unflatten(1, (3, 3, size)).transpose(1, 2)
    return torch.cat((l[:, :size], rest.flatten(1, 3)), 1)


def _check_count(name: str, l: Tensor, expected: int) -> None:
    if l.ndim != 4 or l.shape[1] != expected:
        raise ValueError(f"{name}: l must have shape [B, {expected}, H, W] for this nr_mix; got {tuple(l.shape)}")


def _sample(params: Tensor, channels: int, seed: int | None, dtype: torch.dtype) -> Tensor:
    seed = drawn_seed() if seed is None else seed
    drawn = ops.logistic_mixture_sample(params.detach(), LEVELS, seed, channels=channels)
    return (drawn.to(torch.float32) * (2 / (LEVELS - 1)) - 1).to(dtype)
