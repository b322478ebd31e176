"""Sums of a kernel in plain PyTorch: the specification of `genfast.ops.kernel_sum`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal

KERNELS = ("polynomial", "gaussian")


def kernel_sum_ref(x: Tensor, y: Tensor, kernel: int, gamma: float, coef0: float, degree: int) -> Tensor:
    """`x` [N, D], `y` [M, D] -> the sum over the rows of y of k(x, y) [N], in float64; `kernel` counts in KERNELS."""
    x, y = x.double(), y.double()
    rows = max(1, 2**22 // max(1, len(y)))
    parts = []
    for part in x.split(rows):
        if KERNELS[kernel] == "polynomial":
            parts.append(((gamma * (part @ y.T) + coef0) ** degree).sum(1))
        else:
            squares = (part**2).sum(1)[:, None] + (y**2).sum(1) - 2 * part @ y.T
            parts.append((-gamma * squares.clamp(min=0)).exp().sum(1))
    return torch.cat(parts) if parts else x.new_empty(0)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {
        "x": normal(generator, sizes["B"], sizes["C"]),
        "y": normal(generator, sizes["M"], sizes["C"]),
        "kernel": KERNELS[sizes["G"]],
        "gamma": 0.3,
        "coef0": 1.0,
        "degree": 3,
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BMCG", values))


SPEC = Spec(
    name="kernel_sum",
    reference=kernel_sum_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 0),
        _sizes(7, 5, 3, 1),
        _sizes(2, 64, 16, 0),
        _sizes(65, 33, 17, 1),
        _sizes(29, 130, 64, 0),
        _sizes(13, 65, 8, 1),
        _sizes(0, 4, 3, 0),
        _sizes(3, 0, 3, 1),
    ),
    gradcheck=(_sizes(5, 4, 3, 0), _sizes(1, 2, 2, 1)),
    bench={"N=M=10000 D=64 polynomial": _sizes(10000, 10000, 64, 0), "gaussian": _sizes(10000, 10000, 64, 1)},
    compiled=(_sizes(10000, 10000, 2048, 0), _sizes(10000, 10000, 2048, 1)),
    gradients="none",
    kind="non_differentiable",
    paper="Demystifying MMD GANs, Binkowski et al. 2018, section 4, arXiv 1801.01401",
)
