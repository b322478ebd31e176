"""Programs of small models, compared with the models' own forward."""

import torch
from support.pixel_programs import run
from torch import nn

from genfast.engine import eager
from genfast.engine.compiler import compile_program
from genfast.nn import MaskedConv2d


def taught(program, images, labels=None):
    """The parameters of a program that meets the given images: [B, P, H, W]."""
    known = torch.ones_like(images, dtype=torch.bool)
    drawn = run(eager, program, len(images), labels=labels, given=images, known=known, want=("parameters",))
    assert torch.equal(drawn.images, images)
    return drawn.parameters


def some_images(program, n=3):
    shape = (n, program.spec.channels, program.spec.height, program.spec.width)
    return torch.randint(0, program.spec.levels, shape, dtype=torch.uint8)


def assert_close(got, expected, tolerance=1e-5):
    assert got.shape == expected.shape
    error = (got - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"{error:.1e} of the largest"


def assert_compiled(model, shape=(1, 5, 6), levels=4, **options):
    """The program of a model equals its forward; returns the program."""
    program = compile_program(model, shape=shape, levels=levels, **({"input_range": (0, 1)} | options))
    images = some_images(program)
    low, high = options.get("input_range", (0, 1))
    with torch.no_grad():
        expected = model.eval()(images.float() * ((high - low) / (levels - 1)) + low)
    assert_close(taught(program, images), expected.flatten(1, -3))
    return program


def causal(*layers, inputs=1):
    """Logits of 4 levels from a mask A convolution of 6 features and further layers."""
    return nn.Sequential(MaskedConv2d(inputs, 6, 3, "A"), *layers, nn.Conv2d(6, 4, 1)).eval()


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
