"""What a foreign forward shows or returns beside tensors: the range of its inputs, and distributions."""

import warnings

import pytest
import torch
from support.compiled import causal
from torch import nn
from torch.nn import functional as F

import genfast

TOLD = {"shape": (1, 5, 6), "levels": 4}


class Given(nn.Module):
    """A PixelCNN of inputs that forward moves first, and a function of its logits."""

    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last
        torch.manual_seed(0)
        self.net = causal()

    def forward(self, x):
        return self.last(self.net(self.first(x)))


class Logits:
    """A distribution of somebody's own."""

    def __init__(self, logits):
        self.logits = logits


DISTRIBUTIONS = {
    "categorical": lambda x: torch.distributions.Categorical(logits=x.permute(0, 2, 3, 1)),
    "categorical of probabilities": lambda x: torch.distributions.Categorical(x.permute(0, 2, 3, 1).softmax(-1)),
    "of one's own": Logits,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("backend", ["cpp", "full_forward"])
def test_distributions(name, backend):
    validates = torch.distributions.Distribution._validate_args  # torch.compile changes it too
    model = Given(lambda x: x, DISTRIBUTIONS[name])
    engine = genfast.Engine(model, input_range=(0, 1), backend=backend, **TOLD)
    assert engine.backend == backend
    images = torch.randint(4, (3, 1, 5, 6), dtype=torch.uint8)
    with torch.no_grad():
        nats = F.cross_entropy(model.net(images / 3), images[:, 0].long(), reduction="none").sum((1, 2))
    assert torch.allclose(-genfast.log_prob(engine, images).float(), nats, rtol=1e-5)
    assert torch.distributions.Distribution._validate_args == validates


@pytest.mark.parametrize("first", [lambda x: x / 3, lambda x: x.to(torch.float32).contiguous() / 1.5 - 1])
def test_a_range_that_forward_contradicts(first):
    model = Given(first, lambda x: x)
    with pytest.warns(RuntimeWarning, match=r"input_range should be \(0, 3\).*got \(0, 1\)"):
        assert genfast.Engine(model, input_range=(0, 1), **TOLD).backend == "cpp"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert genfast.Engine(model, input_range=(0, 3), **TOLD).backend == "cpp"
    assert genfast.Engine(model, **TOLD).conventions.key[2] is None
    images = torch.randint(4, (3, 1, 5, 6), dtype=torch.uint8)
    inferred, given = (genfast.Engine(model, **TOLD, **told) for told in ({}, {"input_range": (0, 3)}))
    assert torch.equal(genfast.log_prob(inferred, images), genfast.log_prob(given, images))


def without_gradients(x):
    with torch.no_grad():
        y = torch.tanh(x)
    return y + x


def test_no_grad_in_forward():
    model = Given(lambda x: x, without_gradients)
    assert genfast.Engine(model, input_range=(0, 1), **TOLD).backend == "cpp"
    assert torch.is_grad_enabled()
