"""The residual block of PixelCNN, fused into one native call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import check_shape, check_tensors
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.ops.masked_conv2d import check_kernel
from genfast.reference.pixelcnn_block import pixelcnn_block_ref

_ARGUMENTS = {
    "x": "float [B, H, W, F]",
    "down_weight": "float [C, F]",
    "down_bias": "float [C]",
    "weight": "float [C, C, K, L]",
    "bias": "float [C]",
    "up_weight": "float [F, C]",
    "up_bias": "float [F]",
}


def pixelcnn_block(
    x: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Apply one residual block of PixelCNN: ReLU, 1x1 down, ReLU, masked convolution, ReLU, 1x1 up, residual.

    With `masked_conv2d` of mask B, on pixels [B, H, W, C]::

        inner = relu(relu(x) @ down_weight.T + down_bias)
        outer = relu(masked_conv2d(inner, weight, bias))
        y = x + outer @ up_weight.T + up_bias

    Args:
        x: [B, H, W, F] features, channels last; B, H and W may be 0; float32, float64, bfloat16 or float16; any
            strides.
        down_weight: [C, F].
        down_bias: [C].
        weight: [C, C, KH, KW] with KH and KW odd, at most 255; what comes after the centre is never read.
        bias: [C].
        up_weight: [F, C].
        up_bias: [F].
        backend: "auto", "reference" or "cpp"; see `genfast.explain`. There is no Triton kernel: on a GPU the reference
            calls cuDNN.

    Returns:
        y: [B, H, W, F], contiguous on the native backend.

    Raises:
        TypeError: an argument is no strided float tensor, or dtypes differ.
        ValueError: a shape does not fit, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in all seven tensors, deterministic; that of a ReLU at 0 is 0. The first is native, higher ones run
        the reference.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, figure 5 left, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> from genfast.reference import SPECS
        >>> inputs = SPECS["pixelcnn_block"].inputs(dict(B=2, H=8, W=8, F=32, C=16, K=3))
        >>> genfast.pixelcnn_block(**inputs).shape
        torch.Size([2, 8, 8, 32])
    """
    op = "pixelcnn_block"
    tensors = dict(zip(_ARGUMENTS, (x, down_weight, down_bias, weight, bias, up_weight, up_bias)))
    check_tensors(op, **tensors)
    if x.ndim != 4 or x.shape[3] == 0:
        raise ValueError(f"{op}: x must have shape [B, H, W, F] with F>=1; got {tuple(x.shape)}")
    if weight.ndim != 4 or weight.shape[0] == 0:
        raise ValueError(f"{op}: weight must have shape [C, C, KH, KW] with C>=1; got {tuple(weight.shape)}")
    features, size = x.shape[3], weight.shape[0]
    shapes = {
        "weight": ((size, size, *weight.shape[2:]), "[C, C, KH, KW]"),
        "down_weight": ((size, features), "[C, F]"),
        "down_bias": ((size,), "[C]"),
        "bias": ((size,), "[C]"),
        "up_weight": ((features, size), "[F, C]"),
        "up_bias": ((features,), "[F]"),
    }
    for name, (shape, symbols) in shapes.items():
        check_shape(op, name, tensors[name], shape, symbols, F=features, C=size)
    check_kernel(op, weight)
    return _call(*tensors.values(), backend=backend)


def _check(op: str, x: Tensor, down_weight: Tensor, down_bias: Tensor, weight: Tensor, *rest: Tensor) -> None:
    """What the op itself is given."""
    check_kernel(op, weight)


def _allocate(
    x: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    save: bool,
) -> Allocated:
    size = weight.shape[0]
    inner, outer = (x.new_empty(*x.shape[:3], size) if save else x.new_empty(0) for _ in range(2))
    return (*x.shape, size, *weight.shape[2:]), (contiguous_like(x), inner, outer)


def _allocate_gradients(
    grad_y: Tensor,
    x: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    inner: Tensor,
    outer: Tensor,
) -> Allocated:
    arguments = (x, down_weight, down_bias, weight, bias, up_weight, up_bias)
    return (*x.shape, *weight.shape[1:]), tuple(map(contiguous_like, arguments))


_call = register(
    OpSchema(
        name="pixelcnn_block",
        autocast="lower",
        arguments=_ARGUMENTS,
        outputs={"y": "float [B, H, W, F]"},
        saved={"inner": "float [B, H, W, C]", "outer": "float [B, H, W, C]"},
        limits={"F": (1, math.inf), "C": (1, math.inf)},
        residuals=(*_ARGUMENTS, "inner", "outer"),
        check=_check,
        numbers=("batch", "height", "width", "features", "hidden", "kernel_height", "kernel_width"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
        dtypes={"cpp": (torch.float32, torch.float64, torch.bfloat16), "triton": ()},
    ),
    pixelcnn_block_ref,
)
