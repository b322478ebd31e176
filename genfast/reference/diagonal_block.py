"""The residual Diagonal BiLSTM layer in plain PyTorch: the specification of `genfast.ops.diagonal_block`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal
from genfast.reference.diagonal_lstm import diagonal_lstm_ref


def diagonal_block_ref(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
) -> Tensor:
    """`x` [B, H, W, F] -> [B, H, W, F]: input-to-state, both scans, shift, add, 1x1 up, residual."""
    gates = (x @ input_weight.flatten(1)).unflatten(-1, input_bias.shape) + input_bias
    hidden = diagonal_lstm_ref(gates, weight, h0, c0)
    return x + (hidden[..., 0, :] + shift_down(hidden[..., 1, :])) @ output_weight + output_bias


def shift_down(x: Tensor) -> Tensor:
    """Move [B, H, W, C] down by one row; the first row becomes zero, so no pixel reads its own right side."""
    return torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 0))[:, : x.shape[1]]


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, height, width, features, size = (sizes[k] for k in "BHWFC")
    return {
        "x": normal(generator, batch, height, width, features),
        "input_weight": normal(generator, features, 2, 4 * size, scale=features**-0.5),
        "input_bias": normal(generator, 2, 4 * size, scale=0.5),
        "weight": normal(generator, 2, 2, size, 4 * size, scale=0.5 * size**-0.5),
        "h0": normal(generator, 2, size, scale=0.5),
        "c0": normal(generator, 2, size, scale=0.5),
        "output_weight": normal(generator, size, features, scale=size**-0.5),
        "output_bias": normal(generator, features, scale=0.5),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BHWFC", values))


SPEC = Spec(
    name="diagonal_block",
    reference=diagonal_block_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 1),
        _sizes(3, 1, 7, 5, 3),
        _sizes(2, 7, 1, 3, 5),
        _sizes(5, 3, 11, 31, 15),
        _sizes(2, 11, 5, 32, 16),
        _sizes(3, 4, 4, 33, 17),
        _sizes(17, 5, 3, 2, 33),
        _sizes(33, 2, 3, 8, 4),
        _sizes(2, 5, 6, 128, 64),
        _sizes(0, 3, 4, 6, 5),
        _sizes(2, 0, 4, 6, 3),
        _sizes(2, 3, 0, 6, 3),
    ),
    gradcheck=(_sizes(2, 2, 3, 3, 2), _sizes(1, 3, 2, 1, 1)),
    bench={
        "B=64 28x28 C=16 F=32": _sizes(64, 28, 28, 32, 16),
        "B=16 32x32 C=64 F=128": _sizes(16, 32, 32, 128, 64),
        "B=1 28x28 C=16 F=32": _sizes(1, 28, 28, 32, 16),
    },
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, sections 3.2 and 3.3, arXiv 1601.06759",
)
