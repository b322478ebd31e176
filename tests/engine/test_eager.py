"""Pixel programs in plain torch, against the forward passes they stand for."""

import numpy as np
import pytest
import torch
from support.pixel_programs import CASES, colors, images_of, known_of, labels_of, masked, scans, strided
from support.pixel_programs import run as run_program

from genfast import ops
from genfast.engine import eager
from genfast.engine.program import Read
from genfast.random import inverse_cdf, uniform
from genfast.reference.logistic_mixture import inverse_mixture
from genfast.testing import assert_matches

N, SEED, FIRST = 7, 2**63 + 5, 3
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def run(case, n=N, **options):
    p = case.program
    return run_program(eager, p, n, **({"seed": SEED, "first": FIRST, "labels": labels_of(p, n)} | options))


def forward(case, images):
    """[n, draws, L or P, H, W], float64."""
    y = case.forward(case.pixels(images), labels_of(case.program, len(images)))
    return y.unflatten(1, (case.program.draws, -1))


def uniforms(program, n, draw=0):
    """[n, C, H, W]"""
    c, h, w = program.spec.shape
    u = uniform(SEED, FIRST + np.arange(n)[:, None], np.arange(h * w * c), draw)
    return torch.from_numpy(u).view(n, h, w, c).permute(0, 3, 1, 2)


@every_case
def test_teacher_forced_parameters_are_those_of_the_forward_pass(case):
    images = images_of(case.program, N)
    drawn = run(case, given=images, known=torch.ones_like(images, dtype=torch.bool), want=("parameters",))
    assert torch.equal(drawn.images, images)
    assert drawn.parameters.dtype == torch.float32 and drawn.log_probs is None
    assert_matches(drawn.parameters, forward(case, images).flatten(1, 2), atol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@every_case
def test_a_sample_is_drawn_from_its_own_conditionals(case, temperature):
    p = case.program
    drawn = run(case, temperature=temperature, want=("log_probs",))
    y = forward(case, drawn.images)
    if p.draws == 1 and p.likelihood.numbers == 2:
        again = ops.logistic_mixture_sample(y[:, 0], p.spec.levels, SEED, FIRST, temperature, channels=p.spec.channels)
        nll = ops.logistic_mixture_nll(drawn.images, y[:, 0], p.spec.levels)
    else:
        again = inverse_cdf(y.movedim(2, -1), uniforms(p, N), temperature)
        logits = torch.cat((torch.zeros_like(y), y), 2) if p.spec.levels == 2 and y.shape[2] == 1 else y
        nll = -logits.log_softmax(2).gather(2, drawn.images.long()[:, :, None]).sum((1, 2, 3, 4))
    assert torch.equal(again, drawn.images)
    assert len(drawn.images.unique()) >= 0.8 * p.spec.levels or temperature == 1
    assert drawn.log_probs.shape == (N, p.draws, p.spec.height, p.spec.width) and drawn.log_probs.dtype == torch.float64
    assert_matches(drawn.log_probs.sum((1, 2, 3)), -nll, atol=2e-5)


@every_case
def test_a_sample_depends_on_seed_and_index_alone(case):
    whole, p = run(case).images, case.program
    labels = labels_of(p, N)
    for begin, end in ((0, 1), (1, 4), (4, 7)):
        part = run(case, end - begin, first=FIRST + begin, labels=None if labels is None else labels[begin:end])
        assert torch.equal(part.images, whole[begin:end])
    assert not torch.equal(run(case, seed=1).images, whole)
    assert not torch.equal(run(case, draw=1).images, whole)


@every_case
def test_known_values_are_kept_and_the_others_drawn(case):
    p = case.program
    images, known = images_of(p, N), known_of(p, N)
    filled = run(case, given=images, known=known, draw=2).images
    y = forward(case, filled)
    if p.draws == 1 and p.likelihood.numbers == 2:
        # The draws 4 and 5 of Philox: the component and the levels.
        again = inverse_mixture(y[:, 0], p.spec.levels, uniforms(p, N, 4)[:, :1], uniforms(p, N, 5), 1.0)
    else:
        again = inverse_cdf(y.movedim(2, -1), uniforms(p, N, 2))
    assert torch.equal(filled, torch.where(known, images, again))
    assert not torch.equal(again, filled)


@pytest.mark.parametrize("case", [masked(), colors(), scans()], ids=str)
def test_evidence_weighs_the_levels(case):
    p, temperature = case.program, 1.7
    evidence = torch.randn(N, p.spec.channels, p.spec.height, p.spec.width, p.spec.levels) * 2
    evidence[:, :, 0, 0] = -torch.inf
    evidence[:, :, 0, 0, 1] = 0.5
    drawn = run(case, evidence=evidence, temperature=temperature, want=("log_probs", "log_evidence", "parameters"))
    y = forward(case, drawn.images)
    logits = (torch.cat((torch.zeros_like(y), y), 2) if p.spec.levels == 2 and y.shape[2] == 1 else y).movedim(2, -1)
    joint = (logits / temperature).log_softmax(-1) + evidence
    assert (drawn.images[:, :, 0, 0] == 1).all()
    assert torch.equal(drawn.images, inverse_cdf(joint, uniforms(p, N)))
    assert_matches(drawn.log_evidence, joint.logsumexp(-1), atol=1e-5)
    expected = logits.log_softmax(-1).gather(-1, drawn.images.long()[..., None])[..., 0]
    assert_matches(drawn.log_probs, expected, atol=1e-5)
    without = run(case, temperature=temperature, want=("log_evidence",))
    assert not torch.equal(drawn.images, without.images) and not without.log_evidence.any()


@every_case
def test_what_is_prepared_for_a_call_serves_the_next(case):
    p, labels = case.program, labels_of(case.program, N)
    for again in (labels if labels is None else labels.flip(0), labels):
        p.prepared.clear()
        expected = run(case, labels=again, want=("parameters",))
        prepared = p.prepared["eager"]
        run(case, labels=labels, seed=1)
        got = run(case, labels=again, want=("parameters",))
        assert p.prepared["eager"] is prepared
        assert torch.equal(got.images, expected.images) and torch.equal(got.parameters, expected.parameters)
    run(case, temperature=2.0)
    assert p.prepared["eager"] is not prepared


@every_case
def test_no_images(case):
    drawn = run(case, 0, want=("log_probs", "parameters"))
    assert drawn.images.shape[0] == drawn.log_probs.shape[0] == drawn.parameters.shape[0] == 0


@pytest.mark.parametrize("read", [Read(0, 0, -3, 0, 1), Read(0, -3, 0, 0, 1), Read(0, 0, 1, 0, 2)], ids=str)
def test_a_read_outside_its_buffer_is_refused(read):
    case = strided()
    case.program.pixel[0][0].reads[0] = read
    with pytest.raises(ValueError, match="eager: a position must lie inside buffer 0"):
        run(case)
