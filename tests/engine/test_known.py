"""What is known before anything is drawn: labels and conditions, in every place where people put them."""

import math

import pytest
import torch
from support.anyone import Masked, alive, assert_right, engines, entered, every, log_softmax_of, quietly, some
from support.sampled import chi_square
from torch import nn
from torch.nn import functional as F

import genfast

SHAPE, LEVELS = (1, 4, 3), 4
BASE = {"shape": SHAPE, "levels": LEVELS, "input_range": (0, 1)}


class Labelled(nn.Module):
    """Labels enter in one of many ways."""

    def __init__(self, way, classes):
        super().__init__()
        self.way, self.classes = way, classes
        self.first, self.second, self.out = Masked(1, 6, 3, "A"), Masked(6, 6), nn.Conv2d(6, LEVELS, 1)
        self.table, self.scales = nn.Embedding(classes, 6), nn.Embedding(classes, 6)
        self.maps, self.wide = nn.Embedding(classes, 12), nn.Embedding(classes, 72)
        self.fc = nn.Linear(classes, 6, bias=False)
        self.film = nn.Sequential(nn.Embedding(classes, 5), nn.ReLU(), nn.Linear(5, 12))
        self.joined = nn.Conv2d(12, 6, 1)

    def forward(self, x, y):
        h = self.first(x)
        if self.way == "bias":
            h = h + self.table(y)[:, :, None, None]
        elif self.way == "scale":
            h = h * self.scales(y).view(len(y), -1, 1, 1).exp()
        elif self.way == "scale and bias":
            scale, shift = self.film(y).unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
            h = self.second(torch.relu(h)) * (1 + scale) + shift
        elif self.way == "one_hot":
            h = h + self.fc(F.one_hot(y, self.classes).float())[..., None, None]
        elif self.way == "map":
            h = h * self.maps(y).view(-1, 1, 4, 3) + 0.5
        elif self.way == "maps of features":
            h = h + self.wide(y).view(-1, 6, 4, 3)
        elif self.way == "map as a channel":
            h = self.joined(torch.cat([h, self.table(y)[:, :, None, None].expand(-1, -1, 4, 3)], 1))
        elif self.way == "maps as channels":
            h = self.joined(torch.cat([self.wide(y).reshape(-1, 6, 4, 3), h], 1))
        elif self.way == "gate":
            h = torch.tanh(h + self.table(y)[:, :, None, None]) * torch.sigmoid(h * self.scales(y)[:, :, None, None])
        elif self.way == "convolved map":
            h = h + F.conv2d(self.maps(y).view(-1, 1, 4, 3), self.first.weight, padding=1)
        elif self.way == "at the exit":
            return self.out(torch.relu(h)) + self.maps(y)[:, :LEVELS, None, None]
        return self.out(torch.relu(self.second(torch.relu(h))))


WAYS = [
    *("bias", "scale", "scale and bias", "one_hot", "map", "maps of features", "map as a channel"),
    *("maps as channels", "gate", "convolved map", "at the exit"),
]


def of_labels(way, classes, images):
    """(model, labels, what its forward says of images with them)"""
    model = alive(Labelled(way, classes))
    labels = (torch.arange(len(images)) * 7 + classes - 1) % classes
    with torch.no_grad():
        return model, labels, log_softmax_of(model(entered(images, LEVELS), labels), images[:, 0])


@pytest.mark.parametrize("way, classes", [*((way, 3) for way in WAYS), *(("maps as channels", n) for n in (1, 2, 16))])
def test_labels(way, classes):
    images = some(SHAPE, LEVELS, 6)
    model, labels, expected = of_labels(way, classes, images)
    engine = assert_right(model, expected, images, labels, classes=classes, **BASE)
    if classes > 1:
        assert (engine.log_prob(images, (labels + 1) % classes) - expected).abs().max() > 0.05


@pytest.mark.parametrize("way", ["bias", "scale and bias", "one_hot", "maps of features", "convolved map"])
@pytest.mark.parametrize("classes", [17, 40])
def test_more_labels_than_a_forward_is_traced_with(way, classes):
    images = some(SHAPE, LEVELS, classes)
    model, _, _ = of_labels(way, classes, images)
    labels = torch.arange(classes)
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS), labels), images[:, 0])
    assert_right(model, expected, images, labels, classes=classes, **BASE)


def test_bits_of_labelled_images_do_not_depend_on_others():
    model, labels, _ = of_labels("scale and bias", 17, some(SHAPE, LEVELS, 6))
    engine = genfast.Engine(model, backend="cpp", classes=17, **BASE)
    whole = engine.run(6, seed=4, labels=labels, want=("log_probs",))
    for b in range(6):
        one = engine.run(1, seed=4, first=b, labels=int(labels[b]), want=("log_probs",))
        assert torch.equal(one.images[0], whole.images[b]) and torch.equal(one.log_probs[0], whole.log_probs[b])
    turned = engine.log_prob(whole.images.flip(0), labels.flip(0)).flip(0)
    assert torch.equal(turned, engine.log_prob(whole.images, labels))


def test_labelled_samples_have_the_distribution_of_the_model():
    model = alive(Labelled("gate", 3), 2.0)
    small, images = {"shape": (1, 2, 2), "levels": 3, "input_range": (0, 1), "classes": 3}, every((1, 2, 2), 3)
    model.out = alive(nn.Conv2d(6, 3, 1), 2.0, seed=5)
    with torch.no_grad():
        p = log_softmax_of(model(entered(images, 3), torch.full((81,), 2)), images[:, 0]).exp()
        other = log_softmax_of(model(entered(images, 3), torch.full((81,), 0)), images[:, 0]).exp()
    drawn = genfast.sample(model, 4000, labels=2, **small)
    assert chi_square(drawn, p, 3) > 1e-4 > chi_square(drawn, other, 3)


def test_labels_that_do_not_fit():
    model = alive(Labelled("bias", 3))
    for labels, error, message in (
        (None, ValueError, "got None"),
        (3, ValueError, r"0\.\.2; got 3"),
        (-1, ValueError, r"0\.\.2; got -1"),
        (torch.tensor([0, 3]), ValueError, r"0\.\.2; got 3"),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"B=2; got \(3,\)"),
        (torch.zeros(2), TypeError, r"got torch\.float32"),
    ):
        with pytest.raises(error, match=f"^sample: labels must .*{message}$"):
            genfast.sample(model, 2, labels=labels, classes=3, **BASE)
    with pytest.raises(ValueError, match=r"genfast calls model\(x, labels\) with .*int64 \[\d+\].*IndexError"):
        genfast.sample(model, 2, labels=0, classes=9, **BASE)


class Conditioned(nn.Module):
    """A vector, a map of features, whole numbers, and labels, as far as they are given."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = Masked(1, 6, 3, "A"), Masked(6, 6), nn.Conv2d(6, LEVELS, 1)
        self.of_vector = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6))
        self.of_map = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
        self.of_codes, self.of_label = nn.Embedding(9, 6), nn.Embedding(3, 6)
        self.joined = nn.Conv2d(12, 6, 1)

    def forward(self, x, y=None, h=None, features=None, codes=None, upper=None):
        x = self.first(x)
        if y is not None:
            x = x * (1 + self.of_label(y)[..., None, None])
        if h is not None:
            x = x + self.of_vector(h)[:, :, None, None]
        if features is not None:
            x = self.joined(torch.cat((x, self.of_map(features)), 1))
        if codes is not None:
            x = x + self.of_codes(codes)[:, :, None, None]
        if upper is not None:
            maps = self.of_codes(upper).permute(0, 3, 1, 2)
            x = x + F.interpolate(maps, scale_factor=2.0, mode="nearest")[:, :, :4, :3]
        return self.out(torch.relu(self.second(torch.relu(x))))


def numbers(*shape, seed=5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape, seed=6):
    return torch.randint(9, shape, generator=torch.Generator().manual_seed(seed))


CONDITIONS = {
    "a vector": {"h": numbers(6, 5)},
    "a vector for all": {"h": numbers(1, 5)},
    "a map": {"features": numbers(6, 2, 4, 3)},
    "whole numbers": {"codes": codes(6)},
    "an upper level": {"upper": codes(6, 2, 2)},
    "an upper level for all, and a vector": {"upper": codes(1, 2, 2), "h": numbers(6, 5)},
    "all": {"h": numbers(6, 5), "features": numbers(6, 2, 4, 3), "codes": codes(6), "upper": codes(6, 2, 2)},
}


def of_condition(name, images, with_labels=False):
    """(model, keywords, labels, what its forward says of images)"""
    model, condition = alive(Conditioned()), CONDITIONS[name]
    labels = torch.arange(len(images)) % 3 if with_labels else None
    rows = {key: value.expand(len(images), *value.shape[1:]) for key, value in condition.items()}
    with torch.no_grad():
        logits = model(entered(images, LEVELS), labels, **rows)
    keywords = BASE | {"condition": condition} | ({"classes": 3} if with_labels else {})
    return model, keywords, labels, log_softmax_of(logits, images[:, 0])


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name, with_labels):
    images = some(SHAPE, LEVELS, 6)
    model, keywords, labels, expected = of_condition(name, images, with_labels)
    assert_right(model, expected, images, labels, **keywords)
    changed = {key: (value.flip(0) + (len(value) == 1)) % 9 for key, value in CONDITIONS[name].items()}
    other = genfast.log_prob(model, images, labels, **keywords | {"condition": changed})
    assert (other - expected).abs().max() > 0.05


@pytest.mark.parametrize("backend", ["cpp", "torch", "full_forward"])
def test_bits_of_conditioned_images_do_not_depend_on_others(backend):
    model, keywords, labels, _ = of_condition("all", some(SHAPE, LEVELS, 6), True)
    engine = genfast.Engine(model, backend=backend, **keywords)
    whole = engine.run(6, seed=4, labels=labels, want=("log_probs",))
    for first, end in ((0, 1), (3, 4), (2, 6)):
        part = engine.run(end - first, seed=4, first=first, labels=labels[first:end], want=("log_probs",))
        assert torch.equal(part.images, whole.images[first:end])
        if backend == "cpp":
            assert torch.equal(part.log_probs, whole.log_probs[first:end])
        else:
            assert torch.allclose(part.log_probs, whole.log_probs[first:end], atol=1e-5)
    sampled = genfast.sample(engine, 6, seed=4, labels=labels, batch_size=4)
    streamed = torch.cat(list(genfast.stream(engine, 4, seed=4, first=2, labels=labels[2:], batch_size=3)))
    assert torch.equal(sampled, whole.images) and torch.equal(streamed, whole.images[2:])


@pytest.mark.parametrize("backend", ["cpp", "full_forward"])
def test_too_few_rows_of_a_condition(backend):
    model, keywords, _, _ = of_condition("a vector", some(SHAPE, LEVELS, 6))
    engine = quietly(genfast.Engine, model, backend=backend, **keywords)
    for call in (lambda: engine.run(7, seed=0), lambda: engine.run(1, seed=0, first=6)):
        with pytest.raises(ValueError, match="condition h must have a row for each image up to index 6.*got 6 rows"):
            call()


def test_another_condition_needs_no_other_program():
    model, keywords, _, _ = of_condition("a map", some(SHAPE, LEVELS, 6))
    first = genfast.Engine(model, backend="cpp", **keywords)
    again = genfast.Engine(model, backend="cpp", **keywords | {"condition": {"features": numbers(2, 2, 4, 3, seed=9)}})
    assert first.program is again.program


@pytest.mark.parametrize("name", ["an upper level for all, and a vector", "all"])
def test_given_values_and_inpainting(name):
    images = some(SHAPE, LEVELS, 6)
    model, keywords, _, _ = of_condition(name, images)
    known = torch.rand(images.shape, generator=torch.Generator().manual_seed(8)) < 0.5
    native, slow = engines(model, **keywords)
    drawn = [engine.run(6, seed=2, given=images, known=known).images for engine in (native, slow)]
    assert torch.equal(*drawn) and torch.equal(drawn[0][known], images[known]) and (drawn[0] != images).any()
    assert torch.equal(genfast.sample(model, 6, seed=2, given=images, mask=known, **keywords), drawn[0])
    filled = [genfast.inpaint(engine, images, known, steps=4, seed=1).images for engine in (native, slow)]
    assert torch.equal(*filled) and torch.equal(filled[0][known], images[known])


def test_inpainting_with_a_condition_has_the_posterior_of_its_image():
    """Images of two pixels, the second known: each image's own condition decides the first."""
    model, n = alive(Conditioned(), 2.5), 600
    h = numbers(2, 5, seed=11).repeat_interleave(n // 2, 0) * 2
    keywords = {"shape": (1, 1, 2), "levels": LEVELS, "input_range": (0, 1), "condition": {"h": h}}
    known = torch.tensor([False, True]).view(1, 1, 1, 2)
    images = torch.full((n, 1, 1, 2), 1, dtype=torch.uint8)
    filled = genfast.inpaint(model, images, known, steps=8, **keywords).images
    pairs = every((1, 1, 2), LEVELS)[torch.arange(4) * 4 + 1]
    for half in (0, 1):
        with torch.no_grad():
            logits = model(entered(pairs, LEVELS), h=h[half * (n // 2)].expand(4, -1))
        p = log_softmax_of(logits, pairs[:, 0]).exp()
        counts = filled[half * (n // 2) :][: n // 2, 0, 0, 0].long().bincount(minlength=4).double()
        distance = ((counts / counts.sum() - p / p.sum()) ** 2 / (p / p.sum())).sum() * n / 2
        assert distance < 25 and not math.isnan(distance)


def test_a_condition_under_a_name_that_forward_does_not_have():
    with pytest.raises(ValueError, match=r"sample: genfast calls model\(x, g=g\) with .*float32 \[2, 5\].*TypeError"):
        genfast.sample(alive(Conditioned()), 1, condition={"g": numbers(1, 5)}, **BASE)
    expected = r"genfast calls model\(x, x=x\) with float32 \[2, 1, 4, 3\] .*, float32 \[2, 5\],.*multiple values"
    with pytest.raises(ValueError, match=expected):
        genfast.sample(alive(Conditioned()), 1, condition={"x": numbers(1, 5)}, **BASE)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_condition_may_have_the_name_of_any_argument(classes):
    """Also those that genfast itself writes: `x` and `labels`."""

    class Odd(Conditioned):
        def forward(self, image, y=None, *, x, labels):
            return super().forward(image, y, h=x, codes=labels)

    model, images, condition = alive(Odd()), some(SHAPE, LEVELS, 6), {"x": numbers(6, 5), "labels": codes(6)}
    y = torch.arange(6) % 3 if classes else None
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS), y, **condition), images[:, 0])
    assert_right(model, expected, images, y, condition=condition, classes=classes, **BASE)
