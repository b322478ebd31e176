"""Small models as anyone writes them, none of genfast's layers in them, and what their own forward says of images."""

import itertools
import math
import warnings

import torch
from torch import nn
from torch.nn import functional as F

import genfast


class Masked(nn.Conv2d):
    """A convolution that sees what comes before a pixel (mask "A"), and the pixel itself (mask "B")."""

    def __init__(self, inputs, outputs, size=3, kind="B"):
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask, middle = torch.ones(size, size), size // 2
        mask[middle, middle + (kind == "B") :] = 0
        mask[middle + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedLinear(nn.Linear):
    """A Linear layer with a mask [outputs, inputs]."""

    def __init__(self, mask):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float())

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments, **named):
        return self.function(*arguments, **named)


def alive(model, gain=1.5, seed=0):
    """A model in evaluation mode, with weights that make its conditionals far from flat."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            size = gain / math.sqrt(weight[0].numel()) if weight.dim() > 1 else 0.4
            weight.copy_(torch.randn(weight.shape, generator=generator) * size)
    return model.eval()


def plain(*more, inputs=1, outputs=4, width=6):
    """A convolution of mask A, further layers, and logits."""
    return alive(nn.Sequential(Masked(inputs, width, 3, "A"), *more, nn.ReLU(), nn.Conv2d(width, outputs, 1)))


def some(shape, levels, n=5, seed=1):
    """Random levels [n, C, H, W], uint8 or int32."""
    images = torch.randint(levels, (n, *shape), generator=torch.Generator().manual_seed(seed))
    return images.to(torch.uint8 if levels <= 256 else torch.int32)


def every(shape, levels):
    """All images, uint8 [N, C, H, W]."""
    values = itertools.product(range(levels), repeat=math.prod(shape))
    return torch.tensor(list(values), dtype=torch.uint8).view(-1, *shape)


def entered(images, levels, low=0.0, high=1.0):
    """Levels as floats from low to high."""
    return images.float() * ((high - low) / (levels - 1)) + low


def log_softmax_of(logits, images):
    """Log-probabilities, float64 [n], of levels [n, ...] by logits [n, L, ...]."""
    return -F.cross_entropy(logits.double(), images.long(), reduction="none").flatten(1).sum(1)


def log_sigmoid_of(logits, images):
    """The same of bits, by their logits in the same shape."""
    return -F.binary_cross_entropy_with_logits(logits.double(), images.double(), reduction="none").flatten(1).sum(1)


def engines(model, **keywords):
    """The C++ engine, which raises if there is no program, and the loop of full forwards."""
    return [genfast.Engine(model, backend=backend, **keywords) for backend in ("cpp", "full_forward")]


def assert_right(model, expected, images, labels=None, tolerance=1e-5, draws=4, **keywords):
    """A model has a program, which scores images as `expected` [n] does, and draws what full forwards draw."""
    native, slow = engines(model, **keywords)
    got = native.log_prob(images, labels)
    error = ((got - expected).abs() / expected.abs().clamp(min=1)).max().item()
    assert error < tolerance, f"{error:.1e}: {got.tolist()} for {expected.tolist()}"
    some_labels = None if labels is None else labels[:draws]
    drawn = [engine.run(draws, seed=3, labels=some_labels).images for engine in (native, slow)]
    assert torch.equal(*drawn), (drawn[0] != drawn[1]).nonzero().tolist()[:4]
    return native


def quietly(call, *arguments, **keywords):
    """What is called, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*arguments, **keywords)
