"""The residual Diagonal BiLSTM layer in plain PyTorch: the specification of `genfast.ops.diagonal_block`."""

import torch

from genfast.reference._spec import Spec, normal
from genfast.reference.diagonal_lstm import diagonal_lstm_ref


def diagonal_block_ref(x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias):
    """`x` [B, H, W, F] -> [B, H, W, F]: input-to-state, both scans, shift, add, 1x1 up, residual."""
    gates = (x @ input_weight.flatten(1)).unflatten(-1, input_bias.shape) + input_bias
    hidden = diagonal_lstm_ref(gates, weight, h0, c0)
    return x + (hidden[..., 0, :] + shift_down(hidden[..., 1, :])) @ output_weight + output_bias


def shift_down(x):
    """Move [B, H, W, C] down by one row; the first row becomes zero, so no pixel reads its own right side."""
    return torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 0))[:, : x.shape[1]]


def _make(sizes, generator):
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


SPEC = Spec(
    name="diagonal_block",
    reference=diagonal_block_ref,
    make=_make,
    shapes=(
        dict(B=1, H=1, W=1, F=1, C=1),
        dict(B=3, H=1, W=7, F=5, C=3),
        dict(B=2, H=7, W=1, F=3, C=5),
        dict(B=5, H=3, W=11, F=31, C=15),
        dict(B=2, H=11, W=5, F=32, C=16),
        dict(B=3, H=4, W=4, F=33, C=17),
        dict(B=17, H=5, W=3, F=2, C=33),
        dict(B=33, H=2, W=3, F=8, C=4),
        dict(B=2, H=5, W=6, F=128, C=64),
        dict(B=0, H=3, W=4, F=6, C=5),
        dict(B=2, H=0, W=4, F=6, C=3),
        dict(B=2, H=3, W=0, F=6, C=3),
    ),
    gradcheck=(dict(B=2, H=2, W=3, F=3, C=2), dict(B=1, H=3, W=2, F=1, C=1)),
    bench={
        "B=64 28x28 C=16 F=32": dict(B=64, H=28, W=28, F=32, C=16),
        "B=16 32x32 C=64 F=128": dict(B=16, H=32, W=32, F=128, C=64),
        "B=1 28x28 C=16 F=32": dict(B=1, H=28, W=28, F=32, C=16),
    },
    gradients="every order, deterministic; the first is native, the higher ones are computed by the reference",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, sections 3.2, 3.3 and figure 5, arXiv:1601.06759",
)
