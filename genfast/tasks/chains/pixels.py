"""Markov chains over images whose limit is a model's distribution given some of the values, or noisy ones.

With g_i(x_i) the likelihood of what was observed of value i (1 without an observation), a step proposes to redraw a
block S of unknown values: it runs through the image in raster order, keeps x_i outside S, and inside S draws

    x'_i ~ p(x'_i | x'_<i) g_i(x'_i) / Z_i(x'_<i),  where  Z_i(x_<i) = sum over v of p(v | x_<i) g_i(v).

The target is p(x) g(x). In the ratio of Metropolis and Hastings, target times probability of the way back over target
times probability of the way there, p g cancels inside S, where the Z stay, and g outside, where x' = x:

    ratio = product outside S of p(x_i | x'_<i) / p(x_i | x_<i)  times  product inside S of Z_i(x'_<i) / Z_i(x_<i).

A mixture of logistics has no sum over levels at hand: it proposes from p alone, and g_i(x'_i) / g_i(x_i) stands in the
place of Z_i(x'_<i) / Z_i(x_<i).
"""

import torch

from genfast.random.philox import uniform

KINDS = ("all", "window", "pixel")
# How often a block is all unknown values, or those of a square window, or else of one pixel.
SHARES = (0.1, 0.45)
# Chains of one image, and steps of one chain, have numbers of their own: draw = chain * MOST_STEPS + step.
MOST_CHAINS, MOST_STEPS = 64, 2**24
# Elements that no pixel has, from this one on: what chooses a block (its kind, place, side, offset) and decides on it.
ELEMENT, NUMBERS = 2**32 - 5, 5
# Steps whose random numbers are made at once: those of one step alone would take longer than a small model's images.
AHEAD = 32


class Chains:
    """One chain for each image.

    Args:
        engine: `Engine`.
        given, known: uint8 and bool [n, C, H, W].
        seed, first: of the random numbers; image b has those of (seed, first + b).
        labels: int64 [n] or None.
        evidence: float32 [n, C, H, W, L], log g, or None.
        chain: which of several chains of an image.

    Attributes: images, uint8 [n, C, H, W], the present state; accepted and proposed, blocks of each of `KINDS`.
    """

    def __init__(self, engine, given, known, *, seed, first=0, labels=None, evidence=None, chain=0):
        self.engine, self.unknown, self.evidence = engine, ~known, evidence
        self.seed, self.first, self.labels, self.chain = seed, first, labels, chain
        self.indices = first + torch.arange(len(given), device=given.device)
        self.by_prior = evidence is not None and engine.network.head == "mixture"
        self.ahead = None
        self.accepted, self.proposed = torch.zeros(2, len(KINDS), dtype=torch.int64)
        if self.by_prior:
            # A draw from the prior alone would begin far from what was observed.
            given = torch.where(known, given, evidence.argmax(-1).to(torch.uint8))
            known = torch.ones_like(known)
        self.images, self.log_probs, self.weights = self._propose(given, known, 0)
        self.moving = self._before_known() if evidence is None else self.unknown.flatten(1).any(1)

    def step(self, number):
        """Propose a block for every image, and take it or not; `number` is 1, 2, ..."""
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

    def _propose(self, given, known, number):
        """Images, and the maps [n, draws, H, W] of log p and of what stands inside a block."""
        evidence = None if self.by_prior else self.evidence
        want = ("log_probs",) if evidence is None else ("log_probs", "log_evidence")
        drawn = self.engine._run(
            len(given), seed=self.seed, first=self.first, labels=self.labels, given=given, known=known,
            evidence=evidence, draw=self.chain * MOST_STEPS + number, want=want,
        )  # fmt: skip
        # Two levels of probability zero are equally likely, which -inf - -inf is not.
        log_probs = drawn.log_probs.nan_to_num(neginf=-1e30)
        if self.by_prior:
            weights = self.evidence.gather(-1, drawn.images[..., None].long())[..., 0].double().sum(1, keepdim=True)
        else:
            weights = torch.zeros_like(log_probs) if evidence is None else drawn.log_evidence
        return drawn.images, log_probs, weights

    def _before_known(self):
        """Which images have an unknown value before a known one: the others are drawn exactly by one proposal."""
        unknown = self.unknown.permute(0, 2, 3, 1).flatten(1)
        if self.engine.network.head == "mixture":
            unknown = unknown[:, :: self.unknown.shape[1]]
        return (unknown[:, :-1] & ~unknown[:, 1:]).any(1)

    def _block(self, u, place, size, shift):
        """Values to redraw, bool [n, C, H, W], and the kind of block, [n]; the choice looks at no image."""
        n, _, height, width = self.unknown.shape
        open_pixels = self.unknown.any(1).flatten(1)
        kind = (u >= SHARES[0]).long() + (u >= sum(SHARES))
        rank = (place * open_pixels.sum(1)).long()
        place = (open_pixels.cumsum(1) > rank[:, None]).int().argmax(1)
        side = 2 + (size * (max(height, width) // 2)).long()
        offset = (shift * side * side).long()
        side, offset = torch.where(kind == 1, side, 1), torch.where(kind == 1, offset, 0)
        top, left = place // width - offset // side, place % width - offset % side
        row, column = (torch.arange(size, device=place.device) for size in (height, width))
        rows = (row >= top[:, None]) & (row < (top + side)[:, None])
        columns = (column >= left[:, None]) & (column < (left + side)[:, None])
        window = rows[:, :, None] & columns[:, None, :] | (kind == 0)[:, None, None]
        return self.unknown & window[:, None], kind

    def _uniforms(self, number):
        """The random numbers of a step beside those of the engine: float64 [NUMBERS, n]."""
        begin = number - number % AHEAD
        if self.ahead is None or self.ahead[0] != begin:
            steps = self.chain * MOST_STEPS + begin + torch.arange(AHEAD, device=self.indices.device)
            elements = ELEMENT + torch.arange(NUMBERS, device=self.indices.device)
            self.ahead = begin, uniform(self.seed, self.indices, elements[:, None], steps[:, None, None])
        return self.ahead[1][number - begin]


def rates(accepted, proposed):
    """Acceptance by kind of block, of the kinds that were proposed: a dict of floats."""
    return {kind: a / p for kind, a, p in zip(KINDS, accepted.tolist(), proposed.tolist()) if p}
