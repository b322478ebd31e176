"""What the tests of sampling share: tiny models whose images can be listed, and chi-square."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import genfast
from genfast.models import build

BACKENDS = ["full_forward", "torch", *(name for name in ("cpp",) if genfast.backends()["cpp"].available)]
every_backend = pytest.mark.parametrize("backend", BACKENDS)

# Kind, config, and the standard deviation and seed of weights that make the values of an image depend on one another.
TINY = {
    "pixelcnn binary": ("pixelcnn", {"hidden": 3, "head": 4, "height": 2, "width": 3, "levels": 2}, 0.7, 7),
    "pixelcnn colour": (
        "pixelcnn",
        {"hidden": 3, "head": 3, "height": 1, "width": 2, "channels": 3, "levels": 3},
        1.4,
        6,
    ),
    "pixelrnn": ("pixelrnn", {"hidden": 2, "head": 3, "height": 2, "width": 2, "levels": 3}, 1.4, 1),
    "gated-pixelcnn": (
        "gated-pixelcnn",
        {"hidden": 2, "head": 3, "height": 2, "width": 2, "levels": 3, "classes": 2},
        1.4,
        8,
    ),
    "pixelcnn++": (
        "pixelcnn++",
        {"filters": 2, "blocks": 1, "resolutions": 2, "mixtures": 2, "height": 2, "width": 2, "levels": 3},
        0.5,
        0,
    ),
}
every_tiny = pytest.mark.parametrize("name", TINY)


@functools.cache
def tiny(name):
    """A model of `TINY`, in evaluation mode; not to be changed."""
    kind, config, std, seed = TINY[name]
    torch.manual_seed(seed)
    model = build(kind, **config, **({} if kind == "pixelcnn++" else {"layers": 1}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def label_of(model):
    """A label for all images of a conditional model."""
    return 1 if getattr(model.config, "classes", 0) else None


def every_image(model):
    """All images, uint8 [N, C, H, W], in the order of `numbers`."""
    values = itertools.product(range(model.spec.levels), repeat=math.prod(model.spec.shape))
    return torch.tensor(list(values), dtype=torch.uint8).view(-1, *model.spec.shape)


def numbers(images, levels):
    """The place of each image in `every_image`, [n]."""
    place = 0
    for value in images.flatten(1).long().unbind(1):
        place = place * levels + value
    return place


@torch.no_grad()
def exact(model):
    """The probability of every image, float64 [N]."""
    images, label = every_image(model), label_of(model)
    labels = None if label is None else torch.full((len(images),), label)
    p = model.log_prob(images, labels).double().exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    return p / p.sum()


def conditional(model, known, truth):
    """The probability of every image given the known values of `truth`, bool and uint8 [C, H, W]."""
    fitting = ((every_image(model) == truth) | ~known).flatten(1).all(1)
    p = torch.where(fitting, exact(model), 0)
    return p / p.sum()


def chi_square(images, probabilities, levels):
    """The p-value of images under the probabilities of every image; rare ones are counted together."""
    observed = numbers(images, levels).bincount(minlength=len(probabilities)).double().numpy()
    expected = probabilities.numpy() * len(images)
    assert not observed[probabilities.numpy() == 0].any()
    order = np.argsort(expected)
    rare = order[: np.searchsorted(expected[order].cumsum(), 5, side="right") + 1]
    common = np.setdiff1d(order, rare)
    observed = np.append(observed[common], observed[rare].sum())
    expected = np.append(expected[common], expected[rare].sum())
    if len(common) + 1 < 2:
        raise AssertionError("expected several likely images")
    statistic = ((observed - expected) ** 2 / expected).sum()
    return stats.chi2.sf(statistic, len(expected) - 1)
