"""The discretised mixture of logistics in plain PyTorch: the specification of `genfast.ops.logistic_mixture_nll` and
`logistic_mixture_sample`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from genfast.random.philox import uniform
from genfast.reference._kinks import clamp
from genfast.reference._spec import Inputs, Sizes, Spec, normal

LOWEST_LOG_SCALE = -7.0


def logistic_mixture_nll_ref(x: Tensor, params: Tensor, levels: int) -> Tensor:
    """Negative log-likelihood of images under a mixture of logistics, integrated over the bin of each level.

    `x` uint8 [B, C, H, W], `params` [B, 3K or 10K, H, W] for C = 1 or 3; returns nats per image [B],
    float32 for half precision.
    Positions are in half bins, so that the edges of bins are whole numbers: level v of L is 2v - (L - 1), which
    is L - 1 times the pixel scaled to [-1, 1]; its bin ends at the position +- 1.
    """
    params = params.to(torch.promote_types(params.dtype, torch.float32))
    log_weights, means, log_scales, coefficients = split_params(params, x.shape[1])
    position = 2 * x.to(params.dtype)[:, :, None] - (levels - 1)
    means = (levels - 1) * means
    if coefficients is not None:
        means = means + coupling(coefficients, position)
    half_bin = torch.exp(-log_scales) / (levels - 1)
    upper, lower = half_bin * (position + 1 - means), half_bin * (position - 1 - means)
    log_width = math.log(2 / (levels - 1)) - log_scales
    lowest, highest = position == 1 - levels, position == levels - 1
    # The mass of a bin is sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - e^(a - b)), in which nothing cancels.
    # The bin of the lowest level begins, and that of the highest ends, at infinity.
    log_mass = (
        logsigmoid(upper).masked_fill(highest, 0)
        + logsigmoid(-lower).masked_fill(lowest, 0)
        + log_one_minus_exp(log_width).masked_fill(lowest | highest, 0)
    )
    log_prob = torch.logsumexp(log_weights.log_softmax(1) + log_mass.sum(1), 1)
    return -log_prob.sum((1, 2))


def logistic_mixture_sample_ref(
    params: Tensor,
    levels: int,
    seed: int,
    first_index: int = 0,
    temperature: float = 1.0,
    first_element: int = 0,
    channels: int | None = None,
) -> Tensor:
    """Draw images, in float64. Returns uint8 [B, C, H, W]; the arguments are those of `logistic_mixture_sample`."""
    batch, _, height, width = params.shape
    count = channels_of(params, channels)
    if count is None:
        raise ValueError(f"logistic_mixture_sample: channels must fit params {tuple(params.shape)}; got {channels}")

    def u(draw: int) -> Tensor:
        """[B, C, H, W]"""
        image = first_index + torch.arange(batch, device=params.device).view(-1, 1, 1, 1)
        place = torch.arange(height * width * count, device=params.device).view(height, width, count)
        return uniform(seed % 2**64, image, first_element + place.permute(2, 0, 1), draw)

    return inverse_mixture(params, levels, u(0)[:, :1], u(1), temperature)


def inverse_mixture(params: Tensor, levels: int, component_u: Tensor, channel_u: Tensor, temperature: float) -> Tensor:
    """The levels, uint8 [B, C, H, W], that random numbers [B, 1, H, W] and [B, C, H, W] stand for, in float64."""
    channels = channel_u.shape[1]
    log_weights, means, log_scales, coefficients = split_params(params.double(), channels)
    cumulative = ((log_weights - log_weights.amax(1, keepdim=True)) / temperature).exp().cumsum(1)
    component = (cumulative[:, :-1] <= component_u * cumulative[:, -1:]).sum(1, keepdim=True)[:, None]
    mean, log_scale = (p.gather(2, component.expand(-1, channels, -1, -1, -1))[:, :, 0] for p in (means, log_scales))
    # The middle of the 2^-24 that a number stands for: neither 0 nor 1.
    spread = temperature * log_scale.exp() * torch.logit(channel_u + 2**-25)
    positions: list[Tensor] = []
    for c in range(channels):
        centre = (levels - 1) * mean[:, c]
        if c and coefficients is not None:
            of_component = coefficients.gather(2, component.expand(-1, 3, -1, -1, -1))[:, :, 0]
            centre = centre + sum(of_component[:, c - 1 + i] * positions[i] for i in range(c))
        level = (((levels - 1) * spread[:, c] + centre + levels) / 2).floor().clamp(0, levels - 1)
        positions.append(2 * level - (levels - 1))
    return ((torch.stack(positions, 1) + (levels - 1)) / 2).to(torch.uint8)


def split_params(params: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """[B, P, H, W] -> logits of the components [B, K, H, W]; means, log-scales (at least -7), coefficients or None,
    [B, C, K, H, W]."""
    size = params.shape[1] // (3 if channels == 1 else 10)
    log_weights, rest = params[:, :size], params[:, size:].unflatten(1, (-1, size))
    means, log_scales = rest[:, :channels], clamp(rest[:, channels : 2 * channels], LOWEST_LOG_SCALE)
    return log_weights, means, log_scales, rest[:, 6:].tanh() if channels == 3 else None


def coupling(coefficients: Tensor, position: Tensor) -> Tensor:
    """What the channels before shift the means of each channel by: G sees R, B sees R and G."""
    red, green = position[:, 0], position[:, 1]
    on_green, on_blue, green_on_blue = coefficients.unbind(1)
    return torch.stack((torch.zeros_like(on_green), on_green * red, on_blue * red + green_on_blue * green), 1)


def log_one_minus_exp(log_width: Tensor) -> Tensor:
    """log(1 - e^-w) of log(w), also where w is too small or too large for the dtype."""
    small = log_width < -40  # there it is log(w) - w/2, and w/2 is under the rounding of float64
    width = clamp(log_width, -40).exp()
    return torch.where(small, log_width, torch.log(-torch.expm1(-width)))


def channels_of(params: Tensor, channels: int | None = None) -> int | None:
    """The C that P stands for: the one given, else the only one that fits. None if there is not one."""
    fitting = [c for c, per_component in ((1, 3), (3, 10)) if params.shape[1] and params.shape[1] % per_component == 0]
    if channels is None:
        return fitting[0] if len(fitting) == 1 else None
    return channels if channels in fitting else None


def _params(sizes: Sizes, generator: torch.Generator) -> Tensor:
    batch, channels, size, height, width = (sizes[k] for k in "BCKHW")
    params = normal(generator, batch, (3 if channels == 1 else 10) * size, height, width)
    # Scales of a few bins, means within the range of pixels: every kind of level has a share of the mass.
    params[:, size : (1 + channels) * size] *= 0.6
    params[:, (1 + channels) * size : (1 + 2 * channels) * size] -= 1
    return params


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, channels, levels, height, width = (sizes[k] for k in "BCLHW")
    x = torch.randint(levels, (batch, channels, height, width), generator=generator, dtype=torch.uint8)
    return {"x": x, "params": _params(sizes, generator), "levels": levels}


def _make_sample(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {
        "params": _params(sizes, generator),
        "levels": sizes["L"],
        "seed": 2**63 - 5,
        "first_index": 3,
        "temperature": 0.9,
        "first_element": 0,
        "channels": sizes["C"],
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCKLHW", values))


SHAPES = (
    _sizes(1, 1, 1, 2, 1, 1),
    _sizes(3, 3, 1, 2, 1, 7),
    _sizes(2, 1, 3, 256, 7, 1),
    _sizes(5, 3, 5, 256, 3, 11),
    _sizes(2, 1, 16, 3, 11, 5),
    _sizes(3, 3, 10, 16, 4, 4),
    _sizes(17, 1, 2, 255, 5, 3),
    _sizes(33, 3, 2, 5, 2, 3),
    _sizes(2, 3, 3, 256, 17, 31),
    _sizes(0, 1, 4, 8, 3, 4),
    _sizes(2, 3, 1, 7, 0, 4),
    _sizes(2, 1, 2, 4, 3, 0),
)
_LETTERS = {"C": (1, 3), "K": range(1, 12), "L": range(2, 257)}
_PAPER = "PixelCNN++, Salimans et al. 2017, section 2.1, equations 2 and 3, arXiv 1701.05517"
_BENCH = {
    "B=16 3x32x32 K=10 L=256": _sizes(16, 3, 10, 256, 32, 32),
    "B=64 1x28x28 K=5 L=256": _sizes(64, 1, 5, 256, 28, 28),
}

SPEC = Spec(
    name="logistic_mixture_nll",
    reference=logistic_mixture_nll_ref,
    make=_make,
    shapes=SHAPES,
    gradcheck=(_sizes(2, 3, 2, 4, 2, 3), _sizes(1, 1, 3, 2, 3, 2)),
    bench=_BENCH,
    gradients="every order in params, deterministic; the first is native, the higher ones run the reference",
    paper=_PAPER,
    batched=("x", "params"),
    ranges=_LETTERS,
)

SAMPLER = Spec(
    name="logistic_mixture_sample",
    reference=logistic_mixture_sample_ref,
    make=_make_sample,
    shapes=SHAPES,
    gradcheck=(_sizes(2, 3, 2, 4, 2, 3), _sizes(1, 1, 3, 2, 3, 2)),
    bench=_BENCH,
    gradients="none",
    kind="sampler",
    paper=_PAPER,
    ranges=_LETTERS,
)
