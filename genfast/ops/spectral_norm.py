"""Spectral normalisation of many layers at once: the power method over a stack of matrices, and the division."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import check_shape, check_tensors, check_whole, wide
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.spectral_norm import power_iteration_ref, spectral_norm_ref

_ARGUMENTS = {"weight": "float [L, R, C]", "u": "float [L, R]", "v": "float [L, C]"}


def spectral_norm(weight: Tensor, u: Tensor, v: Tensor, *, backend: str = "auto") -> Tensor:
    """Divide every matrix of a stack by its largest singular value, as its singular vectors give it.

    ::

        y[l] = weight[l] / sigma[l],   sigma[l] = u[l]^T weight[l] v[l]

    Args:
        weight: [L, R, C]: L layers of one shape; float32, float64, bfloat16 or float16; any strides; R and C at least
            1. Half types are computed in float32.
        u: [L, R], the left vectors: `power_iteration` finds them.
        v: [L, C], the right vectors.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        y: [L, R, C].

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of weight.
        ValueError: a shape does not fit, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in the three tensors, deterministic; the first is native, the higher ones run the reference. The
        paper's is that of weight with u and v detached, which is what `power_iteration` returns.

    Paper:
        Spectral Normalization for Generative Adversarial Networks, Miyato et al. 2018, equations 8 and 12,
        arXiv 1802.05957.

    Example:
        >>> import torch, genfast
        >>> one = torch.tensor([[1.0, 0.0]])
        >>> genfast.spectral_norm(torch.tensor([[[4.0, 0.0], [0.0, 2.0]]]), one, one)
        tensor([[[1.0000, 0.0000],
                 [0.0000, 0.5000]]])
    """
    _check("spectral_norm", weight, u, v)
    return _normalize(weight, u, v, backend=backend)


def power_iteration(
    weight: Tensor, u: Tensor, v: Tensor, iterations: int = 1, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Steps of the power method for the largest singular value of every matrix of a stack.

    Each step, as torch.nn.utils.parametrizations.spectral_norm has it, with |x| clamped to at least 1e-12::

        u[l] = weight[l] v[l] / |weight[l] v[l]|,   v[l] = weight[l]^T u[l] / |weight[l]^T u[l]|

    Args:
        weight: [L, R, C]; float32, float64, bfloat16 or float16; any strides; R and C at least 1.
        u: [L, R]; only read where there are no steps.
        v: [L, C].
        iterations: steps, at least 0.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        (u, v): [L, R] and [L, C], always memory of their own; float32, or float64 for float64 input.

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of weight, or iterations is no int.
        ValueError: a shape does not fit, iterations is negative, devices differ, or the name of the backend is
            unknown.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None.

    Paper:
        Spectral Normalization for Generative Adversarial Networks, Miyato et al. 2018, algorithm 1, arXiv 1802.05957.

    Example:
        >>> import torch, genfast
        >>> weight, one = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0]])
        >>> genfast.power_iteration(weight, one, one)
        (tensor([[1., 0.]]), tensor([[1., 0.]]))
    """
    op = "power_iteration"
    _check(op, weight, u, v)
    check_whole(op, "iterations", iterations, 0, 2**31)
    return _iterate(weight, u, v, iterations, backend=backend)


def _check(op: str, weight: Tensor, u: Tensor, v: Tensor) -> None:
    check_tensors(op, weight=weight, u=u, v=v)
    if weight.ndim != 3 or 0 in weight.shape[1:]:
        raise ValueError(f"{op}: weight must have shape [L, R, C] with R>=1, C>=1; got {tuple(weight.shape)}")
    layers, rows, columns = weight.shape
    check_shape(op, "u", u, (layers, rows), "[L, R]", L=layers, R=rows)
    check_shape(op, "v", v, (layers, columns), "[L, C]", L=layers, C=columns)


def _allocate(weight: Tensor, u: Tensor, v: Tensor, save: bool) -> Allocated:
    sigma = weight.new_empty(weight.shape[0] if save else 0, dtype=wide(weight.dtype))
    return tuple(weight.shape), (contiguous_like(weight), sigma)


def _allocate_gradients(grad_y: Tensor, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, wanted: int) -> Allocated:
    results = (contiguous_like(t) if wanted >> bit & 1 else t.new_empty(0) for bit, t in enumerate((weight, u, v)))
    return tuple(weight.shape), tuple(results)


def _allocate_vectors(weight: Tensor, u: Tensor, v: Tensor, iterations: int) -> Allocated:
    results = tuple(contiguous_like(t, wide(t.dtype)) for t in (u, v))
    return (*weight.shape, iterations), results


_normalize = register(
    OpSchema(
        name="spectral_norm",
        autocast="float32",
        arguments=_ARGUMENTS,
        outputs={"y": "float [L, R, C]"},
        saved={"sigma": "wide [L]"},
        limits={"R": (1, math.inf), "C": (1, math.inf)},
        residuals=("weight", "u", "v", "sigma"),
        optional=("weight", "u", "v"),
        numbers=("layers", "rows", "columns"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    spectral_norm_ref,
)
_iterate = register(
    OpSchema(
        name="power_iteration",
        autocast="float32",
        arguments=_ARGUMENTS,
        outputs={"new_u": "wide [L, R]", "new_v": "wide [L, C]"},
        settings={"iterations": "SymInt"},
        limits={"R": (1, math.inf), "C": (1, math.inf), "iterations": (0, 2**31 - 1)},
        numbers=("layers", "rows", "columns", "iterations"),
        allocate=_allocate_vectors,
    ),
    power_iteration_ref,
)
