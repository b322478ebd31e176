"""Models of noise, independent for each value of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genfast.engine.arguments import as_levels, check_count, check_integers
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
        """Noisy levels [n, C, H, W], uint8 up to 256 of them, else int32, of integers [n, C, H, W].

        Number b depends on (seed, first + b).
        """
        images = _levels("BitFlipNoise", images, levels)
        hit, which = _uniforms(images, seed, first)
        shift = 1 + (which * (levels - 1)).to(torch.int64)
        return torch.where(hit < self.p, (images + shift) % levels, images.to(torch.int64)).to(images.dtype)

    def log_likelihood(self, noisy: Tensor, levels: int) -> Tensor:
        """log p(noisy value | level), for every level: integers [n, C, H, W] -> float32 [n, C, H, W, L]."""
        noisy = _levels("BitFlipNoise", noisy, levels)
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
        """Noisy images, float32 [n, C, H, W], of integers [n, C, H, W]: level / (L - 1) plus noise, not clipped."""
        images = _levels("GaussianNoise", images, levels)
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


def _levels(call: str, images: Any, levels: int) -> Tensor:
    images = check_integers(call, "images", images)
    if images.dim() != 4:
        raise TypeError(f"{call}: images must have shape [n, C, H, W]; got {tuple(images.shape)}")
    return as_levels(call, "images", images, levels)
