"""Markov chains over latents and images whose limit is the distribution of a model given observations.

The state is (z, x). The target is p(z) p(x | z) g(x), where g is the evidence: for imputation 1 if x agrees with the
known values and else 0, for denoising p(observed | x) of a model of the noise. Each part of a step leaves the target
invariant:

1. "posterior": propose z' ~ q(z | x), and accept with probability min(1, p(z') p(x | z') q(z | x) / (p(z) p(x | z)
   q(z' | x))): Metropolis within Gibbs (Mattei and Frellsen 2018, arXiv 1802.04826, section 3.2).
2. "walk": propose z' = sqrt(1 - b^2) z + b e with e ~ N(0, I), which leaves p(z) invariant, and accept with probability
   min(1, G(z') / G(z)), where G(z) = sum over x of p(x | z) g(x). Here x is summed out, so it does not slow z down. For
   each latent, b is a random factor times the standard deviation of a fixed posterior: small if the latent is well
   determined.
3. x ~ p(x | z) g(x) / G(z), value by value.

A Gaussian likelihood is a density for the known values, but draws are rounded to levels. For imputation, part 1 then
proposes z' and, as in 3, x' together, and accepts both by the ratio p(z') G(z') q(z | x') / (p(z) G(z) q(z' | x)).

Part 1 with every proposal accepted, and 3, without 2, are pseudo-Gibbs (Rezende et al. 2014, arXiv 1401.4082, appendix
F). Its limit is right only if q is the exact posterior. It is the warm-up of every chain.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genfast import ops
from genfast.engine.protocols import LatentModel
from genfast.random import philox4x32, uniform
from genfast.random.levels import level_dtype
from genfast.random.streams import NOISE, SEED_IMAGE_HALF

KINDS = ("posterior", "walk")
# Range of the factors of the walk, log-uniform.
FACTORS = 0.2, 2.0
# Warm-up by pseudo-Gibbs steps: from an arbitrary start, few of the first proposals would be accepted.
WARM_UP = 20
# The purposes of the random numbers of a step: latents and values of proposals, values, and decisions.
PURPOSES = POSTERIOR, PROPOSAL, WALK, VALUES, CHOICES = range(5)
# Steps whose seeds are computed at once: one by one they would take longer than a small model.
AHEAD = 64


class Known:
    """The evidence of exactly known values: `images`, levels, where `known`, both [n, C, H, W]."""

    def __init__(self, model: LatentModel, images: Tensor, known: Tensor) -> None:
        self.likelihood, self.images, self.known = model.likelihood, images, known
        self.rounds = model.likelihood.is_density

    def start(self, seed: int, first: int) -> Tensor | None:
        """The initial images, or None: drawn from the model."""
        return None

    def log_evidence(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log G of each image, [n]."""
        return -self.likelihood.nll(self.images, parameters, self.known)

    def draw(self, parameters: Tensor, x: Tensor | None, seed: int, first: int) -> Tensor:
        """Images from p(x | z) g(x)."""
        return torch.where(self.known, self.images, self.likelihood.draw(parameters, seed, first))


class Noisy:
    """The evidence of noisy values: `evidence`, log p(observed | level), float32 [n, C, H, W, L].

    If the channels of a pixel are coupled given z, the sum over all their levels is too expensive. Then z walks given
    x, and a pixel is proposed from p(x | z) and accepted with probability min(1, g(x') / g(x)).
    """

    rounds = False

    def __init__(self, model: LatentModel, evidence: Tensor) -> None:
        self.likelihood, self.log_g = model.likelihood, evidence

    def start(self, seed: int, first: int) -> Tensor | None:
        """The initial images: the likeliest level of each value."""
        return self.log_g.argmax(-1).to(level_dtype(self.likelihood.levels))

    def log_evidence(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log G of each image, [n]; log p(x | z) for coupled channels."""
        if self.likelihood.couples_channels:
            return -self.likelihood.nll(x, parameters)
        return (self.likelihood.log_levels(parameters) + self.log_g).logsumexp(-1).double().flatten(1).sum(1)

    def draw(self, parameters: Tensor, x: Tensor | Any, seed: int, first: int) -> Tensor:
        """Images from p(x | z) g(x); for coupled channels a Metropolis step from x."""
        image = first + torch.arange(len(x), device=x.device, dtype=torch.int64).view(-1, 1, 1, 1)
        _, channels, height, width = x.shape
        place = torch.arange(channels * height * width, dtype=torch.int64, device=x.device)
        place = place.view(height, width, channels).permute(2, 0, 1)
        if self.likelihood.couples_channels:
            proposed = self.likelihood.draw(parameters, seed, first)
            ratio = (self._g(proposed) - self._g(x)).sum(1, keepdim=True)
            u = uniform(seed, image, place[:1], NOISE)
            return torch.where((u + 2**-25).log() < ratio, proposed, x)
        u = uniform(seed, image, place)
        beyond = self.levels(parameters).double().cumsum(-1) <= u[..., None]
        return beyond.sum(-1).clamp(max=self.likelihood.levels - 1).to(level_dtype(self.likelihood.levels))

    def levels(self, parameters: Tensor) -> Tensor:
        """The probability of each level given z and the observation, [n, C, H, W, L]."""
        return (self.likelihood.log_levels(parameters) + self.log_g).softmax(-1)

    def _g(self, x: Tensor) -> Tensor:
        return self.log_g.gather(-1, x[..., None].long())[..., 0].double()


class LatentChains:
    """One chain for each image of a batch.

    Args:
        model: `LatentModel`.
        evidence: `Known` or `Noisy`.
        n: images.
        seed, first: of the random numbers; image b has those of (seed, first + b).
        labels: int64 [n] or None.
        chain: number of the chain, of several for an image.
        exact: whether to accept or reject proposals; else every one is accepted: pseudo-Gibbs.
        warm_up: steps of pseudo-Gibbs at the start.

    Attributes: z [n, Z], x, levels [n, C, H, W], and parameters [n, P, H, W], the present state; accepted and proposed,
        int64 [2], the decisions of each of `KINDS`.
    """

    def __init__(
        self,
        model: LatentModel,
        evidence: Known | Noisy,
        n: int,
        *,
        seed: int,
        first: int = 0,
        labels: Tensor | None = None,
        chain: int = 0,
        exact: bool = True,
        warm_up: int = WARM_UP,
    ) -> None:
        self.model, self.likelihood, self.evidence, self.labels = model, model.likelihood, evidence, labels
        self.seed, self.first, self.chain, self.exact, self.warm_up = seed, first, chain, exact, warm_up
        module: Any = model
        weight = next(module.parameters())
        self.indices = first + torch.arange(n, device=weight.device, dtype=torch.int64)
        self.accepted, self.proposed = torch.zeros(2, len(KINDS), dtype=torch.int64, device="cpu")
        self.ahead: tuple[int, list[list[int]]] | None = None
        self.x: Tensor | Any = evidence.start(seed, first)
        if self.x is None:
            prior = torch.zeros(n, model.latent_size, device=weight.device, dtype=weight.dtype)
            parameters = model.decode(self._normal(prior, prior, 0, WALK), labels)
            self.x = evidence.draw(parameters, None, self._seed(0, PROPOSAL), first)
        self._move_to_posterior(0)
        self._draw(0)

    def step(self, number: int) -> None:
        """One step of every chain; `number` is 1, 2, ..."""
        if not self.exact or number <= self.warm_up:
            self._move_to_posterior(number)
        else:
            choices = torch.arange(3, device=self.indices.device, dtype=torch.int64)[:, None]
            decision, walk_decision, factor = uniform(self._seed(number, CHOICES), self.indices, choices)
            self._posterior_step(number, decision)
            self._walk_step(number, walk_decision, factor)
        self._draw(number)

    def _move_to_posterior(self, number: int) -> None:
        mean, log_variance = self.model.encode(self.x, self.labels)
        self.deviation = (log_variance / 2).exp().clamp(max=1)
        self.z = self._normal(mean, log_variance, number, POSTERIOR)
        self.parameters = self.model.decode(self.z, self.labels)

    def _posterior_step(self, number: int, decision: Tensor) -> None:
        mean, log_variance = self.model.encode(self.x, self.labels)
        z = self._normal(mean, log_variance, number, POSTERIOR)
        parameters = self.model.decode(z, self.labels)
        there = ops.gaussian_nll(z, mean, log_variance).double()
        if self.evidence.rounds:
            x = self.evidence.draw(parameters, self.x, self._seed(number, PROPOSAL), self.first)
            mean, log_variance = self.model.encode(x, self.labels)
            gain = self.evidence.log_evidence(parameters, x) - self.evidence.log_evidence(self.parameters, self.x)
        else:
            gain = (
                self.likelihood.nll(self.x, self.parameters).double() - self.likelihood.nll(self.x, parameters).double()
            )
        back = ops.gaussian_nll(self.z, mean, log_variance).double()
        ratio = _log_prior(z) - _log_prior(self.z) + gain + there - back
        self._decide(0, z, parameters, ratio, decision)

    def _walk_step(self, number: int, decision: Tensor, factor: Tensor) -> None:
        low, high = FACTORS
        factor = low * (high / low) ** factor
        b = (factor[:, None] * self.deviation).clamp(max=1).to(self.z.dtype)
        z = self._normal((1 - b.square()).sqrt() * self.z, 2 * b.log(), number, WALK)
        parameters = self.model.decode(z, self.labels)
        before = self.evidence.log_evidence(self.parameters, self.x).double()
        ratio = self.evidence.log_evidence(parameters, self.x).double() - before
        self._decide(1, z, parameters, ratio, decision)

    def _decide(self, kind: int, z: Tensor, parameters: Tensor, log_ratio: Tensor, decision: Tensor) -> None:
        taken = (decision + 2**-25).log() < log_ratio
        self.z = torch.where(taken[:, None], z, self.z)
        self.parameters = torch.where(taken[:, None, None, None], parameters, self.parameters)
        self.accepted[kind] += int(taken.sum())
        self.proposed[kind] += len(taken)

    def _draw(self, number: int) -> None:
        self.x = self.evidence.draw(self.parameters, self.x, self._seed(number, VALUES), self.first)

    def _normal(self, mean: Tensor, log_variance: Tensor, number: int, purpose: int) -> Tensor:
        return ops.gaussian_latent(mean, log_variance, self._seed(number, purpose), self.first)[0]

    def _seed(self, number: int, purpose: int) -> int:
        begin = number - number % AHEAD
        if self.ahead is None or self.ahead[0] != begin:
            self.ahead = begin, step_seeds(self.seed, self.chain, begin, AHEAD)
        return self.ahead[1][number - begin][purpose]


def step_seeds(seed: int, chain: int, begin: int, count: int) -> list[list[int]]:
    """The seeds of `count` steps from number `begin` on, one for each of `PURPOSES`: 64-bit ints.

    They are two words of Philox at a counter that no image has.
    """
    steps = begin + torch.arange(count, dtype=torch.int64, device="cpu")[:, None]
    purposes = chain * 8 + torch.tensor(PURPOSES, dtype=torch.int64, device="cpu")
    low, high, _, _ = philox4x32(
        (steps, purposes, SEED_IMAGE_HALF, SEED_IMAGE_HALF), (seed & SEED_IMAGE_HALF, seed >> 32)
    )
    pairs = zip(low.tolist(), high.tolist())
    return [[a | b << 32 for a, b in zip(*pair)] for pair in pairs]


def _log_prior(z: Tensor) -> Tensor:
    return -(z.double().square().sum(1) + z.shape[1] * math.log(2 * math.pi)) / 2
