"""Minibatch discrimination, the layer that shows a discriminator how alike the images of a batch are."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import check_tensors
from genfast._native.kinds import Sizes
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.minibatch_discrimination import closeness_ref, project


def minibatch_discrimination(
    features: Tensor, kernel: Tensor, others: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """How close every image is to all images of the batch, in B learned projections.

    With M[i] = sum over a of features[i, a] kernel[a], a [B, C] matrix, and j over all images, i itself too as in the
    paper (which adds exactly 1), and over those of `others`::

        y[i, b] = sum over j of exp(-sum over c of |M[i, b, c] - M[j, b, c]|)

    Tiled: neither pass makes the [N, N, B, C] tensor of differences.

    Args:
        features: [N, A]; float32, float64, bfloat16 or float16; any strides; N may be 0.
        kernel: [A, B, C]; A, B and C at least 1.
        others: features of other images that also count, such as those of other processes, [M, A]; or None.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`. The projection is torch's.

    Returns:
        y: [N, B], in [1, N + M].

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of features.
        ValueError: a shape does not fit, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in the three tensors, deterministic; the first is native and recomputes the distances, the higher
        ones run the reference, with its [N, N, B, C] tensor. That of |x| is 0 at 0.

    Paper:
        Improved Techniques for Training GANs, Salimans et al. 2016, section 3.2, arXiv 1606.03498.

    Example:
        >>> import torch, genfast
        >>> genfast.minibatch_discrimination(torch.zeros(3, 2), torch.ones(2, 1, 4))
        tensor([[3.],
                [3.],
                [3.]])
    """
    op = "minibatch_discrimination"
    check_tensors(op, features=features, kernel=kernel, **({} if others is None else {"others": others}))
    if features.ndim != 2 or features.shape[1] < 1:
        raise ValueError(f"{op}: features must have shape [N, A] with A>=1; got {tuple(features.shape)}")
    size = features.shape[1]
    if kernel.ndim != 3 or kernel.shape[0] != size or kernel.numel() == 0:
        raise ValueError(f"{op}: kernel must have shape [A, B, C] with A={size}, B>=1, C>=1; got {tuple(kernel.shape)}")
    if others is not None and (others.ndim != 2 or others.shape[1] != size):
        raise ValueError(f"{op}: others must have shape [M, A] with A={size}; got {tuple(others.shape)}")
    return _closeness(project(features, kernel, others), features.shape[0], backend=backend)


def _check_rows(op: str, projected: Tensor, rows: int) -> Sizes:
    if rows > projected.shape[0]:
        raise ValueError(f"{op}: rows must be at most {projected.shape[0]}, those of projected; got {rows}")
    return {"R": rows}


def _allocate(projected: Tensor, rows: int, save: bool) -> Allocated:
    return (*projected.shape, rows), (projected.new_empty(rows, projected.shape[1]),)


def _allocate_gradients(grad_y: Tensor, projected: Tensor, rows: int) -> Allocated:
    return (*projected.shape, rows), (contiguous_like(projected),)


_closeness = register(
    OpSchema(
        name="minibatch_discrimination",
        autocast="float32",
        arguments={"projected": "float [N, B, C]"},
        outputs={"y": "float [R, B]"},
        residuals=("projected",),
        settings={"rows": "SymInt"},
        limits={"B": (1, math.inf), "C": (1, math.inf), "rows": (0, math.inf)},
        check=_check_rows,
        numbers=("count", "kernels", "dim", "rows"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    closeness_ref,
)
