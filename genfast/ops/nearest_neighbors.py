"""The nearest rows of one set for every row of another, without a matrix of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import check_tensors, check_whole, wide
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.nearest_neighbors import nearest_neighbors_ref

MOST = 1024


def nearest_neighbors(x: Tensor, y: Tensor, k: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The k rows of y that are nearest to every row of x.

    ::

        indices[n] = the k smallest m by |x[n] - y[m]|^2, ascending, the lower index first where they are equal
        squared_distances[n, i] = |x[n] - y[indices[n, i]]|^2

    Candidates are found tile by tile from |y|^2 / 2 - x y, and their distances then taken from the differences, in
    which nothing cancels: memory is O((N + M) (k + D)), and two that are equal within rounding may change places. That
    rounding is relative to the spread of x and y around the mean of y, wherever it lies, for the candidates take both
    less that mean where it is more than two standard deviations of y from the origin, a coordinate at a time.

    Args:
        x: [N, D]; float32, float64, bfloat16 or float16; any strides; D at least 1. Computed in float32 or wider.
        y: [M, D] of the dtype of x.
        k: from 1 to M and to 1024. Among x itself the first is the point: ask for one more.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        (squared_distances, indices): [N, k], float32, or float64 for float64 input, and int64.

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of x, or k is no int.
        ValueError: a shape does not fit, k is out of range, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None.

    Paper:
        Reliable Fidelity and Diversity Metrics for Generative Models, Naeem et al. 2020, arXiv 2002.09797.

    Example:
        >>> import torch, genfast
        >>> genfast.nearest_neighbors(torch.tensor([[1.0]]), torch.tensor([[5.0], [2.0], [1.0]]), 2)
        (tensor([[0., 1.]]), tensor([[2, 1]]))
    """
    op = "nearest_neighbors"
    check_pair(op, x, y)
    _check_count(op, x, y, k)
    return _nearest(x, y, k, backend=backend)


def _check_count(op: str, x: Tensor, y: Tensor, k: int) -> None:
    check_whole(op, "k", k, 1, min(MOST, y.shape[0]) + 1)


def check_pair(op: str, x: Tensor, y: Tensor) -> None:
    """Two sets of vectors of one size."""
    check_tensors(op, x=x, y=y)
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"{op}: x must have shape [N, D] with D>=1; got {tuple(x.shape)}")
    if y.ndim != 2 or y.shape[1] != x.shape[1]:
        raise ValueError(f"{op}: y must have shape [M, D] with D={x.shape[1]}; got {tuple(y.shape)}")


def _allocate(x: Tensor, y: Tensor, k: int) -> Allocated:
    results = x.new_empty((x.shape[0], k), dtype=wide(x.dtype)), x.new_empty((x.shape[0], k), dtype=torch.int64)
    return (x.shape[0], y.shape[0], x.shape[1], k), results


_nearest = register(
    OpSchema(
        name="nearest_neighbors",
        autocast="float32",
        arguments={"x": "float [N, D]", "y": "float [M, D]"},
        outputs={"squared_distances": "wide [N, K]", "indices": "int64 [N, K]"},
        settings={"k": "SymInt"},
        limits={"D": (1, math.inf), "k": (1, MOST)},
        check=_check_count,
        numbers=("rows", "count", "depth", "k"),
        allocate=_allocate,
    ),
    nearest_neighbors_ref,
)
