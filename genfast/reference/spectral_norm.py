"""Spectral normalisation of a stack of matrices in plain PyTorch: the specification of `genfast.ops.spectral_norm` and
`genfast.ops.power_iteration`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal

# The least length that a vector is divided by, as in torch.nn.functional.normalize.
EPSILON = 1e-12


def spectral_norm_ref(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """`weight` [L, R, C], `u` [L, R], `v` [L, C] -> every matrix over its u^T W v; half types by float32."""
    matrices, left, right = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (weight, u, v))
    sigma = torch.einsum("lr,lrc,lc->l", left, matrices, right)
    return (matrices / sigma[:, None, None]).to(weight.dtype)


def power_iteration_ref(weight: Tensor, u: Tensor, v: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """`weight` [L, R, C], `u` [L, R], `v` [L, C] -> u and v after so many steps of the power method,
    float32 or wider."""
    weight, u, v = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (weight, u, v))
    for _ in range(iterations):
        u = _unit(torch.einsum("lrc,lc->lr", weight, v))
        v = _unit(torch.einsum("lrc,lr->lc", weight, u))
    return u.clone(), v.clone()


def _unit(x: Tensor) -> Tensor:
    return x / (x**2).sum(1, keepdim=True).sqrt().clamp(min=EPSILON)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    layers, rows, columns = sizes["B"], sizes["R"], sizes["C"]
    weight = normal(generator, layers, rows, columns)
    # Near the first singular vectors, as after some steps: a random u^T W v may be near 0.
    u, v = normal(generator, layers, rows), normal(generator, layers, columns)
    u, v = power_iteration_ref(weight, u, v, 3)
    return {"weight": weight, "u": u, "v": v}


def _make_iteration(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {**_make(sizes, generator), "iterations": sizes["N"]}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BRCN", values))


_SHAPES = (
    _sizes(1, 1, 1, 1),
    _sizes(3, 5, 7, 2),
    _sizes(2, 17, 16, 1),
    _sizes(4, 16, 33, 3),
    _sizes(5, 64, 9, 1),
    _sizes(1, 33, 70, 0),
    _sizes(33, 3, 5, 1),
    _sizes(2, 70, 130, 1),
    _sizes(0, 4, 3, 1),
)
_BENCH = {"20 layers 128x1152": _sizes(20, 128, 1152, 1), "20 layers 64x576": _sizes(20, 64, 576, 1)}
_PAPER = "Spectral Normalization for Generative Adversarial Networks, Miyato et al. 2018, algorithm 1, arXiv 1802.05957"
_RANGES = {"R": range(1, 36), "C": range(1, 36), "N": range(3)}

SPEC = Spec(
    name="spectral_norm",
    reference=spectral_norm_ref,
    make=_make,
    shapes=_SHAPES,
    gradcheck=(_sizes(2, 2, 3, 1), _sizes(1, 3, 1, 1)),
    bench=_BENCH,
    gradients="every order in the three tensors, deterministic; the first is native, the higher ones run the reference",
    batched=("weight", "u", "v"),
    paper=_PAPER,
    ranges=_RANGES,
)
ITERATION = Spec(
    name="power_iteration",
    reference=power_iteration_ref,
    make=_make_iteration,
    shapes=_SHAPES,
    gradcheck=(_sizes(3, 4, 5, 1), _sizes(2, 1, 2, 2)),
    bench=_BENCH,
    gradients="none",
    kind="non_differentiable",
    batched=("weight", "u", "v"),
    paper=_PAPER,
    ranges=_RANGES,
)
