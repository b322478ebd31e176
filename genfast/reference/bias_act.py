"""Bias, activation, gain and limit in plain PyTorch: the specification of `genfast.ops.bias_act`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast.reference._kinks import clamp, leaky_relu, relu
from genfast.reference._spec import Inputs, Sizes, Spec, normal

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "swish")


def bias_act_ref(
    x: Tensor,
    bias: Tensor | None = None,
    activation: str = "linear",
    slope: float = 0.2,
    gain: float = 1.0,
    limit: float | None = None,
) -> Tensor:
    """`x` [N, C, ...], `bias` [C], none or empty -> clamp(activation(x + bias) * gain) of the shape of x."""
    if bias is not None and bias.numel():
        x = x + bias.view(-1, *[1] * (x.ndim - 2))
    y = {
        "linear": lambda: x,
        "relu": lambda: relu(x),
        "leaky_relu": lambda: leaky_relu(x, slope),
        "tanh": lambda: x.tanh(),
        "sigmoid": lambda: x.sigmoid(),
        "swish": lambda: x * x.sigmoid(),
    }[activation]()
    y = y * gain
    return y if limit is None or limit == math.inf else clamp(y, -limit, limit)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    # Every activation has its turn; so has no bias, with swish and a leaky relu, and a limit, from 6 on.
    kind = sizes["K"]
    return {
        "x": normal(generator, sizes["B"], sizes["C"], sizes["H"], sizes["W"], scale=2.0),
        "bias": normal(generator, sizes["C"]) if kind not in (5, 8) else None,
        "activation": ACTIVATIONS[kind % 6],
        "slope": 0.2,
        "gain": math.sqrt(2) if kind % 2 else 0.75,
        "limit": 1.25 if kind // 6 else None,
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCHWK", values))


SPEC = Spec(
    name="bias_act",
    reference=bias_act_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 0),
        _sizes(3, 5, 1, 7, 1),
        _sizes(2, 3, 7, 1, 2),
        _sizes(5, 15, 3, 11, 3),
        _sizes(2, 16, 11, 5, 4),
        _sizes(3, 17, 4, 4, 11),
        _sizes(33, 4, 2, 3, 6),
        _sizes(2, 3, 70, 67, 7),
        _sizes(65, 33, 1, 1, 8),
        _sizes(2, 6, 5, 4, 9),
        _sizes(4, 7, 5, 5, 10),
        _sizes(3, 4, 6, 5, 5),
        _sizes(0, 6, 3, 4, 1),
        _sizes(2, 6, 0, 4, 1),
    ),
    gradcheck=(_sizes(2, 2, 2, 3, 10), _sizes(1, 3, 1, 2, 7)),
    bench={"16x128x64x64 leaky relu": _sizes(16, 128, 64, 64, 2), "64x128x14x14 tanh": _sizes(64, 128, 14, 14, 3)},
    compiled=tuple(_sizes(16, 128, 64, 64, kind) for kind in (0, 1, 4, 6, 7, 9, 10, 11)),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    batched=("x",),
    paper="A Style-Based Generator Architecture for GANs, Karras et al. 2019, appendix C, arXiv 1812.04948",
    ranges={"K": range(12)},
)
