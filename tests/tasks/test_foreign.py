"""Models of somebody else: drawn from as they describe them, and one error for a description that does not fit."""

import pytest
import torch
from support.foreign import Foreign
from support.sampled import BACKENDS
from torch import nn

import genfast
from genfast.testing import assert_matches

FOREIGN = [
    (1, 1, None, {"levels": 2}, "bernoulli"),
    (1, 4, None, {"levels": 4, "input_range": (-1, 1)}, "categorical"),
    (2, 6, (2, 3), {"levels": 3}, "categorical"),
    (2, 6, (3, 2), {"levels": 3}, "categorical-levels-first"),
    (2, 4, (2, 2), {"levels": 2, "head": "categorical-levels-first"}, "categorical-levels-first"),
    (2, 6, None, {"levels": 3, "head": "categorical"}, "categorical"),
    (1, 6, None, {"levels": 5, "head": "mixture"}, "mixture"),
]


@pytest.mark.parametrize("channels, features, order, options, head", FOREIGN)
def test_a_model_of_somebody_else(channels, features, order, options, head):
    torch.manual_seed(1)
    model = Foreign(channels, features, order)
    nn.init.normal_(model.layer.weight)
    options = {"shape": (channels, 3, 4), "input_range": (0, 1)} | options
    drawn = [genfast.sample(model, 40, seed=2, backend=backend, **options) for backend in BACKENDS]
    assert all(torch.equal(images, drawn[0]) for images in drawn)
    assert drawn[0].shape == (40, channels, 3, 4) and drawn[0].max() == options["levels"] - 1
    low, high = options["input_range"]
    with torch.no_grad():
        y = model(low + drawn[0].float() * ((high - low) / (options["levels"] - 1)))
    if head == "mixture":
        expected = -genfast.logistic_mixture_nll(drawn[0], y, 5)
    elif head == "bernoulli":
        expected = -genfast.bernoulli_nll(drawn[0], y)
    else:
        y = y.flatten(1, -3)
        sizes = (options["levels"], channels) if head == "categorical-levels-first" else (channels, options["levels"])
        y = y.unflatten(1, sizes)
        y = y.transpose(1, 2) if head == "categorical-levels-first" else y
        expected = -genfast.categorical_nll(drawn[0], y)
    for backend in BACKENDS:
        assert_matches(genfast.log_prob(model, drawn[0], backend=backend, **options).float(), expected, atol=1e-4)


FITTING = {"shape": (1, 3, 4), "levels": 4, "input_range": (0, 1)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, r"shape must be \(channels, height, width\) for a Foreign; got None"),
        ({"shape": (1, 3)}, r"got \(1, 3\)"),
        ({"shape": (1, 3, 4)}, "levels must be an int, 2 to 65536; got None"),
        (FITTING | {"levels": 7}, r"must return 7 values for each pixel \(C=1, H=3, W=4, L=7\); got \(2, 4, 3, 4\)$"),
        (FITTING | {"head": "softmax"}, "head must be one of bernoulli, .*; got 'softmax'"),
        (
            FITTING | {"head": "mixture"},
            r"must return 3K or 10K values .* for the head mixture .*; got \(2, 4, 3, 4\)$",
        ),
        (FITTING | {"input_range": (1, 1)}, r"input_range must be two different numbers; got \(1, 1\)"),
        (FITTING | {"input_range": None}, r"input_range must be given, .* such as \(0, 1\) or \(-1, 1\): .*; got None"),
        (FITTING | {"inputs": "codes"}, "input_range must be None for inputs='codes', which are integers"),
        (FITTING | {"inputs": "floats"}, "inputs must be one of images, flat, .*, flat-levels; got .floats."),
        (FITTING | {"output": "B L"}, "output must be a pattern of the letters B, C, H, W and L .*; got 'B L'"),
        (FITTING | {"output": "B H W L"}, r"must return an output of the layout 'B H W L' .*; got \(2, 4, 3, 4\)$"),
        (FITTING | {"classes": -1}, "classes must be an int, at least 0; got -1"),
        (FITTING | {"pixel_order": [0, 0]}, "pixel_order must be a permutation of the 12 pixels"),
        (FITTING | {"condition": {"h": torch.zeros(())}}, r"condition h must be \[n, ...\] or \[1, ...\]; got \(\)"),
    ],
)
def test_bad_descriptions_of_a_model(options, message):
    with pytest.raises(ValueError, match=f"^sample: .*{message}"):
        genfast.sample(Foreign(1, 4, None), 1, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shape": 12}, "shape must be .*; got 12"),
        ({"input_range": (0, "1")}, "input_range must be two different numbers; got"),
        ({"output": 3}, "output must be a pattern such as 'B H W L'; got int"),
        ({"condition": [torch.zeros(1)]}, "condition must be a dict of tensors by the names of arguments; got"),
        ({"condition": {"h": 1.0}}, "condition h must be a torch.Tensor; got float"),
        ({"pixel_order": [0.0] * 12}, "pixel_order must be integers, one for each value; got float64"),
        ({"range": (0, 1)}, "range"),
    ],
)
def test_descriptions_of_a_wrong_kind(options, message):
    with pytest.raises(TypeError, match=message):
        genfast.sample(Foreign(1, 4, None), 1, **FITTING | options)
