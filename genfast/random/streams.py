"""Which random numbers are for what: the one table of all streams of the package.

A random number has four coordinates (seed, image, element, draw), see `genfast.random.uniform`. A stream is a rectangle
of elements and draws. The rectangles are disjoint, so no two purposes within one call share a number.
"""

from __future__ import annotations

from dataclasses import dataclass

# Coordinate `draw` of a value: `chain * MOST_STEPS + step` for a step of a Markov chain, and so 0 for a plain sample. A
# mixture takes two random numbers for each.
MOST_CHAINS, MOST_STEPS = 64, 2**24
NUMBERS_OF_A_STEP = 5


@dataclass(frozen=True)
class Stream:
    """The numbers of one purpose: those whose element and draw lie in these ranges."""

    elements: range
    draws: range

    def meets(self, other: Stream) -> bool:
        """Whether both streams have a number in common."""
        return _overlap(self.elements, other.elements) and _overlap(self.draws, other.draws)


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


ELEMENTS, CHAIN_ELEMENTS = range(2**32 - NUMBERS_OF_A_STEP), range(2**32 - NUMBERS_OF_A_STEP, 2**32)
STREAMS = {
    # The values of an image. A translation draws no values: its dropout takes these numbers, with draw = layer.
    "values": Stream(ELEMENTS, range(2 * MOST_CHAINS * MOST_STEPS)),
    # A chain over values: which block it proposes to redraw, and whether it accepts.
    "chain": Stream(CHAIN_ELEMENTS, range(2 * MOST_CHAINS * MOST_STEPS)),
    # Latents of a posterior. With the numbers of "values", a sample would be scored by the numbers that it was drawn
    # with, which biases the score.
    "posterior": Stream(range(2**32), range(2**31, 2**32 - 3)),
    "prior": Stream(range(2**32), range(2**32 - 3, 2**32 - 2)),
    # Noise that is added to images, and random masks: two numbers a value.
    "noise": Stream(range(2**32), range(2**32 - 2, 2**32)),
}
POSTERIOR, PRIOR = STREAMS["posterior"].draws.start, STREAMS["prior"].draws.start
NOISE, SECOND_NOISE = STREAMS["noise"].draws
CHAIN_ELEMENT = CHAIN_ELEMENTS.start
# Seeds of the steps of a chain over latents are the numbers of image 2**64 - 1, which no sample has.
SEED_IMAGE_HALF = 0xFFFFFFFF


def chain_draw(chain: int, step: int) -> int:
    """The draw of a step of a chain: chain in 0 .. MOST_CHAINS - 1, step in 0 .. MOST_STEPS - 1."""
    return chain * MOST_STEPS + step
