"""No two purposes share a random number."""

from itertools import combinations

import pytest

from genfast.random import streams
from genfast.random.streams import STREAMS, Stream, chain_draw


@pytest.mark.parametrize("one, other", list(combinations(STREAMS, 2)))
def test_streams_are_disjoint(one, other):
    assert not STREAMS[one].meets(STREAMS[other])


def test_what_meets_is_seen():
    assert Stream(range(4), range(4)).meets(Stream(range(3, 5), range(3, 5)))
    assert not Stream(range(4), range(4)).meets(Stream(range(4, 5), range(3, 5)))


def test_the_numbers_are_those_that_samples_were_drawn_by():
    """Another number would give another sample to the same seed."""
    assert (streams.POSTERIOR, streams.PRIOR) == (2**31, 2**32 - 3)
    assert (streams.NOISE, streams.SECOND_NOISE, streams.CHAIN_ELEMENT) == (2**32 - 2, 2**32 - 1, 2**32 - 5)
    assert chain_draw(0, 0) == 0 and chain_draw(3, 5) == 3 * 2**24 + 5


def test_every_chain_fits_into_its_stream():
    """A mixture takes two numbers for a draw."""
    last = chain_draw(streams.MOST_CHAINS - 1, streams.MOST_STEPS - 1)
    assert 2 * last + 1 in STREAMS["values"].draws and last in STREAMS["chain"].draws
    assert streams.CHAIN_ELEMENT + streams.NUMBERS_OF_A_STEP == 2**32
