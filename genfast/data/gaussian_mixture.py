"""Mixtures of Gaussians: data of known density, to check the measures of a GAN."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class GaussianMixture:
    """Equally frequent Gaussians of one standard deviation.

    Between a mixture p as the data and a mixture q as the generator the optimal discriminator is known: its logit is
    `p.log_prob(x) - q.log_prob(x)` (Goodfellow et al. 2014, proposition 1, arXiv 1406.2661).

    Args:
        means: float [K, D].
        deviation: above 0.
    """

    def __init__(self, means: Tensor, deviation: float) -> None:
        if means.ndim != 2 or not len(means) or not deviation > 0:
            got = f"{tuple(means.shape)} and {deviation}"
            raise ValueError(f"GaussianMixture: expected means [K, D] and a deviation above 0; got {got}")
        self.means, self.deviation = means, deviation

    @classmethod
    def ring(cls, modes: int = 8, radius: float = 1.0, deviation: float = 0.05) -> GaussianMixture:
        """`modes` means on a circle around the origin, the first at (radius, 0)."""
        angles = 2 * math.pi / modes * torch.arange(modes, dtype=torch.float32, device="cpu")
        return cls(radius * torch.stack((angles.cos(), angles.sin()), 1), deviation)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Samples, float [n, D], and the component of each, int64 [n]. `generator` None: torch's global one."""
        settings: Any = {"generator": generator, "device": "cpu" if generator is None else generator.device}
        modes = torch.randint(len(self.means), (n,), dtype=torch.int64, **settings).to(self.means.device)
        noise = torch.randn(n, self.means.shape[1], dtype=torch.float32, **settings).to(self.means.device)
        return self.means[modes] + self.deviation * noise, modes

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density of points: float [N, D] -> [N]."""
        k, d = self.means.shape
        squares = (x[:, None] - self.means.to(x)).square().sum(2)
        constant = math.log(k) + d * math.log(self.deviation * math.sqrt(2 * math.pi))
        return (-squares / (2 * self.deviation**2)).logsumexp(1) - constant

    def modes(self, x: Tensor, within: float = 4.0) -> Tensor:
        """The nearest component of each point, float [N, D] -> int64 [N]; -1 where it is farther away than `within`
        standard deviations."""
        distance, nearest = torch.cdist(x, self.means.to(x)).min(1)
        return nearest.where(distance <= within * self.deviation, -1)
