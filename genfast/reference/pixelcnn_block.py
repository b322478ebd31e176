"""The residual block of PixelCNN in plain PyTorch: the specification of `genfast.ops.pixelcnn_block`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.reference._spec import Inputs, Sizes, Spec, normal
from genfast.reference.masked_conv2d import masked_conv2d_ref


def pixelcnn_block_ref(
    x: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
) -> Tensor:
    """`x` [B, H, W, F] -> [B, H, W, F]: ReLU, 1x1 down, ReLU, masked convolution, ReLU, 1x1 up, residual."""
    inner = F.linear(x.relu(), down_weight, down_bias).relu()
    outer = masked_conv2d_ref(inner.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1).relu()
    return x + F.linear(outer, up_weight, up_bias)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, height, width, features, size, taps = (sizes[k] for k in "BHWFCK")
    return {
        "x": normal(generator, batch, height, width, features),
        "down_weight": normal(generator, size, features, scale=features**-0.5),
        "down_bias": normal(generator, size, scale=0.5),
        "weight": normal(generator, size, size, taps, taps, scale=(2 / (size * taps * taps)) ** 0.5),
        "bias": normal(generator, size, scale=0.5),
        "up_weight": normal(generator, features, size, scale=size**-0.5),
        "up_bias": normal(generator, features, scale=0.5),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BHWFCK", values))


SPEC = Spec(
    name="pixelcnn_block",
    reference=pixelcnn_block_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 1, 1),
        _sizes(3, 1, 7, 5, 3, 3),
        _sizes(2, 7, 1, 3, 5, 3),
        _sizes(5, 3, 11, 31, 15, 3),
        _sizes(2, 11, 5, 32, 16, 3),
        _sizes(3, 4, 4, 33, 17, 5),
        _sizes(17, 5, 3, 2, 33, 3),
        _sizes(33, 2, 3, 8, 4, 3),
        _sizes(2, 5, 6, 128, 64, 3),
        _sizes(2, 3, 2, 6, 5, 7),
        _sizes(0, 3, 4, 6, 5, 3),
        _sizes(2, 0, 4, 6, 3, 3),
        _sizes(2, 3, 0, 6, 3, 3),
    ),
    gradcheck=(_sizes(2, 2, 3, 3, 2, 3), _sizes(1, 3, 2, 1, 1, 3)),
    bench={
        "B=64 28x28 C=16 F=32": _sizes(64, 28, 28, 32, 16, 3),
        "B=64 28x28 C=32 F=64": _sizes(64, 28, 28, 64, 32, 3),
        "B=16 32x32 C=64 F=128": _sizes(16, 32, 32, 128, 64, 3),
    },
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, figure 5 left, arXiv 1601.06759",
    ranges={"K": (1, 3, 5)},
)
