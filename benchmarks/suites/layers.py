"""Layers of genfast.nn beside the same layers in plain PyTorch: their reference, or what torch has."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast import nn as layers
from genfast import testing
from genfast._native import backends
from genfast.benchmarks import matching, work
from genfast.benchmarks.rows import COMPILED, EAGER, OURS
from genfast.benchmarks.runner import Case, Prepared, compiled, on_reference

DIRECTION = "forward+backward"


@dataclass(frozen=True)
class Layer:
    """A layer to measure.

    Attributes:
        arguments, options: of its class in `genfast.nn`.
        shapes: of its inputs.
        rival: makes the same of torch's own layers, with the weights of the layer; None: the layer on its reference.
    """

    arguments: tuple[Any, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    rival: Callable[[Any], nn.Module] | None = None


class BiasThenActivation(nn.Module):
    """What `BiasAct` is in torch: an addition, and a leaky relu in place."""

    def __init__(self, layer: layers.BiasAct):
        super().__init__()
        self.bias, self.slope, self.gain = nn.Parameter(layer.bias.detach().clone()), layer.slope, layer.gain

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None], self.slope).mul_(self.gain)


class MaskedWeight(nn.Module):
    """What `MaskedConv2d` is in torch: a convolution whose weight is masked, channels last."""

    def __init__(self, layer: layers.MaskedConv2d):
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone(memory_format=torch.channels_last))
        self.bias, self.mask = nn.Parameter(cast("Tensor", layer.bias).detach().clone()), layer.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding="same")


MAP = (32, 32, 28, 28)
LAYERS = {
    "BiasAct": Layer((128,), ((32, 128, 32, 32),), {"gain": 2**0.5}, rival=BiasThenActivation),
    "Blur2d": Layer((), ((16, 64, 32, 32),)),
    "DiagonalBiLSTM": Layer((32, 16), (MAP,)),
    "Downsample2d": Layer((), ((16, 64, 64, 64),)),
    "GatedResidualBlock": Layer((32, (2, 3), "down"), (MAP,)),
    "GatedStackLayer": Layer((32, 32, 32), (MAP, MAP)),
    "GaussianLatent": Layer((), ((512, 64), (512, 64))),
    "MaskedConv2d": Layer((32, 32, 3, "B"), (MAP,), rival=MaskedWeight),
    "MinibatchDiscrimination": Layer((256, 100, 5), ((128, 256),)),
    "MinibatchStddev": Layer((), ((32, 128, 32, 32),)),
    "ResidualConvBlock": Layer((16,), (MAP,)),
    "ResidualDiagonalBlock": Layer((16,), (MAP,)),
    "ResidualRowBlock": Layer((16,), (MAP,)),
    "ResidualVectorQuantizer": Layer((2, 512, 64), ((32, 64, 14, 14),)),
    "RowLSTM": Layer((32, 16), (MAP,)),
    "Upsample2d": Layer((), ((16, 64, 32, 32),)),
    "VectorQuantizer": Layer((512, 64), ((32, 64, 14, 14),)),
}


def cases(quick: bool, against: Sequence[str]) -> list[Case]:
    """A case for each layer that has kernels of its own; `quick`: a quarter of the images."""
    made = []
    for name, layer in LAYERS.items():
        shapes = [(max(4, shape[0] // 4), *shape[1:]) if quick else shape for shape in layer.shapes]
        text = " and ".join("x".join(map(str, shape)) for shape in shapes)
        prepare = partial(_prepare, name, tuple(shapes), tuple(against))
        made.append(Case("layers", name, text, "float32", DIRECTION, prepare))
    return made


@cache
def _built(name: str) -> tuple[nn.Module, nn.Module, Callable[..., Any]]:
    """The layer with random weights; what stands beside it; and that compiled. Kept over the passes."""
    layer = LAYERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: nn.Module = getattr(layers, name)(*layer.arguments, **layer.options)
        for parameter in made.parameters():
            if not parameter.any():  # an output projection of zeros, which hides the rest
                nn.init.normal_(parameter, std=0.1)
        beside = layer.rival(made) if layer.rival else copy.deepcopy(made)
    return made, beside, compiled(beside)


def _prepare(name: str, shapes: Sequence[tuple[int, ...]], against: Sequence[str]) -> Prepared:
    made, beside, as_compiled = _built(name)
    generator = torch.Generator("cpu").manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") for shape in shapes]
    contenders = {OURS: _gradients(made, made, inputs)}
    if EAGER in against:
        contenders[EAGER] = on_reference(_gradients(beside, beside, inputs))
    if COMPILED in against:
        contenders[COMPILED] = on_reference(_gradients(as_compiled, beside, inputs))
    reference = on_reference(_gradients(beside, beside, inputs))
    leaves = [*made.parameters(), *inputs]

    def find_work() -> tuple[int, int]:
        with torch.no_grad():
            return work.flops(reference), work.moved_bytes([inputs, [*made.parameters()]], made(*inputs), leaves)

    return Prepared(
        contenders,
        images=shapes[0][0],
        check=partial(_check, name, inputs),
        work=find_work,
        kept=partial(work.kept_bytes, partial(made, *inputs), [leaves]),
    )


def _gradients(function: Callable[..., Any], owner: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], Any]:
    """A call of a layer and for the gradients of its inputs and parameters."""
    leaves = [tensor.requires_grad_() for tensor in inputs] + list(owner.parameters())
    with torch.no_grad():
        incoming = [torch.randn_like(output) for output in _smooth(copy.deepcopy(owner)(*inputs))]

    def run() -> Any:
        with torch.enable_grad():
            outputs = [output for output in _smooth(function(*inputs)) if output.requires_grad]
        return torch.autograd.grad(outputs, leaves, incoming[: len(outputs)], allow_unused=True)

    return run


def _smooth(result: Any) -> list[Tensor]:
    return [output for output in testing.outputs_of(result) if output.is_floating_point()]


def _check(name: str, inputs: Sequence[Tensor]) -> matching.Match:
    """The layer against itself on the reference in float64, from the same state, with the same random numbers."""
    made = _built(name)[0]
    got = _results(copy.deepcopy(made), inputs)
    with backends.reference_only():
        expected = _results(copy.deepcopy(made).double(), [tensor.detach().double() for tensor in inputs])
    return matching.match(got, expected)


def _results(layer: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Outputs, and gradients for incoming ones that depend on nothing but their shapes."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs] + list(layer.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        outputs = testing.outputs_of(layer(*leaves[: len(inputs)]))
        smooth = [output for output in outputs if output.requires_grad]
        generator = torch.Generator("cpu").manual_seed(2)
        incoming = [
            torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu").to(output.dtype)
            for output in smooth
        ]
        gradients = torch.autograd.grad(smooth, leaves, incoming, allow_unused=True)
    return matching.named([*outputs, *gradients])
