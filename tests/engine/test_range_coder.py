"""The range coder: exact integers and constriction's queue coder write the same words up to the end, and read them."""

import bisect
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import pytest
from support.range_coder import decode, encode, sealed

WHOLE = 2**24


@dataclass
class Model:
    """One of constriction's, and the edges of its symbols."""

    theirs: Any
    edges: Any

    def interval(self, symbol):
        return self.edges[symbol], self.edges[symbol + 1] - self.edges[symbol]


def uniform(count):
    """Equal parts; the last symbol has what is left over."""
    edges = np.arange(count + 1) * (WHOLE // count)
    edges[-1] = WHOLE
    return Model(constriction.stream.model.Uniform(count), edges.tolist())


def categorical(*sixteenths):
    """16 symbols: each has one part, and its share of all others, which is a whole number."""
    shares = np.array(sixteenths, np.float64) / 16
    edges = np.arange(17) + np.concatenate([[0], np.cumsum(sixteenths)]) * (WHOLE // 16 - 1)
    return Model(constriction.stream.model.Categorical(shares, perfect=False), edges.tolist())


FIRST, LAST = categorical(16, *[0] * 15), categorical(*[0] * 15, 16)
MIXED = categorical(0, 0, 3, *[1] * 11, 2, 0)
MODELS = [uniform(2), uniform(3), uniform(1000), uniform(2**16 - 1), uniform(2**16), FIRST, LAST, MIXED]


def theirs(symbols, models):
    """The words of constriction, which also reads them again."""
    encoder = constriction.stream.queue.RangeEncoder()
    for symbol, model in zip(symbols, models, strict=True):
        encoder.encode(int(symbol), model.theirs)
    words = encoder.get_compressed()
    decoder = constriction.stream.queue.RangeDecoder(words)
    assert [decoder.decode(model.theirs) for model in models] == list(symbols)
    return words


def theirs_of(stream, models):
    """What constriction reads in a stream whose zeros are there again."""
    words = np.frombuffer(stream + bytes(-len(stream) % 4 + 8), ">u4").astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    return [int(decoder.decode(model.theirs)) for model in models]


def assert_equal_words(symbols, models):
    """Of constriction; and the shorter stream is one to it, which differs in its end alone."""
    intervals, edges = [m.interval(s) for s, m in zip(symbols, models, strict=True)], [m.edges for m in models]
    words, stream = sealed(intervals), encode(intervals)
    written = words.astype(">u4").tobytes()
    assert np.array_equal(words, theirs(symbols, models))
    assert decode(written, edges) == decode(stream, edges) == list(symbols) == theirs_of(stream, models)
    assert len(stream) <= len(written) and not stream.endswith(b"\0")
    first, second = (int.from_bytes(part.ljust(len(written) + 4, b"\0"), "big") for part in (written, stream))
    assert abs(first - second) < 2**64
    return words


@pytest.mark.parametrize("seed", range(12))
def test_random_symbols_of_random_models(seed):
    rng = np.random.default_rng(seed)
    for n in (0, 1, 2, 3, 40, 300):
        models = [MODELS[k] for k in rng.integers(len(MODELS), size=n)]
        assert_equal_words([int(rng.integers(len(model.edges) - 1)) for model in models], models)


@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
@pytest.mark.parametrize("symbol", [0, -1])
def test_the_ends_of_a_model(model, symbol):
    """Intervals at the top of the range write words of ones, those at its bottom zeros."""
    symbol %= len(model.edges) - 1
    for n in range(1, 20):
        words = assert_equal_words([symbol] * n, [model] * n)
    assert not symbol or len(words) < 2 or words[0] == 2**32 - 1


def around(point, model, low, width):
    """The symbol of an interval, given by its exact ends, in which a point lies."""
    part = (point - low) // (width >> 24)
    return bisect.bisect_right(model.edges, min(part, WHOLE - 1)) - 1


@pytest.mark.parametrize("model", [MODELS[1], MODELS[2], MODELS[3], MIXED], ids=["3", "1000", "65535", "16"])
@pytest.mark.parametrize("last", [0, -1])
def test_a_carry_through_many_words(model, last):
    """All symbols lie around the middle of the range: the words stay 7fffffff ffffffff .. until the end decides."""
    low, width, point, symbols, widths = 0, 2**64 - 1, 2**63, [], 0
    for _ in range(400):
        symbols.append(around(point, model, low, width))
        left, size = model.interval(symbols[-1])
        low, width = low + (width >> 24) * left, (width >> 24) * size
        if width < 2**32:
            low, width, point, widths = low << 32, width << 32, point << 32, widths + 1
    symbols += [last % (len(model.edges) - 1)] * 3
    words = assert_equal_words(symbols, [model] * len(symbols))
    inside = 0 if words[0] == 2**31 else 2**32 - 1
    assert words[0] in (2**31, 2**31 - 1) and set(words[1 : widths - 1].tolist()) == {inside} and widths > 12
