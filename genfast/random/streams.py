"""Which random numbers serve what: every stream number of the package in one table.

A random number has four coordinates (seed, image, element, draw), see `genfast.random.uniform`. A stream is a rectangle
of elements and draws; the rectangles are disjoint, so that no two purposes within one call share a number.
"""

from __future__ import annotations

from dataclasses import dataclass

# Draws of one value: number `chain * MOST_STEPS + step` is that of a step of a Markov chain; 0 is a plain sample. A
# mixture takes two numbers for one draw.
MOST_CHAINS, MOST_STEPS = 64, 2**24
NUMBERS_OF_A_STEP = 5


@dataclass(frozen=True)
class Stream:
    """The numbers of one purpose: those whose element and draw lie in these ranges."""

    elements: range
    draws: range

    def meets(self, other: Stream) -> bool:
        """Whether both streams have a number in common."""
        return _meet(self.elements, other.elements) and _meet(self.draws, other.draws)


def _meet(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


ELEMENTS, CHAIN_ELEMENTS = range(2**32 - NUMBERS_OF_A_STEP), range(2**32 - NUMBERS_OF_A_STEP, 2**32)
STREAMS = {
    # The values of an image; a translation, which draws none, takes them for its dropout (layer = draw).
    "values": Stream(ELEMENTS, range(2 * MOST_CHAINS * MOST_STEPS)),
    # Which block a chain over values redraws, and whether it keeps the result.
    "chain": Stream(CHAIN_ELEMENTS, range(2 * MOST_CHAINS * MOST_STEPS)),
    # Latents of a posterior. Were they those of "values", an image that a model drew would be scored by the very
    # numbers that drew it.
    "posterior": Stream(range(2**32), range(2**31, 2**32 - 3)),
    "prior": Stream(range(2**32), range(2**32 - 3, 2**32 - 2)),
    # Noise that is added to images, and random masks: two numbers a value.
    "noise": Stream(range(2**32), range(2**32 - 2, 2**32)),
}
POSTERIOR, PRIOR = STREAMS["posterior"].draws.start, STREAMS["prior"].draws.start
NOISE, SECOND_NOISE = STREAMS["noise"].draws
CHAIN_ELEMENT = CHAIN_ELEMENTS.start
# Seeds of the steps of a chain over latents come from an image that no sample has: number 2**64 - 1.
SEED_IMAGE_HALF = 0xFFFFFFFF


def chain_draw(chain: int, step: int) -> int:
    """The draw of a step of a chain: chain in 0 .. MOST_CHAINS - 1, step in 0 .. MOST_STEPS - 1."""
    return chain * MOST_STEPS + step
