"""What the tests of sampling share: tiny models whose images can be listed, and chi-square."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import genfast
from genfast.models import build

BACKENDS = ["reference", "torch", *(name for name in ("cpp",) if genfast.backends()["cpp"].available)]
every_backend = pytest.mark.parametrize("backend", BACKENDS)

TINY = {
    "pixelcnn binary": ("pixelcnn", {"hidden": 3, "layers": 1, "head": 4, "height": 2, "width": 3, "levels": 2}),
    "pixelcnn colour": (
        "pixelcnn",
        {"hidden": 3, "layers": 1, "head": 3, "height": 1, "width": 2, "channels": 3, "levels": 3},
    ),
    "pixelrnn": ("pixelrnn", {"hidden": 2, "layers": 1, "head": 3, "height": 2, "width": 2, "levels": 3}),
    "gated-pixelcnn": (
        "gated-pixelcnn",
        {"hidden": 2, "layers": 1, "head": 3, "height": 2, "width": 2, "levels": 3, "classes": 2},
    ),
    "pixelcnn++": (
        "pixelcnn++",
        {"filters": 2, "blocks": 1, "resolutions": 2, "mixtures": 2, "height": 2, "width": 2, "levels": 3},
    ),
}


def tiny(name, std=0.7):
    """A model of `TINY` with random weights, in evaluation mode."""
    torch.manual_seed(3)
    kind, config = TINY[name]
    model = build(kind, **config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if kind == "pixelcnn++" else std)
    return model.eval()


def every_image(model):
    """All images, uint8 [N, C, H, W], in the order of `numbers`."""
    c = model.config
    shape = (c.channels, c.height, c.width)
    values = itertools.product(range(c.levels), repeat=math.prod(shape))
    return torch.tensor(list(values), dtype=torch.uint8).view(-1, *shape)


def numbers(images, levels):
    """The place of each image in `every_image`, [n]."""
    place = 0
    for value in images.flatten(1).long().unbind(1):
        place = place * levels + value
    return place


@torch.no_grad()
def exact(model, label=None):
    """The probability of every image, float64 [N]."""
    images = every_image(model)
    labels = None if label is None else torch.full((len(images),), label)
    p = model.log_prob(images, labels).double().exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
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
