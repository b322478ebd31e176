"""The Triton interpreter of pixel programs in Triton's own interpreter, against the same programs stepped in torch.
Run by test_triton.py in a process of its own, as triton_interpreted.py is."""

import pytest
import torch
from support.pixel_programs import CASES, images_of, known_of, labels_of
from triton_interpreted import _addresses  # noqa: F401

from genfast import testing
from genfast.engine import eager
from genfast.kernels import pixel_program

SEED, FIRST = 2**64 - 3, 5


def both(case, n, **options):
    p = case.program
    options = {"seed": SEED, "first": FIRST, "labels": labels_of(p, n)} | options
    return (
        pixel_program.pixel_program(p, n, device="cpu", **options),
        eager.run(p, n, device="cpu", **options),
    )


def assert_same(got, expected):
    assert torch.equal(got.images, expected.images)
    testing.assert_matches(got.parameters, expected.parameters, atol=1e-5)
    testing.assert_matches(got.log_probs, expected.log_probs, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_samples(case):
    assert_same(*both(case, 3, temperature=1.3, want=("log_probs", "parameters")))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_known_values(case):
    images, known = images_of(case.program, 2), known_of(case.program, 2)
    assert_same(*both(case, 2, given=images, known=known, draw=3, want=("log_probs", "parameters")))


@pytest.mark.parametrize("case", [case for case in CASES if case.program.head != "mixture"], ids=str)
def test_evidence(case):
    p = case.program
    evidence = torch.randn(2, p.channels, p.height, p.width, p.levels)
    evidence[..., 0] = -torch.inf
    got, expected = both(case, 2, evidence=evidence, want=("log_evidence",))
    assert torch.equal(got.images, expected.images) and got.images.all()
    testing.assert_matches(got.log_evidence, expected.log_evidence, atol=1e-4)


def test_more_images_than_a_program_owns():
    got, expected = both(CASES[-1], pixel_program.BLOCK + 1)
    assert torch.equal(got.images, expected.images) and got.log_probs is None


def test_no_images():
    got, expected = both(CASES[0], 0, want=("log_probs", "parameters"))
    assert got.images.shape == expected.images.shape and got.log_probs.shape == expected.log_probs.shape
