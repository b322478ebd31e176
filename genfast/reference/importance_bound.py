"""The importance-weighted bound in plain PyTorch: the specification of `genfast.ops.importance_bound`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal


def importance_bound_ref(log_weights: Tensor) -> Tensor:
    """`log_weights` [B, S] -> the logarithm of their mean in each image [B]; half precision is summed in float32."""
    wide = log_weights.to(torch.promote_types(log_weights.dtype, torch.float32))
    # Without the largest: the gradient of logsumexp takes the difference from its rounded result.
    largest = wide.detach().amax(1, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0)
    return (wide - largest).logsumexp(1) + (largest[:, 0] - math.log(log_weights.shape[1]))


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {"log_weights": normal(generator, sizes["B"], sizes["S"], scale=3.0)}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BS", values))


SPEC = Spec(
    name="importance_bound",
    reference=importance_bound_ref,
    make=_make,
    shapes=(
        _sizes(1, 1),
        _sizes(3, 7),
        _sizes(2, 16),
        _sizes(5, 50),
        _sizes(2, 1025),
        _sizes(33, 17),
        _sizes(7, 64),
        _sizes(1, 5000),
        _sizes(64, 3),
        _sizes(0, 4),
    ),
    gradcheck=(_sizes(2, 3), _sizes(1, 5)),
    bench={"B=64 S=50": _sizes(64, 50)},
    compiled=(_sizes(64, 5000),),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Importance Weighted Autoencoders, Burda et al. 2015, equation 8, arXiv 1509.00519",
    ranges={"S": range(1, 80)},
)
