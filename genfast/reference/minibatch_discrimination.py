"""Minibatch discrimination in plain PyTorch: the specification of `genfast.ops.minibatch_discrimination`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._kinks import absolute
from genfast.reference._spec import Inputs, Sizes, Spec, normal


def minibatch_discrimination_ref(features: Tensor, kernel: Tensor, others: Tensor | None = None) -> Tensor:
    """`features` [N, A], `kernel` [A, B, C], `others` [M, A] or none -> closeness of every image to all [N, B]."""
    own = project(features, kernel)
    return closeness_ref(own if others is None else project(features, kernel, others), features.shape[0])


def project(features: Tensor, kernel: Tensor, others: Tensor | None = None) -> Tensor:
    """The rows that are compared, [N + M, B, C]."""
    rows = features if others is None else torch.cat((features, others))
    # Made contiguous: torch computes the gradient of a product in the memory layout of its factor, with other bits.
    return (rows.contiguous() @ kernel.flatten(1)).unflatten(1, kernel.shape[1:])


def closeness_ref(projected: Tensor, rows: int) -> Tensor:
    """`projected` [M, B, C] -> of its first `rows`, the sum of exp(-L1 distance) to all M, [rows, B]."""
    distances = absolute(projected[:rows, None] - projected).sum(3)
    return (-distances).exp().sum(1)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {
        "features": normal(generator, sizes["B"], sizes["A"]),
        "kernel": normal(generator, sizes["A"], sizes["K"], sizes["C"], scale=0.5 / sizes["A"] ** 0.5),
        "others": normal(generator, sizes["M"], sizes["A"]) if sizes["M"] else None,
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BAKCM", values))


SPEC = Spec(
    name="minibatch_discrimination",
    reference=minibatch_discrimination_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 0),
        _sizes(3, 5, 7, 2, 0),
        _sizes(2, 3, 16, 5, 3),
        _sizes(17, 4, 17, 3, 0),
        _sizes(5, 7, 33, 1, 2),
        _sizes(16, 3, 8, 5, 0),
        _sizes(33, 6, 3, 4, 7),
        _sizes(70, 2, 5, 2, 0),
        _sizes(4, 3, 100, 9, 1),
        _sizes(0, 4, 3, 2, 0),
    ),
    gradcheck=(_sizes(3, 2, 2, 2, 0), _sizes(2, 3, 1, 2, 2)),
    bench={"N=256 B=100 C=5": _sizes(256, 128, 100, 5, 0), "N=64 B=50 C=5": _sizes(64, 128, 50, 5, 0)},
    compiled=(_sizes(256, 128, 100, 16, 0),),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    coupled=True,
    paper="Improved Techniques for Training GANs, Salimans et al. 2016, section 3.2, arXiv 1606.03498",
    ranges={"A": range(1, 9), "K": range(1, 36), "C": range(1, 8), "M": range(4)},
)
