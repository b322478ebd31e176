"""The gate of Gated PixelCNN and PixelCNN++, in one native call."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import check_tensors
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.gated_activation import gated_activation_ref


def gated_activation(x: Tensor, *, backend: str = "auto") -> Tensor:
    """Multiply the tanh of one half of the channels by the sigmoid of the other.

    With a, b = the two halves of dimension 1::

        y = tanh(a) * sigmoid(b)

    Args:
        x: [B, 2C, H, W], C >= 1; B, H and W may be 0; float32, float64, bfloat16 or float16; any strides;
            channels_last memory is read in place.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        y: [B, C, H, W] in (-1, 1); channels_last where x is, else contiguous on the native backends.

    Raises:
        TypeError: x is no strided float tensor.
        ValueError: the shape does not fit, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve this tensor.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order, deterministic. The first is native and recomputes the gate: only x is saved. The higher ones
        run the reference.

    Paper:
        Conditional Image Generation with PixelCNN Decoders, van den Oord et al. 2016, eq. 2, arXiv 1606.05328.

    Example:
        >>> import torch, genfast
        >>> genfast.gated_activation(torch.randn(2, 8, 4, 4)).shape
        torch.Size([2, 4, 4, 4])
    """
    check_tensors("gated_activation", x=x)
    if x.ndim != 4 or x.shape[1] == 0 or x.shape[1] % 2:
        raise ValueError(f"gated_activation: x must have shape [B, 2C, H, W] with C>=1; got {tuple(x.shape)}")
    if not x.is_contiguous() and (pixels := x.permute(0, 2, 3, 1)).is_contiguous():
        batch, features, height, width = x.shape
        y = _call(pixels.flatten(0, 2), backend=backend)
        return y.view(batch, height, width, features // 2).permute(0, 3, 1, 2)
    return _call(x, backend=backend)


def _numbers(x: Tensor) -> tuple[int, int]:
    """How many images there are, and how many values each has after the gate."""
    return x.shape[0], x.shape[1] // 2 * math.prod(x.shape[2:])


def _allocate(x: Tensor, save: bool) -> Allocated:
    rows, channels, *inner = x.shape
    return _numbers(x), (x.new_empty(rows, channels // 2, *inner),)


def _allocate_gradients(grad_y: Tensor, x: Tensor) -> Allocated:
    return _numbers(x), (contiguous_like(x),)


_call = register(
    OpSchema(
        name="gated_activation",
        arguments={"x": "float [N, 2C, ...]"},
        outputs={"y": "float [N, C, ...]"},
        residuals=("x",),
        numbers=("rows", "size"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    gated_activation_ref,
)
