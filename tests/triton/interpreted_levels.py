"""Pixel programs of more levels than a byte has, in Triton's interpreter: run by test_triton.py, as interpreted.py."""

import pytest
import torch
from support.many_levels import of_logits
from support.pixel_programs import images_of, known_of

from genfast.engine import eager
from genfast.engine.request import SampleRequest
from genfast.kernels import pixel_program
from genfast.testing import assert_matches


def assert_same(program, n, **options):
    """What the kernel draws, which is what the engine in plain PyTorch does."""
    request = SampleRequest(n, seed=2**64 - 3, first=5, want=("log_probs", "parameters"), **options)
    got = pixel_program.pixel_program(program, request, torch.device("cpu"))
    expected = eager.run(program, request)
    assert got.images.dtype == torch.int32 and torch.equal(got.images, expected.images)
    assert_matches(got.parameters, expected.parameters, atol=1e-5)
    assert_matches(got.log_probs, expected.log_probs, atol=1e-4)
    return got.images


@pytest.mark.parametrize("levels", [257, 1000])
def test_more_levels_than_a_byte(levels):
    logits = 2 * torch.randn(2, levels, generator=torch.Generator().manual_seed(0))
    logits[:, -1] = logits.logsumexp(1)
    program = of_logits(logits)
    assert assert_same(program, 20).max() == levels - 1
    given = {"given": images_of(program, 9), "known": known_of(program, 9)}
    evidence = torch.randn(9, *program.spec.shape, levels, generator=torch.Generator().manual_seed(1))
    evidence[..., :200] = -torch.inf
    drawn = assert_same(program, 9, **given, evidence=evidence, temperature=0.7)
    assert (drawn[~given["known"]] >= 200).all() and torch.equal(drawn[given["known"]], given["given"][given["known"]])
