"""Markov chains over images whose limit is a model's distribution given some of the values, or noisy ones.

With g_i(x_i) the likelihood of what was observed of value i (1 without an observation), a step proposes to redraw a
block S of unknown values: it runs through the image in raster order, keeps x_i outside S, and inside S draws

    x'_i ~ p(x'_i | x'_<i) g_i(x'_i) / Z_i(x'_<i),  where  Z_i(x_<i) = sum over v of p(v | x_<i) g_i(v).

The target is p(x) g(x). In the ratio of Metropolis and Hastings, target times probability of the way back over target
times probability of the way there, p g cancels inside S, where the Z stay, and g outside, where x' = x:

    ratio = product outside S of p(x_i | x'_<i) / p(x_i | x_<i)  times  product inside S of Z_i(x'_<i) / Z_i(x_<i).

A mixture of logistics does not compute the sum over levels. It proposes from p alone, and g_i(x'_i) / g_i(x_i) takes
the place of Z_i(x'_<i) / Z_i(x_<i).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genfast.engine.engine import Engine
from genfast.engine.request import SampleRequest
from genfast.random import uniform
from genfast.random.streams import CHAIN_ELEMENT, NUMBERS_OF_A_STEP, chain_draw

KINDS = ("all", "window", "pixel")
# Probabilities of a block of all unknown values, and of those in a square window; else it is one pixel.
SHARES = (0.1, 0.45)
# Steps whose random numbers are computed at once: for each step alone they would take longer than a small model.
AHEAD = 32


class Chains:
    """One chain for each image.

    Args:
        engine: `Engine`.
        request: with given and known values, and the evidence log g or None; image b uses the random numbers of
            (seed, first + b).
        chain: number of the chain, of several for an image.

    Attributes: images, levels [n, C, H, W], the present state; accepted and proposed, blocks of each of `KINDS`.
    """

    def __init__(self, engine: Engine, request: SampleRequest, chain: int = 0) -> None:
        self.engine, self.request, self.chain = engine, request, chain
        given: Tensor | Any = request.given
        known: Tensor | Any = request.known
        self.evidence: Tensor | Any = request.evidence
        self.unknown: Tensor = ~known
        self.indices = request.first + torch.arange(request.n, device=given.device, dtype=torch.int64)
        self.by_prior = self.evidence is not None and not engine.network.likelihood.takes_evidence
        if self.by_prior:
            self.request = replace(request, evidence=None)
        self.ahead: tuple[int, Tensor] | None = None
        self.accepted, self.proposed = torch.zeros(2, len(KINDS), dtype=torch.int64, device="cpu")
        if self.by_prior:
            assert self.evidence is not None
            # A draw from the prior would be a start far from the observation.
            given = torch.where(known, given, self.evidence.argmax(-1).to(given.dtype))
            known = torch.ones_like(known)
        self.images, self.log_probs, self.weights = self._propose(given, known, 0)
        self.moving = self._before_known() if self.evidence is None else self.unknown.flatten(1).any(1)

    def step(self, number: int) -> None:
        """Propose a block for every image, and accept or reject it; `number` is 1, 2, ..."""
        *choice, decision = self._uniforms(number)
        block, kind = self._block(*choice)
        images, log_probs, weights = self._propose(self.images, ~block, number)
        inside = block[:, : log_probs.shape[1]]
        ratio = torch.where(inside, weights - self.weights, log_probs - self.log_probs).flatten(1).sum(1)
        taken = ((decision + 2**-25).log() < ratio) & self.moving
        pick = taken[:, None, None, None]
        self.images = torch.where(pick, images, self.images)
        self.log_probs = torch.where(pick, log_probs, self.log_probs)
        self.weights = torch.where(pick, weights, self.weights)
        self.proposed += kind[self.moving].bincount(minlength=len(KINDS)).cpu()
        self.accepted += kind[taken].bincount(minlength=len(KINDS)).cpu()

    def _propose(self, given: Tensor, known: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Proposed images, log p, and the weights of values inside a block: the last two [n, draws, H, W]."""
        want = ("log_probs",) if self.request.evidence is None else ("log_probs", "log_evidence")
        draw = chain_draw(self.chain, number)
        drawn = self.engine.execute(replace(self.request, given=given, known=known, draw=draw, want=want))
        # Between two levels of probability zero the difference must be 0, but -inf - -inf is NaN.
        log_probs = drawn.log_probs.nan_to_num(neginf=-1e30)
        if self.by_prior:
            weights = self.evidence.gather(-1, drawn.images[..., None].long())[..., 0].double().sum(1, keepdim=True)
        else:
            weights = torch.zeros_like(log_probs) if self.evidence is None else drawn.log_evidence
        return drawn.images, log_probs, weights

    def _before_known(self) -> Tensor:
        """Which images have an unknown value before a known one; for the others a proposal is an exact draw."""
        unknown = self.unknown.permute(0, 2, 3, 1).flatten(1)
        likelihood = self.engine.network.likelihood
        unknown = unknown[:, :: likelihood.channels // likelihood.draws]
        return (unknown[:, :-1] & ~unknown[:, 1:]).any(1)

    def _block(self, u: Tensor, place: Tensor, size: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The block to redraw, bool [n, C, H, W], and its kind, [n]; the choice does not depend on the state."""
        n, _, height, width = self.unknown.shape
        open_pixels = self.unknown.any(1).flatten(1)
        kind = (u >= SHARES[0]).long() + (u >= sum(SHARES))
        rank = (place * open_pixels.sum(1)).long()
        place = (open_pixels.cumsum(1) > rank[:, None]).int().argmax(1)
        side = 2 + (size * (max(height, width) // 2)).long()
        offset = (shift * side * side).long()
        side, offset = torch.where(kind == 1, side, 1), torch.where(kind == 1, offset, 0)
        top, left = place // width - offset // side, place % width - offset % side
        row, column = (torch.arange(size, device=place.device, dtype=torch.int64) for size in (height, width))
        rows = (row >= top[:, None]) & (row < (top + side)[:, None])
        columns = (column >= left[:, None]) & (column < (left + side)[:, None])
        window = rows[:, :, None] & columns[:, None, :] | (kind == 0)[:, None, None]
        return self.unknown & window[:, None], kind

    def _uniforms(self, number: int) -> Tensor:
        """The random numbers of a step, except those of the engine: float64 [5, n]."""
        begin = number - number % AHEAD
        if self.ahead is None or self.ahead[0] != begin:
            steps = chain_draw(self.chain, begin) + torch.arange(AHEAD, device=self.indices.device, dtype=torch.int64)
            elements = CHAIN_ELEMENT + torch.arange(NUMBERS_OF_A_STEP, device=self.indices.device, dtype=torch.int64)
            self.ahead = begin, uniform(self.request.seed, self.indices, elements[:, None], steps[:, None, None])
        return self.ahead[1][number - begin]
