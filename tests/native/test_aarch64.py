"""What `make aarch64` records and compares; it takes minutes itself, as it compiles the kernels."""

import pytest
import torch
from support import aarch64, many_levels, pixel_programs

import genfast
from genfast.engine import cpp


@pytest.fixture(scope="module")
def recorder():
    made = aarch64.Recorder()
    with made.recording():
        genfast.minibatch_stddev(torch.full((2, 1, 1, 3), torch.nan), backend="cpp")
        pixel_programs.run(cpp, pixel_programs.masked().program, 2)
        pixel_programs.run(cpp, many_levels.of_logits(torch.zeros(1, 300)), 2)  # of no instruction
    return made


def test_calls_are_recorded_by_name(recorder):
    calls = [line.split() for line in recorder.lines]
    assert [words[1] for words in calls] == ["minibatch_stddev_forward", "pixel_program", "pixel_program"]
    for words in calls:
        assert words[2] == "float32" and words[3::2] == recorder.module.signatures()[words[1]]


def test_every_address_is_a_place_in_the_recorded_memory(recorder):
    """A number that is none of an address is small, but for a seed."""
    for line in recorder.lines:
        assert not [word for word in line.split() if word.isdigit() and int(word) >= 2**32]
    image = next(block for block in recorder.blocks if block.member == "images")
    assert (image.kind, image.size) == ("uint8", 2 * 4 * 3)


def test_calls_made_again_leave_the_same_memory(recorder):
    for isa in recorder.module.isas():
        assert recorder.differences(recorder.replay(isa)) == {}
    assert recorder.before != recorder.after


def test_a_bit_that_differs_is_found(recorder):
    got = bytearray(recorder.after)
    images = next(block for block in recorder.blocks if block.member == "images")
    got[images.at] ^= 3
    got[images.at - 1] ^= 1
    assert recorder.differences(got) == {"call 1: pixel_program: images": 2, "outside of the arguments": 1}


def test_any_nan_is_the_same(recorder):
    got, y = bytearray(recorder.after), next(block for block in recorder.blocks if block.member == "y")
    assert aarch64.is_nan(aarch64.np.frombuffer(got[y.at : y.at + y.size], "uint8"), y.kind).all()
    got[y.at + 3] ^= 0x80
    assert recorder.differences(got) == {}
    got[y.at + 2 : y.at + 4] = b"\x80\x7f"
    got[y.at : y.at + 2] = b"\x00\x00"  # infinity
    assert "call 0: minibatch_stddev_forward: y" in recorder.differences(got)
