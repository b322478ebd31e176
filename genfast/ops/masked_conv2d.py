"""A convolution that reads the pixels before the current one in raster order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import check_shape, check_tensors, check_whole
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.masked_conv2d import masked_conv2d_ref, tap_mask

MOST_TAPS = 255  # rows and columns of a kernel


def masked_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: str = "B",
    colors: int = 1,
    dilation: int = 1,
    *,
    backend: str = "auto",
) -> Tensor:
    """Convolve with stride 1, reading only the pixels before the current one in raster order.

    With centre (a, s) = (KH // 2, KW // 2) of the kernel, dilation d, and zeros outside the image::

        y[o, i, j] = bias[o] + sum over c and the taps (t, k) before the centre of
                     weight[o, c, t, k] x[c, i + (t - a) d, j + (k - s) d]

    Taps are before the centre in the rows above it and at its left. Of the centre itself, mask A reads the earlier
    colours, mask B also the current one: with n features, feature k has the colour `k * colors // n`. Weights that are
    masked are never read, and their gradient is 0.

    Args:
        x: [B, C, H, W]; B, H and W may be 0; float32, float64, bfloat16 or float16; any strides; one that is channels
            last in memory is not copied.
        weight: [O, C, KH, KW] with KH and KW odd, at most 255.
        bias: [O], or None.
        mask: "A" or "B".
        colors: 1 for grey, 3 for R -> G -> B; at most C and O.
        dilation: d, at least 1.
        backend: "auto", "reference" or "cpp"; see `genfast.explain`. There is no Triton kernel: on a GPU the reference
            calls cuDNN.

    Returns:
        y: [B, O, H, W], channels last in memory on the native backend.

    Raises:
        TypeError: an argument is no strided float tensor, dtypes differ, or a number is no int.
        ValueError: a shape does not fit, a number or the mask is out of its range, devices differ, or the name of the
            backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in x, weight and bias, deterministic. The first is native, each only made where it is wanted;
        higher ones run the reference.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 3.4 and figure 4, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> genfast.masked_conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3), mask="A")
        tensor([[[[0., 1.],
                  [2., 3.]]]])
    """
    op = "masked_conv2d"
    check_tensors(op, x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    if x.ndim != 4 or x.shape[1] == 0:
        raise ValueError(f"{op}: x must have shape [B, C, H, W] with C>=1; got {tuple(x.shape)}")
    if weight.ndim != 4 or weight.shape[0] == 0:
        raise ValueError(f"{op}: weight must have shape [O, C, KH, KW] with O>=1; got {tuple(weight.shape)}")
    outputs, inputs = weight.shape[:2]
    check_shape(op, "weight", weight, (outputs, x.shape[1], *weight.shape[2:]), "[O, C, KH, KW]", C=x.shape[1])
    if bias is not None:
        check_shape(op, "bias", bias, (outputs,), "[O]", O=outputs)
    if mask not in ("A", "B"):
        raise ValueError(f"{op}: mask must be 'A' or 'B'; got {mask!r}")
    check_whole(op, "colors", colors, 1, 2**31)
    check_whole(op, "dilation", dilation, 1, 2**15)
    if colors > min(inputs, outputs):
        raise ValueError(f"{op}: colors must be at most C and O, {inputs} and {outputs}; got {colors}")
    check_kernel(op, weight)
    if colors > 1:
        weight = torch.where(tap_mask(weight.shape, mask, colors).to(weight.device), weight, 0)
    reads_centre = int(mask == "B" or colors > 1)
    bias = x.new_empty(0) if bias is None else bias
    y = _call(x.permute(0, 2, 3, 1), weight, bias, reads_centre, dilation, backend=backend)
    return y.permute(0, 3, 1, 2)


def check_kernel(op: str, weight: Tensor) -> None:
    """The kernel of a weight [O, C, KH, KW] has a centre."""
    sizes = tuple(weight.shape[2:])
    if any(size % 2 == 0 or size > MOST_TAPS for size in sizes):
        raise ValueError(f"{op}: KH and KW of weight must be odd and at most {MOST_TAPS}; got {sizes}")


def _check(op: str, x: Tensor, weight: Tensor, *rest: object) -> None:
    """What the op itself is given."""
    check_kernel(op, weight)


def _reference(x: Tensor, weight: Tensor, bias: Tensor, centre: int, dilation: int) -> Tensor:
    """Of pixels [B, H, W, C]; the weights of the colours are masked already."""
    y = masked_conv2d_ref(
        x.permute(0, 3, 1, 2), weight, bias if bias.numel() else None, "B" if centre else "A", 1, dilation
    )
    return y.permute(0, 2, 3, 1)


def _numbers(x: Tensor, weight: Tensor, centre: int, dilation: int) -> tuple[int, ...]:
    batch, height, width, inputs = x.shape
    return batch, height, width, inputs, weight.shape[0], *weight.shape[2:], dilation, centre


def _allocate(x: Tensor, weight: Tensor, bias: Tensor, centre: int, dilation: int, save: bool) -> Allocated:
    return _numbers(x, weight, centre, dilation), (x.new_empty(*x.shape[:3], weight.shape[0]),)


def _allocate_gradients(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, centre: int, dilation: int, wanted: int
) -> Allocated:
    arguments = (x, weight, bias)
    results = (contiguous_like(t) if wanted >> bit & 1 else t.new_empty(0) for bit, t in enumerate(arguments))
    return _numbers(x, weight, centre, dilation), tuple(results)


_call = register(
    OpSchema(
        name="masked_conv2d",
        autocast="lower",
        arguments={"x": "float [B, H, W, C]", "weight": "float [O, C, K, L]", "bias": "float [O] or none"},
        outputs={"y": "float [B, H, W, O]"},
        residuals=("x", "weight", "bias"),
        optional=("x", "weight", "bias"),
        settings={"centre": "int", "dilation": "SymInt"},
        limits={"C": (1, math.inf), "O": (1, math.inf), "centre": (0, 1), "dilation": (1, 2**15 - 1)},
        check=_check,
        numbers=(
            *("batch", "height", "width", "inputs", "outputs"),
            *("kernel_height", "kernel_width", "dilation", "centre"),
        ),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
        dtypes={"cpp": (torch.float32, torch.float64, torch.bfloat16), "triton": ()},
    ),
    _reference,
)
