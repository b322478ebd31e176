"""The gated activation in plain PyTorch: the specification of `genfast.ops.gated_activation`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal


def gated_activation_ref(x: Tensor) -> Tensor:
    """`x` [B, 2C, ...] -> tanh of the first half of dimension 1 times sigmoid of the second, [B, C, ...]."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {"x": normal(generator, sizes["B"], 2 * sizes["C"], sizes["H"], sizes["W"], scale=2.0)}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCHW", values))


SPEC = Spec(
    name="gated_activation",
    reference=gated_activation_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1),
        _sizes(3, 5, 1, 7),
        _sizes(2, 3, 7, 1),
        _sizes(5, 15, 3, 11),
        _sizes(2, 16, 11, 5),
        _sizes(3, 17, 4, 4),
        _sizes(2, 33, 12, 13),
        _sizes(33, 4, 2, 3),
        _sizes(2, 64, 9, 8),
        _sizes(0, 6, 3, 4),
        _sizes(2, 6, 0, 4),
    ),
    gradcheck=(_sizes(2, 2, 2, 3), _sizes(1, 1, 3, 1)),
    bench={"B=16 C=32 32x32": _sizes(16, 32, 32, 32), "B=64 C=64 28x28": _sizes(64, 64, 28, 28)},
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Conditional Image Generation with PixelCNN Decoders, van den Oord et al. 2016, eq. 2, arXiv 1606.05328",
)
