"""How models end: logits, probabilities and their logarithms, with a program and without."""

import math

import pytest
import torch
from support.anyone import Function, Masked, alive, assert_right, entered, every, plain, quietly, some
from support.sampled import chi_square
from torch import nn
from torch.nn import functional as F

import genfast

SHAPE = (1, 3, 4)


def ended(function, levels=4, channels=1, opaque=False):
    """Logits [B, L * C, H, W] that `function` ends; `opaque`: with an operation that has no program before them."""
    last = Function(lambda y: function(torch.sin(y) * 3 if opaque else y))
    return nn.Sequential(plain(inputs=channels, outputs=levels * channels), last)


def of_levels(probabilities, images):
    """The logarithm of probabilities [n, L, ...] of levels [n, ...], float64 [n]."""
    return probabilities.double().gather(1, images.long().unsqueeze(1)).log().flatten(1).sum(1)


def of_bits(p, images):
    """The same of probabilities of level 1, in the shape of the images."""
    return torch.where(images > 0, p.double(), 1 - p.double()).log().flatten(1).sum(1)


def returned(model, images, levels):
    with torch.no_grad():
        return model(entered(images, levels))


CATEGORICAL = {
    "softmax": (lambda y: y.softmax(1), lambda y: y),
    "F.softmax of a negative dimension": (lambda y: F.softmax(y, dim=-3), lambda y: y),
    "log_softmax": (lambda y: F.log_softmax(y, 1), torch.exp),
    "softmax and log": (lambda y: y.softmax(1).log(), torch.exp),
    "normalised by hand": (lambda y: y.exp() / y.exp().sum(1, keepdim=True), lambda y: y),
    "less its logsumexp": (lambda y: y - y.logsumexp(1, keepdim=True), torch.exp),
    "softmax, then permuted and back": (
        lambda y: y.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2).contiguous(),
        lambda y: y,
    ),
    "softmax and an axis more": (lambda y: y.softmax(1).unsqueeze(2), lambda y: y.squeeze(2)),
}


@pytest.mark.parametrize("name", CATEGORICAL)
def test_softmax(name):
    function, probabilities = CATEGORICAL[name]
    model, images = ended(function), some(SHAPE, 4)
    expected = of_levels(probabilities(returned(model, images, 4)), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=4, input_range=(0, 1))


def test_softmax_of_three_channels():
    shape, images = (3, 2, 3), some((3, 2, 3), 4)
    model = ended(lambda y: y.unflatten(1, (3, 4)).softmax(2), channels=3)
    expected = of_levels(returned(model, images, 4).transpose(1, 2), images)
    assert_right(model, expected, images, shape=shape, levels=4, input_range=(0, 1))


BERNOULLI = {
    "sigmoid": lambda y: y.sigmoid(),
    "clamped sigmoid": lambda y: torch.clamp(torch.sigmoid(y), 1e-5, 1 - 1e-5),
    "sigmoid between numbers": lambda y: y.sigmoid().clamp(min=0.3),
    "half a tanh": lambda y: 0.5 * (y / 2).tanh() + 0.5,
    "reciprocal": lambda y: 1 / (1 + (-y).exp()),
    "without the channel": lambda y: y.sigmoid().squeeze(1),
    "flat": lambda y: y.sigmoid().flatten(1),
}


@pytest.mark.parametrize("name", BERNOULLI)
def test_sigmoid(name):
    model, images = ended(BERNOULLI[name], levels=1), some(SHAPE, 2)
    expected = of_bits(returned(model, images, 2).reshape(images.shape), images)
    head = {"head": "probabilities"} if name in ("half a tanh", "reciprocal") else {}
    output = {"output": "B (H W)"} if name == "flat" else {}
    assert_right(model, expected, images, shape=SHAPE, levels=2, input_range=(0, 1), **head, **output)


def test_a_sigmoid_of_every_level_is_no_distribution():
    """Probabilities of each level by itself: named logits they are right, as logits."""
    model, images = ended(lambda y: y.sigmoid()), some(SHAPE, 4)
    expected = of_levels(returned(model, images, 4).softmax(1), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=4, input_range=(0, 1), head="categorical")


@pytest.mark.parametrize("dim", [2, 3])
def test_a_softmax_over_pixels_is_not_causal(dim):
    with pytest.raises(ValueError, match="causal"):
        quietly(genfast.sample, ended(lambda y: y.softmax(dim)), 1, shape=SHAPE, levels=4, input_range=(0, 1))


def test_a_softmax_over_the_wrong_features_is_no_distribution():
    """Over the channels, not the levels: read as the logits that they then are."""
    shape, images = (2, 2, 3), some((2, 2, 3), 3)
    model = ended(lambda y: y.unflatten(1, (2, 3)).softmax(1), levels=3, channels=2)
    expected = of_levels(returned(model, images, 3).transpose(1, 2).softmax(1), images)
    assert_right(model, expected, images, shape=shape, levels=3, input_range=(0, 1))


HEADS = [
    ("categorical", lambda y: y, lambda y: y.softmax(1)),
    ("categorical", lambda y: 3 * y.softmax(1), lambda y: y.softmax(1)),
    ("probabilities", lambda y: y.softmax(1), lambda y: y),
    ("log-probabilities", lambda y: y.log_softmax(1), torch.exp),
    ("categorical", lambda y: y.log_softmax(1), torch.exp),
]


@pytest.mark.parametrize("opaque", [False, True], ids=["native", "full forward"])
@pytest.mark.parametrize("head, function, probabilities", HEADS)
def test_heads_that_are_named(head, function, probabilities, opaque):
    model, images = ended(function, opaque=opaque), some(SHAPE, 4)
    keywords = {"shape": SHAPE, "levels": 4, "input_range": (0, 1), "head": head}
    expected = of_levels(probabilities(returned(model, images, 4)), images[:, 0])
    if not opaque:
        assert_right(model, expected, images, **keywords)
    assert torch.allclose(quietly(genfast.log_prob, model, images, **keywords), expected, atol=1e-4)


BITS = [
    ("bernoulli", lambda y: y, torch.sigmoid),
    ("probabilities", torch.sigmoid, lambda y: y),
    ("log-probabilities", F.logsigmoid, torch.exp),
]


@pytest.mark.parametrize("opaque", [False, True], ids=["native", "full forward"])
@pytest.mark.parametrize("head, function, probabilities", BITS)
def test_heads_of_bits_that_are_named(head, function, probabilities, opaque):
    model, images = ended(function, levels=1, opaque=opaque), some(SHAPE, 2)
    keywords = {"shape": SHAPE, "levels": 2, "input_range": (0, 1), "head": head}
    expected = of_bits(probabilities(returned(model, images, 2)), images)
    got = quietly(genfast.log_prob, model, images, **keywords)
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "levels, function, remedy",
    [
        (4, lambda y: y.softmax(1), "sum to 1 over the levels on random images, 'probabilities' or, .*'categorical'"),
        (1, torch.sigmoid, "lie in 0..1 on random images, 'probabilities' or, .* 'bernoulli'"),
    ],
)
def test_a_full_forward_asks_for_the_name_of_probabilities(levels, function, remedy):
    model = ended(function, levels, opaque=True)
    keywords = {"shape": SHAPE, "levels": max(2, levels), "input_range": (0, 1)}
    for call in (
        lambda: genfast.sample(model, 1, **keywords),
        lambda: genfast.log_prob(model, some(SHAPE, 2), **keywords),
        lambda: genfast.sample(model, 1, backend="full_forward", **keywords),
    ):
        expected = rf"^sample: head must be named for a model whose outputs {remedy}; got None$"
        with pytest.raises(ValueError, match=expected):
            quietly(call)


def hard(y):
    """Probabilities of which some are zero: sharp, cut below 0.2, and normalised."""
    p = (4 * y).softmax(1)
    p = p * (p > 0.2)
    return p / p.sum(1, keepdim=True)


def test_probabilities_with_zeros():
    model, images = ended(hard, 3), every((1, 2, 2), 3)
    p = of_levels(returned(model, images, 3), images[:, 0])
    assert (p == -math.inf).any() and p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    keywords = {"shape": (1, 2, 2), "levels": 3, "input_range": (0, 1), "head": "probabilities"}
    for backend in ("auto", "full_forward"):
        got = quietly(genfast.log_prob, model, images, backend=backend, **keywords)
        assert torch.equal(got == -math.inf, p == -math.inf) and torch.allclose(got, p, atol=1e-5), backend
        drawn = quietly(genfast.sample, model, 2000, backend=backend, **keywords)
        assert chi_square(drawn, p.exp() / p.exp().sum(), 3) > 1e-4


@pytest.mark.parametrize("backend", ["cpp", "full_forward"])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_that_of_the_logits(backend, temperature):
    """The conditionals of p ** (1 / T), whatever the head."""
    model, images = ended(lambda y: (2 * y).softmax(1), 3), every((1, 1, 2), 3)
    p = returned(model, images, 3).double()
    tempered = (p.log() / temperature).log_softmax(1).gather(1, images.long()).sum((1, 2, 3)).exp()
    plainly = p.log().gather(1, images.long()).sum((1, 2, 3)).exp()
    keywords = {"shape": (1, 1, 2), "levels": 3, "input_range": (0, 1), "backend": backend}
    drawn = genfast.sample(model, 4000, temperature=temperature, **keywords)
    assert chi_square(drawn, tempered, 3) > 1e-4 > chi_square(drawn, plainly, 3)


def test_a_gate_inside_is_no_exit():
    """A softmax and a sigmoid that are not last are left where they are."""
    model = nn.Sequential(plain(Function(lambda h: h.softmax(1) * h.sigmoid())), alive(Masked(4, 4, 1)))
    images = some(SHAPE, 4)
    expected = of_levels(returned(model, images, 4).softmax(1), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=4, input_range=(0, 1))
