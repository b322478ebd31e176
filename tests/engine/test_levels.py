"""More levels than a byte has: all engines against each other, and against exact draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support.many_levels import Causal, of_logits
from support.pixel_programs import run

from genfast.engine import cpp, eager
from genfast.engine.engine import Engine
from genfast.engine.request import SampleRequest
from genfast.random import inverse_cdf, uniform
from genfast.random.levels import MOST_LEVELS, level_dtype

SHAPE, N, SEED, FIRST = (1, 3, 4), 5, 2**63 + 5, 2**40
LEVELS = (257, 512, 5000, MOST_LEVELS)
every_count = pytest.mark.parametrize("levels", LEVELS)


def engine(levels, backend="cpp", shape=SHAPE):
    return Engine(Causal(levels), backend=backend, shape=shape, levels=levels, input_range=(0, 1))


def logits_of(model, images, levels):
    """[n, H, W, L], float64, by the model's own forward."""
    with torch.no_grad():
        return model.double()(images.double() / (levels - 1)).permute(0, 2, 3, 1)


def uniforms(n, count, draw=0):
    """[n, count]"""
    return torch.from_numpy(uniform(SEED, FIRST + np.arange(n)[:, None], np.arange(count), draw))


def test_the_dtype_of_levels():
    assert [level_dtype(levels) for levels in (2, 255, 256)] == [torch.uint8] * 3
    assert [level_dtype(levels) for levels in (257, MOST_LEVELS)] == [torch.int32] * 2


@pytest.mark.parametrize("temperature", [1.0, 0.6, 3.0])
@every_count
def test_samples_are_those_of_the_forward_in_double_precision(levels, temperature):
    model = engine(levels)
    drawn = model.run(N, seed=SEED, first=FIRST, temperature=temperature, want=("log_probs",))
    assert drawn.images.dtype == torch.int32
    logits, u = logits_of(Causal(levels), drawn.images, levels), uniforms(N, 12).view(N, 3, 4)
    # The engine's logits are float32: where u is within their rounding of a boundary, the next level is as good.
    shares = (logits / temperature).softmax(-1)
    chosen = drawn.images[:, 0].long()[..., None]
    upper, share = (t.gather(-1, chosen)[..., 0] for t in (shares.cumsum(-1), shares))
    assert (upper > u - 1e-6).all() and (upper - share <= u + 1e-6).all()
    exact = logits.log_softmax(-1).gather(-1, chosen)[..., 0]
    assert (drawn.log_probs[:, 0] - exact).abs().max() < 2e-6
    assert torch.equal(model.run(N, seed=SEED, first=FIRST, temperature=temperature).images, drawn.images)


@every_count
def test_all_engines_agree(levels):
    given = torch.randint(levels, (N, *SHAPE), generator=torch.Generator().manual_seed(1))
    known = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(2)) < 0.5
    want = {"want": ("log_probs",), "seed": SEED, "first": FIRST}
    drawn = {name: engine(levels, name).run(N, given=given, known=known, **want) for name in ("cpp", "torch")}
    drawn["full_forward"] = engine(levels, "full_forward").run(N, given=given, known=known, **want)
    scored = {name: engine(levels, name).log_prob(given) for name in drawn}
    for name, other in drawn.items():
        assert other.images.dtype == torch.int32 and torch.equal(other.images[known], given[known].int())
        assert torch.equal(other.images, drawn["cpp"].images), name
        assert (other.log_probs - drawn["cpp"].log_probs).abs().max() < 1e-6, name
        assert (scored[name] - scored["cpp"]).abs().max() < 1e-6 * 12, name
    exact = logits_of(Causal(levels), given, levels).log_softmax(-1).gather(-1, given[:, 0, ..., None])
    assert (scored["cpp"] - exact.sum((1, 2, 3))).abs().max() < 1e-6 * 12


@pytest.mark.parametrize("levels", [257, 5000])
def test_evidence(levels):
    evidence = 3 * torch.randn(N, *SHAPE, levels, generator=torch.Generator().manual_seed(1))
    evidence[..., : levels // 2] = -math.inf
    settings = {"seed": SEED, "evidence": evidence, "temperature": 1.4, "want": ("log_probs", "log_evidence")}
    first, second, third = (engine(levels, name).run(N, **settings) for name in ("cpp", "torch", "full_forward"))
    logits = logits_of(Causal(levels), first.images, levels) / 1.4
    exact = (logits.log_softmax(-1) + evidence[:, 0].double()).logsumexp(-1)
    assert (first.log_evidence[:, 0] - exact).abs().max() < 2e-6 and (first.images >= levels // 2).all()
    for other in (second, third):
        assert torch.equal(other.images, first.images)
        assert (other.log_evidence - first.log_evidence).abs().max() < 1e-6
        assert (other.log_probs - first.log_probs).abs().max() < 1e-6
    known = torch.ones(N, *SHAPE, dtype=torch.bool)
    taught = engine(levels).run(N, given=first.images, known=known, **settings)
    assert torch.equal(taught.log_evidence, first.log_evidence)


@pytest.mark.parametrize("levels", [513, 5000])
def test_bits_do_not_depend_on_batches_or_threads(levels):
    model, threads = engine(levels), torch.get_num_threads()
    for settings in ({}, {"temperature": 0.7}, {"want": ("log_probs",)}):
        whole = model.run(40, seed=3, first=7, **settings)
        try:
            torch.set_num_threads(3)
            parts = [model.run(end - start, seed=3, first=7 + start, **settings) for start, end in ((0, 1), (1, 40))]
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        if whole.log_probs is not None:
            assert torch.equal(torch.cat([part.log_probs for part in parts]), whole.log_probs)


def with_draws(program, n, engine=cpp, **settings):
    """The levels that an engine draws, [n, C], and those that exact weights give for the same numbers."""
    drawn = run(engine, program, n, seed=SEED, first=FIRST, **settings)
    logits = torch.stack([torch.from_numpy(buffer.fill) for buffer in program.buffers[1:]])
    u = uniforms(n, program.spec.channels)
    return drawn, inverse_cdf(logits.expand(n, -1, -1), u, settings.get("temperature", 1.0))


@pytest.mark.parametrize("levels", [257, 1000, 4096, MOST_LEVELS])
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_draws_are_exact(levels, scale):
    """Float sums decide most draws, and double ones those near a boundary: none is missed."""
    n = 2**21 // levels
    program = of_logits(scale * torch.randn(2, levels, generator=torch.Generator().manual_seed(3)))
    for settings in ({}, {"temperature": 0.3}, {"temperature": 40.0}):
        drawn, exact = with_draws(program, n, **settings)
        assert torch.equal(drawn.images.view(n, -1), exact), settings


def test_a_thousand_levels_by_chi_square():
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(4))
    drawn, n = run(cpp, of_logits(logits), 400_000, seed=11).images, 400_000
    expected = n * logits[0].double().softmax(0).numpy()
    counts = np.bincount(drawn.flatten().numpy(), minlength=1000)
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    assert stats.chisquare(counts, np.roll(expected, 1)).pvalue < 1e-6, "the test sees a shift by one level"


@pytest.mark.parametrize("levels", [300, MOST_LEVELS])
@pytest.mark.parametrize("temperature", [1e-250, 1e-3, 1.0, 1e3, 1e250])
def test_extreme_logits(levels, temperature):
    """Levels of probability 0, differences of 1e4, and one possible level alone."""
    logits = torch.full((3, levels), -math.inf)
    logits[0, ::7] = 0.0
    logits[1] = 1e4 * torch.randn(levels, generator=torch.Generator().manual_seed(5))
    logits[2, levels - 1] = -1e30
    n, program = 50, of_logits(logits)
    drawn, exact = with_draws(program, n, temperature=temperature, want=("log_probs",))
    assert torch.equal(drawn.images.view(n, -1), exact)
    assert (drawn.images[:, 0] % 7 == 0).all() and (drawn.images[:, 2] == levels - 1).all()
    scores = logits.double().log_softmax(-1).expand(n, -1, -1).gather(-1, exact.long()[..., None])[..., 0]
    assert torch.allclose(drawn.log_probs.view(n, -1), scores, rtol=1e-12, atol=1e-9)
    assert torch.equal(run(cpp, program, n, seed=SEED, first=FIRST, temperature=temperature).images, drawn.images)
    other = run(eager, program, n, seed=SEED, first=FIRST, temperature=temperature, want=("log_probs",))
    assert torch.equal(other.images, drawn.images)
    assert torch.allclose(other.log_probs, drawn.log_probs, rtol=1e-12, atol=1e-9)
    known = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    given = torch.tensor([1, 0, 0], dtype=torch.int32).view(1, 3, 1, 1)
    impossible = cpp.run(program, SampleRequest(1, given=given, known=known, want=("log_probs",))).log_probs
    assert impossible.flatten()[0] == impossible.flatten()[2] == -math.inf
