"""Sums of a kernel over pairs of vectors, without the matrix of its values: what MMD and KID are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import FINITE, check_whole
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.ops.nearest_neighbors import check_pair
from genfast.reference.kernel_sum import KERNELS, kernel_sum_ref


def kernel_sum(
    x: Tensor,
    y: Tensor,
    kernel: str = "polynomial",
    gamma: float | None = None,
    coef0: float = 1.0,
    degree: int = 3,
    *,
    backend: str = "auto",
) -> Tensor:
    """The sum over all rows of y of a kernel with every row of x.

    ::

        total[n] = sum over m of (gamma x[n] y[m] + coef0)^degree      "polynomial"
                   sum over m of exp(-gamma |x[n] - y[m]|^2)           "gaussian"

    Products are taken tile by tile, in the dtype of x, and summed in float64 (on a GPU tile sums are float32): the
    [N, M] matrix is never made. The squared distances of the Gaussian kernel have the rounding of |x|^2 - 2 x y + |y|^2
    around the mean of y, wherever it lies: it is subtracted from both where it is more than two standard deviations of
    y from the origin, a coordinate at a time. A polynomial has the rounding of the products themselves.

    Args:
        x: [N, D]; float32, float64, bfloat16 or float16; any strides; D at least 1. Computed in float32 or wider.
        y: [M, D] of the dtype of x.
        kernel: "polynomial" or "gaussian".
        gamma: finite and above 0; 1 / D if not given.
        coef0: of the polynomial; finite.
        degree: of the polynomial; an int from 1 to 8.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        total: [N], float64.

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of x, or a number has another type.
        ValueError: a shape does not fit, a number is out of range, devices differ, or the name of the kernel or of the
            backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None.

    Paper:
        Demystifying MMD GANs, Binkowski et al. 2018, section 4, arXiv 1801.01401.

    Example:
        >>> import torch, genfast
        >>> genfast.kernel_sum(torch.ones(1, 2), torch.ones(3, 2))
        tensor([24.], dtype=torch.float64)
    """
    op = "kernel_sum"
    check_pair(op, x, y)
    if kernel not in KERNELS:
        raise ValueError(f"{op}: kernel must be one of {', '.join(KERNELS)}; got {kernel!r}")
    numbers = {"gamma": 1 / x.shape[1] if gamma is None else gamma, "coef0": coef0}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{op}: {name} must be a number; got {type(value).__name__}")
        if not -math.inf < value < math.inf or (name == "gamma" and value <= 0):
            raise ValueError(f"{op}: {name} must be finite{' and above 0' * (name == 'gamma')}; got {value}")
    check_whole(op, "degree", degree, 1, 9)
    return _sum(x, y, KERNELS.index(kernel), *map(float, numbers.values()), degree, backend=backend)


def _allocate(x: Tensor, y: Tensor, kernel: int, gamma: float, coef0: float, degree: int) -> Allocated:
    rows, depth = x.shape
    return (rows, y.shape[0], depth, kernel, gamma, coef0, degree), (x.new_empty(rows, dtype=torch.float64),)


_sum = register(
    OpSchema(
        name="kernel_sum",
        autocast="float32",
        arguments={"x": "float [N, D]", "y": "float [M, D]"},
        outputs={"total": "float64 [N]"},
        settings={"kernel": "int", "gamma": "float", "coef0": "float", "degree": "SymInt"},
        limits={
            **{"D": (1, math.inf), "kernel": (0, len(KERNELS) - 1), "degree": (1, 8)},
            **{"gamma": (-FINITE, FINITE), "coef0": (-FINITE, FINITE)},
        },
        numbers=("rows", "count", "depth", "is_gaussian", "gamma", "coef0", "degree"),
        allocate=_allocate,
    ),
    kernel_sum_ref,
)
