"""Values and derivatives at kinks, which torch has otherwise from version to version."""

import math

import pytest
import torch
from torch.nn import functional as F

from genfast.reference import _kinks

NAN, INF = math.nan, math.inf
# Function, torch's of the same values, places, derivatives there.
KINKS = {
    "clamp": (lambda x: _kinks.clamp(x, -3, 2), lambda x: x.clamp(-3, 2), (-4, -3, 0, 2, 3, INF), (0, 1, 1, 1, 0, 0)),
    "clamp from below": (lambda x: _kinks.clamp(x, -3), lambda x: x.clamp(min=-3), (-4, -3, 7, INF), (0, 1, 1, 1)),
    "relu": (_kinks.relu, F.relu, (-1, 0, 2, INF), (0, 0, 1, 1)),
    "leaky_relu": (
        lambda x: _kinks.leaky_relu(x, 0.2),
        lambda x: F.leaky_relu(x, 0.2),
        (-1, 0, 2, INF),
        (0.2, 0.2, 1, 1),
    ),
    "absolute": (_kinks.absolute, torch.abs, (-1, 0, 2, -INF), (-1, 0, 1, -1)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", KINKS)
def test_kinks(name, dtype):
    function, same, places, slopes = KINKS[name]
    x = torch.tensor(places, dtype=dtype)
    assert torch.equal(function(x), same(x))
    assert function(torch.tensor(NAN, dtype=dtype)).isnan()
    expected = torch.tensor(slopes, dtype=dtype)

    def derivative(x):
        return torch.func.grad(lambda x: function(x).sum())(x)

    assert torch.equal(derivative(x), expected)
    assert torch.equal(torch.func.jvp(function, (x,), (torch.ones_like(x),))[1], expected)
    assert torch.equal(torch.func.grad(lambda x: derivative(x).sum())(x), torch.zeros_like(x))
    leaf = x.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(function(leaf).sum(), leaf)[0], expected)
