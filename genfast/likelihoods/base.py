"""The interface of a likelihood: `p(x | parameters)` of the values of a pixel, and how to draw from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genfast import _registry
from genfast.random.levels import level_dtype

# name -> class; filled by `register_likelihood`.
LIKELIHOODS: dict[str, type[Likelihood]] = {}


def register_likelihood(cls: type[Likelihood]) -> type[Likelihood]:
    """Class decorator: makes the class known to `likelihood(cls.name, ...)` and to every option that names one."""
    _registry.add(LIKELIHOODS, "likelihood", cls.name, cls, cls.__module__)
    return cls


@dataclass(frozen=True)
class Likelihood(ABC):
    """`p(x | parameters)` of images x, levels 0 .. L-1 [B, C, H, W], given parameters [B, P, H, W].

    A pixel takes `draws` draws, one after the other. Each has `P / draws` of the parameters, in order. An
    autoregressive model computes the parameters of a draw from the draws before it.

    Attributes:
        channels, levels: C and L.
        name: of the likelihood, in options and files.
        case: its number in csrc/engine/pixel_program.h and kernels/pixel_program.py; None: only PyTorch can draw it.
        numbers: random numbers per draw.
        decodes: whether a decoder of a `VAE` may have it.
        is_density: whether it is a density, whose draws are rounded to levels.
        expected_is_exact: whether `expected` is the mean of the levels.
        takes_evidence: whether levels can be weighted by the likelihood of an observation, see `draw_levels`.
        output_orders: the orders of the output of a foreign model that it can read: name -> function of the likelihood
            -> int64 [P], the output that each parameter is; or None where the outputs are in the order of the
            parameters.
    Raises: ValueError for images that it does not fit.
    """

    channels: int
    levels: int

    name: ClassVar[str]
    case: ClassVar[int | None] = None
    numbers: ClassVar[int] = 1
    decodes: ClassVar[bool] = True
    is_density: ClassVar[bool] = False
    expected_is_exact: ClassVar[bool] = False
    takes_evidence: ClassVar[bool] = True
    output_orders: ClassVar[dict[str, Callable[[Any], np.ndarray] | None]] = {}

    @classmethod
    def of(cls, channels: int, levels: int, mixtures: int) -> Likelihood:
        """The likelihood of such images; `mixtures` is for those that mix."""
        return cls(channels, levels)

    @classmethod
    def of_output(cls, channels: int, levels: int, count: int) -> Likelihood | None:
        """The likelihood whose parameters `count` outputs of a pixel can be; None if they cannot."""
        fits = cls._fits(channels, levels) and cls(channels, levels).parameters == count
        return cls(channels, levels) if fits else None

    @classmethod
    def _fits(cls, channels: int, levels: int) -> bool:
        return True

    @classmethod
    def expected_outputs(cls, channels: int, levels: int) -> str:
        """The number of outputs that a pixel must have, as text for an error."""
        return str(cls(channels, levels).parameters) if cls._fits(channels, levels) else "other"

    @property
    @abstractmethod
    def parameters(self) -> int:
        """P, how many parameters a pixel has."""

    @property
    def couples_channels(self) -> bool:
        """Whether the channels of a pixel depend on one another given its parameters."""
        return False

    @property
    def draws(self) -> int:
        """The draws of a pixel: one for each channel, or one for all channels together."""
        return self.channels

    @property
    def components(self) -> int:
        """K, of a mixture."""
        return 1

    @property
    def counts(self) -> list[int]:
        """The parameters of each draw."""
        return [self.parameters // self.draws] * self.draws

    def drawn_channels(self, draw: int) -> slice:
        """The channels that a draw makes."""
        return slice(draw, draw + 1) if self.draws > 1 or self.channels == 1 else slice(0, self.channels)

    def per_channel(self, parameters: Tensor) -> Tensor:
        """[B, P, H, W] as [B, C, P / C, H, W] if every channel has its own parameters; else unchanged."""
        return parameters.unflatten(1, (self.channels, -1))

    @abstractmethod
    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        """Negative log-likelihood in nats per image, [B], in float32 or wider.

        `weight`: [B, C, H, W] as `bernoulli_nll` takes it. Coupled channels of a pixel must have equal weights (else
        ValueError). A density is made comparable with probabilities: that of the scaled level times the distance of two
        levels, 2 / (L - 1).
        """

    def customary_nll(self, x: Tensor, parameters: Tensor) -> Tensor:
        """`nll` in float64 as the losses in common use compute it; where they approximate, it differs from `nll`."""
        return self.nll(x, parameters.double())

    @abstractmethod
    def expected(self, parameters: Tensor) -> Tensor:
        """The mean as levels, float [B, C, H, W], 0 to L - 1."""

    @abstractmethod
    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        """Images [B, C, H, W], levels, drawn from the parameters; image i depends on (seed, first + i) alone."""

    @abstractmethod
    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        """Levels of one draw of a pixel, computed in float64: [n, channels of the draw].

        Args:
            parameters: [n, P / draws].
            u: float64 [numbers, n, channels of the draw].
            evidence: [n, L] or None: level l has the weight p_T(l) * exp(evidence[l]).
        """

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        """log p, float64 [n, W], of levels [n, W, channels of a draw], given its parameters [n, W, P / draws]."""
        return self.log_probabilities(parameters).gather(-1, values.long())[..., 0]

    def log_probabilities(self, parameters: Tensor, temperature: float = 1.0) -> Tensor:
        """The log-probabilities of all levels of one draw, float64 [..., L]; only if `takes_evidence`."""
        raise NotImplementedError(f"{self.name}: expected a likelihood whose levels can be listed")

    def log_evidence(self, parameters: Tensor, temperature: float, evidence: Tensor) -> Tensor:
        """log of the sum over the levels of p_T(l) exp(evidence[l]), of `evidence` [n, W, L]: [n, W]."""
        return (self.log_probabilities(parameters, temperature) + evidence).logsumexp(-1)

    def log_levels(self, parameters: Tensor) -> Tensor:
        """log p(x_i = l | parameters) of every value and level, float [B, C, H, W, L], where channels are independent.

        Each pixel is scored as an image of its own, once for each level.
        """
        n, _, height, width = parameters.shape
        pixels = parameters.permute(0, 2, 3, 1).reshape(n * height * width, -1, 1, 1)
        of_each = []
        for channel in range(self.channels):
            x = torch.zeros(pixels.shape[0], self.channels, 1, 1, dtype=level_dtype(self.levels), device=pixels.device)
            weight = None
            if self.channels > 1:
                weight = torch.zeros_like(x, dtype=torch.bool)
                weight[:, channel] = True
            for level in range(self.levels):
                of_each.append(-self.nll(x.fill_(level), pixels, weight))
        shape = self.channels, self.levels, n, height, width
        return torch.stack(of_each).view(shape).permute(2, 0, 3, 4, 1)

    def scaled(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Levels as numbers in [-1, 1]."""
        return x.to(dtype) * (2 / (self.levels - 1)) - 1


def wide(parameters: Tensor) -> Tensor:
    """Parameters in float32 at least: sums over an image would overflow half types."""
    return parameters.to(torch.promote_types(parameters.dtype, torch.float32))
