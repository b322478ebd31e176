"""Layers in one graph of torch.compile, with their gradients, and mapped over by torch.func.vmap."""

import pytest
import torch
from torch.utils import _pytree

from genfast import nn, testing

IMAGES = (2, 6, 4, 5)
LAYERS = {
    "BiasAct": (lambda: nn.BiasAct(6), [IMAGES]),
    "Blur2d": (lambda: nn.Blur2d(), [IMAGES]),
    "DiagonalBiLSTM": (lambda: nn.DiagonalBiLSTM(6, 3, colors=3), [IMAGES]),
    "Downsample2d": (lambda: nn.Downsample2d(), [(2, 6, 4, 6)]),
    "GatedResidualBlock": (lambda: nn.GatedResidualBlock(6, (2, 3), "down"), [IMAGES]),
    "MaskedConv2d": (lambda: nn.MaskedConv2d(6, 6, 3, "A", colors=3), [IMAGES]),
    "MinibatchDiscrimination": (lambda: nn.MinibatchDiscrimination(5, 3, 2), [(4, 5)]),
    "MinibatchStddev": (lambda: nn.MinibatchStddev(2), [IMAGES]),
    "ResidualDiagonalBlock": (lambda: nn.ResidualDiagonalBlock(3), [IMAGES]),
    "ResidualRowBlock": (lambda: nn.ResidualRowBlock(3), [IMAGES]),
    "RowLSTM": (lambda: nn.RowLSTM(6, 3), [IMAGES]),
    "SpectralNorm": (lambda: nn.SpectralNorm(torch.nn.Linear(5, 3)).eval(), [(4, 5)]),
    "Upsample2d": (lambda: nn.Upsample2d(), [IMAGES]),
}


def leaves(made):
    return [tensor for tensor in _pytree.tree_leaves(made) if tensor.is_floating_point()]


@pytest.mark.parametrize("name", LAYERS)
def test_one_graph(name):
    torch.manual_seed(0)
    make, shapes = LAYERS[name]
    layer, inputs = make().double(), [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    tensors = [*inputs, *layer.parameters()]
    results = [leaves(function(*inputs)) for function in (compiled, layer)]
    gradients = [
        torch.autograd.grad(made, tensors, list(map(torch.ones_like, made)), materialize_grads=True) for made in results
    ]
    for one, other in zip([*results[0], *gradients[0]], [*results[1], *gradients[1]], strict=True):
        testing.assert_matches(one, other, atol=1e-10)


# torch has no vmap of what changes the memory format, as the others do.
@pytest.mark.parametrize(
    "name", [n for n in LAYERS if n not in ("GatedResidualBlock", "MaskedConv2d", "ResidualRowBlock")]
)
def test_mapped(name):
    torch.manual_seed(0)
    make, shapes = LAYERS[name]
    layer = make().double()
    inputs = [torch.randn(3, *shape, dtype=torch.float64) for shape in shapes]
    got = leaves(torch.func.vmap(layer)(*inputs))
    expected = [torch.stack(parts) for parts in zip(*(leaves(layer(*part)) for part in zip(*inputs)))]
    for one, other in zip(got, expected, strict=True):
        testing.assert_matches(one, other, atol=1e-10)
