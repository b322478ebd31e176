"""Models of noise, independent for each value of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genfast.engine.arguments import check_count
from genfast.random import uniform
from genfast.random.streams import NOISE, SECOND_NOISE


class Noise(Protocol):
    """A model of noise for `denoise`."""

    def corrupt(self, images: Tensor, levels: int, *, seed: int = 0, first: int = 0) -> Tensor: ...

    def log_likelihood(self, noisy: Tensor, levels: int) -> Tensor: ...

    def picture(self, noisy: Tensor, levels: int) -> Tensor: ...


@dataclass(frozen=True)
class BitFlipNoise:
    """With probability `p` a value is replaced by one of the other levels, all equally likely.

    Attributes:
        p: in (0, 1).
    Example: `BitFlipNoise(0.1).corrupt(images, levels=2)`
    """

    p: float

    def __post_init__(self) -> None:
        if not isinstance(self.p, (int, float)) or not 0 < self.p < 1:
            raise ValueError(f"BitFlipNoise: p must lie between 0 and 1; got {self.p!r}")

    def corrupt(self, images: Tensor, levels: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """Noisy images, uint8 [n, C, H, W], of levels uint8 [n, C, H, W]; number b depends on (seed, first + b)."""
        _check_levels("BitFlipNoise", images, levels)
        hit, which = _uniforms(images, seed, first)
        shift = 1 + (which * (levels - 1)).to(torch.int64)
        return torch.where(hit < self.p, (images + shift) % levels, images.to(torch.int64)).to(torch.uint8)

    def log_likelihood(self, noisy: Tensor, levels: int) -> Tensor:
        """log p(noisy value | level), for every level: uint8 [n, C, H, W] -> float32 [n, C, H, W, L]."""
        _check_levels("BitFlipNoise", noisy, levels)
        same = noisy[..., None] == torch.arange(levels, device=noisy.device, dtype=torch.int64)
        others = torch.full(same.shape, math.log(self.p / (levels - 1)), dtype=torch.float32, device=noisy.device)
        return others.masked_fill_(same, math.log1p(-self.p))

    def picture(self, noisy: Tensor, levels: int) -> Tensor:
        """The noisy values as brightness in [0, 1]."""
        return noisy.float() / (levels - 1)


@dataclass(frozen=True)
class GaussianNoise:
    """Additive normal noise of standard deviation `sigma`.

    Attributes:
        sigma: in units of the range of levels: 0 is level 0, and 1 the highest level.
    Example: `GaussianNoise(0.2).corrupt(images, levels=256)`
    """

    sigma: float

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, (int, float)) or not 0 < self.sigma < math.inf:
            raise ValueError(f"GaussianNoise: sigma must be positive and finite; got {self.sigma!r}")

    def corrupt(self, images: Tensor, levels: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """Noisy images, float32 [n, C, H, W], of levels uint8 [n, C, H, W]: level / (L - 1) plus noise, not clipped."""
        _check_levels("GaussianNoise", images, levels)
        radius, angle = _uniforms(images, seed, first)
        normal = (-2 * (radius + 2**-25).log()).sqrt() * (2 * math.pi * angle).cos()
        return (images.double() / (levels - 1) + self.sigma * normal).float()

    def log_likelihood(self, noisy: Tensor, levels: int) -> Tensor:
        """log density of the noisy value for every level: float32 [n, C, H, W] -> float32 [n, C, H, W, L]."""
        if not isinstance(noisy, torch.Tensor) or not noisy.is_floating_point() or noisy.dim() != 4:
            got = f"{noisy.dtype} {tuple(noisy.shape)}" if isinstance(noisy, torch.Tensor) else type(noisy).__name__
            raise TypeError(f"GaussianNoise: noisy must be a float tensor [n, C, H, W], 1 the highest level; got {got}")
        if not noisy.isfinite().all():
            raise ValueError("GaussianNoise: noisy must be finite; got values that are not")
        exact = torch.arange(levels, dtype=torch.float32, device=noisy.device) / (levels - 1)
        distance = noisy.double()[..., None] - exact
        return (-((distance / self.sigma) ** 2) / 2 - math.log(self.sigma * math.sqrt(2 * math.pi))).float()

    def picture(self, noisy: Tensor, levels: int) -> Tensor:
        """The noisy values as brightness, mostly in [0, 1]."""
        return noisy


def _uniforms(images: Tensor, seed: int, first: int) -> Iterator[Tensor]:
    """Two random numbers for each value, [n, C, H, W]."""
    n, channels, height, width = images.shape
    check_count("corrupt", n, first, seed)
    image = first + torch.arange(n, device=images.device, dtype=torch.int64).view(-1, 1, 1, 1)
    place = torch.arange(channels * height * width, dtype=torch.int64, device=images.device)
    place = place.view(height, width, channels)
    return (uniform(seed, image, place.permute(2, 0, 1), draw) for draw in (NOISE, SECOND_NOISE))


def _check_levels(call: str, images: Any, levels: int) -> None:
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"{call}: images must be levels, torch.uint8 [n, C, H, W]; got {got}")
    if images.numel() and (top := int(images.max())) >= levels:
        raise ValueError(f"{call}: images must lie in 0..{levels - 1}; got {top}")
