"""Discretised mixture of logistics: one for each pixel, whose R, G and B it draws together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from genfast import ops
from genfast.likelihoods.base import Likelihood, register_likelihood, wide
from genfast.reference.logistic_mixture import coupling, inverse_mixture, logistic_mixture_nll_ref, split_params

MOST_LEVELS = 256
# Parameters of a component, by the channels.
PER_COMPONENT = {1: 3, 3: 10}


@register_likelihood
@dataclass(frozen=True)
class LogisticMixture(Likelihood):
    """P = 3K for grey and 10K for colour, as `logistic_mixture_nll` reads them.

    Attributes:
        mixtures: K.
    """

    mixtures: int = 5

    name = "mixture"
    case = 2
    numbers = 2
    takes_evidence = False
    output_orders = {
        "mixture": None,
        "mixture-per-channel": lambda likelihood: likelihood.places(per_channel=True),
        "mixture-interleaved": lambda likelihood: likelihood.places(per_channel=False),
    }

    def __post_init__(self) -> None:
        if self.channels not in PER_COMPONENT or self.mixtures < 1:
            got = f"{self.channels} and {self.mixtures}"
            raise ValueError(f"likelihood mixture must have 1 or 3 channels and at least 1 mixture; got {got}")
        if self.levels > MOST_LEVELS:
            raise ValueError(f"likelihood mixture must have at most {MOST_LEVELS} levels; got {self.levels}")

    @classmethod
    def of(cls, channels: int, levels: int, mixtures: int) -> LogisticMixture:
        return cls(channels, levels, mixtures)

    @classmethod
    def of_output(cls, channels: int, levels: int, count: int) -> LogisticMixture | None:
        fits = cls._fits(channels, levels) and count > 0 and count % PER_COMPONENT[channels] == 0
        return cls(channels, levels, count // PER_COMPONENT[channels]) if fits else None

    @classmethod
    def _fits(cls, channels: int, levels: int) -> bool:
        return channels in PER_COMPONENT and levels <= MOST_LEVELS

    @classmethod
    def expected_outputs(cls, channels: int, levels: int) -> str:
        return "3K or 10K" if levels <= MOST_LEVELS else f"at most {MOST_LEVELS} levels and 3K or 10K"

    @property
    def parameters(self) -> int:
        return PER_COMPONENT[self.channels] * self.mixtures

    def places(self, *, per_channel: bool) -> np.ndarray:
        """Where other orders have each parameter, int64 [P].

        per_channel: the order of PixelCNN++: the K logits; then, channel by channel, K means, K log-scales and K
        coefficients (R: G on R, G: B on R, B: B on G). Else interleaved: component by component its logit, means,
        log-scales and coefficients.
        """
        size, channels = self.mixtures, self.channels
        component = np.arange(size)
        kinds = self.parameters // size  # parameters of a component
        if not per_channel:
            return np.concatenate([component * kinds + kind for kind in range(kinds)])
        of_channel = (kinds - 1) // channels * size
        blocks = [
            size + channel * of_channel + kind * size
            for kind in range(of_channel // size)
            for channel in range(channels)
        ]
        return np.concatenate([component, *(block + component for block in blocks)])

    @property
    def couples_channels(self) -> bool:
        return self.channels > 1

    @property
    def draws(self) -> int:
        return 1

    @property
    def components(self) -> int:
        return self.mixtures

    def per_channel(self, parameters: Tensor) -> Tensor:
        return parameters

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        parameters = wide(parameters)
        if weight is None:
            return ops.logistic_mixture_nll(x, parameters, self.levels)
        if self.couples_channels and not torch.equal(weight, weight[:, :1].expand_as(weight)):
            expected = "equal over the channels of a pixel, which a mixture couples"
            raise ValueError(f"nll: weight must be {expected}; got a pixel with several weights")
        nll, weight = self._nll_of_pixels(x, parameters), weight[:, 0]
        return torch.where(weight == 0, 0, weight * nll).flatten(1).sum(1)

    def customary_nll(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Where a level has a probability under 1e-5, its density times the width of a level stands for it: in float32
        a difference of two sigmoids would be all rounding. The exact value differs by 1e-4 to 1e-2 nats a value."""
        log_weights, means, log_scales, coefficients = split_params(parameters.double(), self.channels)
        value = self.scaled(x, torch.float64)[:, :, None]
        if coefficients is not None:
            means = means + coupling(coefficients, value)
        middle, half = (value - means) / log_scales.exp(), 1 / ((self.levels - 1) * log_scales.exp())
        below, above = (middle - half).sigmoid(), (middle + half).sigmoid()
        density = middle - log_scales - 2 * softplus(middle) + math.log(2 / (self.levels - 1))
        log_mass = torch.where(above - below > 1e-5, (above - below).clamp(min=1e-12).log(), density)
        levels = x[:, :, None]
        log_mass = torch.where(levels == self.levels - 1, logsigmoid(half - middle), log_mass)
        log_mass = torch.where(levels == 0, logsigmoid(middle + half), log_mass)
        return -torch.logsumexp(log_weights.log_softmax(1) + log_mass.sum(1), 1).flatten(1).sum(1)

    def _nll_of_pixels(self, x: Tensor, parameters: Tensor) -> Tensor:
        """[B, H, W]: every pixel as an image of its own."""
        shape = x[:, 0].shape
        x, parameters = (t.movedim(1, -1).flatten(0, 2)[:, :, None, None] for t in (x, parameters))
        return ops.logistic_mixture_nll(x, parameters, self.levels).view(shape)

    def expected(self, parameters: Tensor) -> Tensor:
        """The mean as levels, float [B, C, H, W]: that of the continuous mixture, clamped to 0 .. L - 1."""
        top = self.levels - 1
        log_weights, means, _, coefficients = split_params(parameters, self.channels)
        if coefficients is not None:  # the mean of a channel is shifted by the channels before it
            red, green, blue = means.unbind(1)
            green = green + coefficients[:, 0] * red
            means = torch.stack((red, green, blue + coefficients[:, 1] * red + coefficients[:, 2] * green), 1)
        position = (log_weights.softmax(1)[:, None] * means).sum(2)
        return ((position + 1) * (top / 2)).clamp(0, top)

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        return ops.logistic_mixture_sample(wide(parameters), self.levels, seed, first, temperature, 0, self.channels)

    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        component, channels = u[:, :, :, None, None]
        parameters = parameters[:, :, None, None]
        return inverse_mixture(parameters, self.levels, component[:, :1], channels, temperature)[:, :, 0, 0]

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        n, width = values.shape[:2]
        x, params = (t.flatten(0, 1)[:, :, None, None] for t in (values, parameters.double()))
        return -logistic_mixture_nll_ref(x, params, self.levels).view(n, width)
