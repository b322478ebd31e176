"""The range coder of csrc/engine/range_coder.h in exact integers of any length, in which carries happen by themselves.

An interval is (left, size): `size` parts of 2^24, from part `left` on. Words have 32 bits, in a stream the highest byte
first.
"""

import bisect

import numpy as np

PRECISION, WORD = 24, 32


def _last(intervals):
    """(lower, width, words written) of the interval in which all these lie, one within the other."""
    lower, width, count = 0, 2 ** (2 * WORD) - 1, 0  # in units of 2^-(64 + 32 count)
    for left, size in intervals:
        scale = width >> PRECISION
        lower, width = lower + scale * int(left), scale * int(size)
        if width < 2**WORD:
            lower, width, count = lower << WORD, width << WORD, count + 1
    return lower, width, count


def encode(intervals) -> bytes:
    """The number of the fewest bytes in the last interval: a fraction of 1, its highest byte first."""
    lower, width, count = _last(intervals)
    for size in range(4 * count + 9):
        unit = 2 ** (2 * WORD + WORD * count - 8 * size)
        point = -(-lower // unit)
        if point * unit < lower + width:
            return point.to_bytes(size, "big")
    raise AssertionError("the lower end of the interval itself has so many bytes")


def sealed(intervals) -> np.ndarray:
    """The words, uint32, of constriction, whose number lies in the last interval whatever words follow it."""
    intervals = list(intervals)
    lower, width, count = _last(intervals)
    if width == 2 ** (2 * WORD) - 1:
        return np.zeros(0, np.uint32)
    point = -(-lower >> WORD)  # the first one with count + 1 words; a second word where the next one lies outside
    words = point.to_bytes(4 * (count + 1), "big") + bytes(4) * ((lower + width) >> WORD == point)
    return np.frombuffer(words, ">u4").astype(np.uint32)


def decode(stream, tables) -> list[int]:
    """The symbols of a stream; of each symbol a table: its edges, ascending from 0 to 2^24."""
    words = np.frombuffer(stream + bytes(-len(stream) % 4), ">u4")
    later = iter([int(word) for word in words] + [0] * (len(tables) + 2))
    place, width, symbols = next(later) << WORD | next(later), 2 ** (2 * WORD) - 1, []  # place within the interval
    for edges in tables:
        scale = width >> PRECISION
        symbol = bisect.bisect_right(edges, min(place // scale, 2**PRECISION - 1)) - 1
        left, right = int(edges[symbol]), int(edges[symbol + 1])
        place, width = place - scale * left, scale * (right - left)
        symbols.append(symbol)
        if width < 2**WORD:
            place, width = place << WORD | next(later), width << WORD
    return symbols
