"""How the forward of a stranger's model is called: by which argument labels go, and what is said where one is missing.

Models keep what they need of their first batch, and are called with others.
"""

import re
import warnings

import pytest
import torch
from support.anyone import Masked, alive, assert_right, entered, log_softmax_of, plain, quietly, some
from torch import nn

import genfast

SHAPE, LEVELS, CLASSES = (1, 4, 3), 4, 5
BASE = {"shape": SHAPE, "levels": LEVELS, "input_range": (0, 1)}


class Labelled(nn.Module):
    """A bias for each label."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = Masked(1, 6, 3, "A"), Masked(6, 6), nn.Conv2d(6, LEVELS, 1)
        self.table = nn.Embedding(CLASSES, 6)

    def outputs(self, x, labels):
        h = self.first(x)
        if labels is not None:
            h = h + self.table(labels)[:, :, None, None]
        return self.out(torch.tanh(self.second(torch.tanh(h))))


class Second(Labelled):
    def forward(self, x, which=None):
        return self.outputs(x, which)


class Later(Labelled):
    """Labels behind what the author's sampler switches."""

    def forward(self, x, sample=False, labels=None):
        return self.outputs(x, labels)


class ByName(Labelled):
    def forward(self, x, *, y):
        return self.outputs(x, y)


class Called(Labelled):
    """Its own `__call__`, with labels among other keywords."""

    def __call__(self, x, *rest, **more):
        return self.outputs(x, more.get("labels"))


class Starred(Labelled):
    def forward(self, x, *conditions, cache=None):
        return self.outputs(x, conditions[0])


def of_labels(model, images, labels):
    with torch.no_grad():
        return log_softmax_of(model.outputs(entered(images, LEVELS), labels), images[:, 0])


@pytest.mark.parametrize("kind", [Second, Later, ByName])
@pytest.mark.parametrize("backend", ["cpp", "full_forward"])
def test_labels_go_to_the_argument_of_their_name(kind, backend):
    model, images, labels = alive(kind()), some(SHAPE, LEVELS, 6), torch.arange(6) % CLASSES
    engine = quietly(genfast.Engine, model, backend=backend, classes=CLASSES, **BASE)
    expected = of_labels(model, images, labels)
    assert (engine.log_prob(images, labels) - expected).abs().max() < 1e-4
    assert (engine.log_prob(images, labels) - of_labels(model, images, None)).abs().max() > 0.05


@pytest.mark.parametrize("kind, name", [(Called, "labels"), (Starred, "conditions"), (ByName, "y"), (Later, "labels")])
def test_labels_as_a_condition(kind, name):
    model, images, labels = alive(kind()), some(SHAPE, LEVELS, 6), torch.arange(6) % CLASSES
    assert_right(model, of_labels(model, images, labels), images, condition={name: labels}, **BASE)


def test_labels_that_change_nothing_are_said():
    """They went where forward does not look for them."""
    model, images, labels = alive(Called()), some(SHAPE, LEVELS, 4), torch.arange(4)
    with pytest.warns(RuntimeWarning, match="should depend on the labels"):
        genfast.sample(model, 1, labels=0, classes=CLASSES, **BASE)
    checked = genfast.check(model, images, lambda x, y: -of_labels(model, x, y), labels=labels, classes=CLASSES, **BASE)
    assert not checked.ok and "condition={name: labels}" in checked.remedy
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        genfast.sample(alive(Second()), 1, labels=0, classes=CLASSES, **BASE)


@pytest.mark.parametrize("kind, name", [(Second, "which"), (Later, "labels")])
def test_labels_that_were_forgotten_are_named(kind, name):
    model, images, labels = alive(kind()), some(SHAPE, LEVELS, 4), torch.arange(4)
    checked = genfast.check(model, images, lambda x: -of_labels(model, x, labels), **BASE)
    assert not checked.ok and f"give forward {name} too" in checked.remedy


def test_what_forward_requires_is_named():
    expected = re.escape("for y give classes= and labels=, or condition={'y': ...}")
    with pytest.raises(ValueError, match=expected):
        genfast.sample(alive(ByName()), 1, **BASE)
    remedy = genfast.check(alive(ByName()), some(SHAPE, LEVELS, 4), lambda x: x.float().sum((1, 2, 3)), **BASE).remedy
    assert re.search(expected, remedy) and "none of 0" not in remedy
    with pytest.raises(ValueError, match="keyword classes"):
        genfast.sample(alive(plain(Masked(6, 6))), 1, labels=0, **BASE)


class Padded(nn.Module):
    """Ones beside the image, made once for the first batch, as a plain tensor or a buffer."""

    def __init__(self, buffer=False, scale=1.0):
        super().__init__()
        self.scale, self.ones = scale, None
        if buffer:
            del self.ones
            self.register_buffer("ones", None)
        self.first, self.second, self.out = Masked(2, 6, 3, "A"), Masked(6, 6), nn.Conv2d(6, LEVELS, 1)
        self.mask = torch.ones(6, 1, 1, 1)  # of as many rows as features, and of no batch

    def forward(self, x):
        if self.ones is None:
            self.ones = torch.ones_like(x) * (len(x) * self.scale if self.scale != 1 else 1)
        h = self.first(torch.cat((x, self.ones), 1))
        return self.out(torch.tanh(self.second(torch.tanh(h))) * self.mask.view(1, -1, 1, 1))


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("rows", [16, 2, 1])
def test_what_a_model_keeps_of_its_first_batch(buffer, rows):
    trained, images = alive(Padded(buffer)), some(SHAPE, LEVELS, 6)
    with torch.no_grad():
        expected = log_softmax_of(alive(Padded())(entered(images, LEVELS)), images[:, 0])
        trained(torch.rand(rows, *SHAPE))
    kept = trained.ones
    if rows == 1:  # one row would be broadcast in an addition, but not here
        assert len(kept) == 1
    assert_right(trained, expected, images, **BASE)
    assert trained.ones is kept and torch.equal(kept, torch.ones(rows, *SHAPE)), "the module is as it was"


def test_what_a_model_keeps_and_depends_on_is_not_forgotten():
    """Without it the outputs would be others."""
    trained = alive(Padded(scale=0.1))
    with torch.no_grad():
        trained(torch.rand(16, *SHAPE))
    with pytest.raises(ValueError, match="which must work; got RuntimeError: Sizes of tensors must match"):
        genfast.sample(trained, 2, **BASE)


class Drawing(nn.Module):
    """Also draws a value for itself, as a loop that samples does, by a probability that no image changes."""

    def __init__(self):
        super().__init__()
        self.body, self.chance = plain(Masked(6, 6)), nn.Parameter(torch.rand(1))

    def forward(self, x):
        own = torch.distributions.Bernoulli(torch.sigmoid(self.chance)).sample()
        return self.body(torch.where(x < 0, own, x))


def test_random_numbers_of_torch_are_left_as_they_were():
    """Also where a forward draws, whatever its image."""
    model, images = alive(Drawing()), some(SHAPE, LEVELS, 6)
    before = torch.get_rng_state()
    engine = genfast.Engine(model, backend="cpp", **BASE)
    engine.log_prob(images)
    assert torch.equal(before, torch.get_rng_state())


class Overwriting(nn.Module):
    """Two channels whose layout the sizes do not tell, by weights that forward multiplies with their mask in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.register_buffer("mask", torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]))

    def forward(self, x):
        with torch.no_grad():
            self.conv.weight *= self.mask
        return {"logits": self.conv(x)}


def test_a_layout_to_be_told_by_a_model_that_writes_to_its_weights():
    with pytest.raises(ValueError, match=r"output must say how the output is laid out, 'logits: B \(C L\) H W' or"):
        genfast.Engine(alive(Overwriting()), shape=(2, 4, 3), levels=4, input_range=(0, 1))
