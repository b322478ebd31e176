"""Upsample, filter and downsample images in one pass: what resampling and blur layers are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast._native.checks import check_tensors
from genfast._native.kinds import Sizes
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.upfirdn2d import upfirdn2d_ref

_FACTORS, _SIDES = ("up_v", "up_h", "down_v", "down_h"), ("left", "right", "top", "bottom")


def upfirdn2d(
    x: Tensor,
    filter: Tensor,
    up: int | tuple[int, int] = 1,
    down: int | tuple[int, int] = 1,
    padding: int | tuple[int, int, int, int] = 0,
    *,
    backend: str = "auto",
) -> Tensor:
    """Upsample images by zeros, pad them, convolve them with a filter and keep every down-th pixel.

    Along each axis, with up - 1 zeros after each sample, p of `padding` before the first, and K taps::

        y[o] = sum over k of filter[k] z[o down + K - 1 - k],   z[p + up i] = x[i], 0 elsewhere

    So a filter of gain 1 has to be multiplied by up along each upsampled axis to keep the brightness.

    Args:
        x: [N, C, H, W]; N and C may be 0; float32, float64, bfloat16 or float16; any strides. Half types are
            computed in float32.
        filter: [KH, KW], or [K] for K taps along both axes, which takes fewer operations; of the dtype of x.
        up: factor, or (vertical, horizontal), each at least 1.
        down: factor, or (vertical, horizontal), each at least 1.
        padding: pixels of the upsampled image on every side, or (left, right, top, bottom) as in
            torch.nn.functional.pad; negative to crop.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        y: [N, C, (H up + top + bottom - KH) // down + 1, (W up + left + right - KW) // down + 1].

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of x, or a factor or padding is no int.
        ValueError: a shape or a factor does not fit, the padded image is smaller than the filter, the filter requires
            a gradient, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in x, deterministic and native: the gradient is this op, with the filter reversed and up and down
        exchanged. None in the filter.

    Paper:
        Analyzing and Improving the Image Quality of StyleGAN, Karras et al. 2020, section 2, arXiv 1912.04958;
        Making Convolutional Networks Shift-Invariant Again, Zhang 2019, arXiv 1904.11486.

    Example:
        >>> import torch, genfast
        >>> genfast.upfirdn2d(torch.ones(1, 1, 1, 2), torch.ones(1, 2), up=(1, 2), padding=(1, 0, 0, 0))
        tensor([[[[1., 1., 1., 1.]]]])
    """
    op = "upfirdn2d"
    check_tensors(op, x=x, filter=filter)
    if x.ndim != 4:
        raise ValueError(f"{op}: x must have shape [N, C, H, W]; got {tuple(x.shape)}")
    if filter.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{op}: filter must not require a gradient, as it has none; got one that does")
    ups, downs = _integers("up", up, 2, 1), _integers("down", down, 2, 1)
    sides = _integers("padding", padding, 4, None)
    _check_padded(op, x, filter, *ups, *downs, *sides)
    return _call(x, filter, *ups, *downs, *sides, backend=backend)


def _check_padded(op: str, x: Tensor, filter: Tensor, *settings: int) -> None:
    if filter.ndim not in (1, 2) or filter.numel() == 0:
        raise ValueError(f"{op}: filter must have shape [K] or [KH, KW] without zeros; got {tuple(filter.shape)}")
    height, width = _padded(x, settings[:2], settings[4:])
    if height < filter.shape[0] or width < filter.shape[-1]:
        got = f"{height} x {width} of x {tuple(x.shape)}"
        taps = f"{filter.shape[0]} x {filter.shape[-1]}"
        raise ValueError(f"{op}: the padded image must be as large as the filter, {taps}; got {got}")


def _check_fit(op: str, x: Tensor, filter: Tensor, *settings: int) -> Sizes:
    """The same for the op itself; returns the sizes of y."""
    _check_padded(op, x, filter, *settings)
    return dict(zip("VU", _made(x, filter, settings)))


def _integers(name: str, value: int | tuple[int, ...], count: int, low: int | None) -> tuple[int, ...]:
    """`value`, one for all or `count` of them, as a tuple."""
    values = (value,) * count if isinstance(value, int) else value
    if not isinstance(values, (tuple, list)) or len(values) != count:
        raise TypeError(f"upfirdn2d: {name} must be an int or {count} of them; got {value!r}")
    if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise TypeError(f"upfirdn2d: {name} must be an int or {count} of them; got {value!r}")
    if low is not None and min(values) < low:
        raise ValueError(f"upfirdn2d: {name} must be at least {low}; got {value!r}")
    return tuple(values)


def _padded(x: Tensor, up: tuple[int, ...], padding: tuple[int, ...]) -> tuple[int, int]:
    left, right, top, bottom = padding
    return x.shape[2] * up[0] + top + bottom, x.shape[3] * up[1] + left + right


def _made(x: Tensor, filter: Tensor, settings: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of what is made."""
    sides = zip(_padded(x, settings[:2], settings[4:]), (filter.shape[0], filter.shape[-1]), settings[2:4])
    return tuple((size - taps) // step + 1 for size, taps, step in sides)


def _reference(
    x: Tensor,
    filter: Tensor,
    up_v: int,
    up_h: int,
    down_v: int,
    down_h: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
) -> Tensor:
    return upfirdn2d_ref(x, filter, (up_v, up_h), (down_v, down_h), (left, right, top, bottom))


def _numbers(x: Tensor, filter: Tensor, y: Tensor, settings: tuple[int, ...]) -> tuple[int | float, ...]:
    # A filter of one dimension has the height 0.
    taps = (0, len(filter)) if filter.ndim == 1 else tuple(filter.shape)
    up_v, up_h, down_v, down_h, left, _, top, _ = settings
    return x.shape[0] * x.shape[1], *x.shape[2:], *y.shape[2:], *taps, up_v, up_h, down_v, down_h, left, top


def _allocate(x: Tensor, filter: Tensor, *settings: int) -> Allocated:
    settings = settings[:-1]  # without `save`
    y = x.new_empty(*x.shape[:2], *_made(x, filter, settings))
    return _numbers(x, filter, y, settings), (y,)


def _allocate_gradients(grad_y: Tensor, x: Tensor, filter: Tensor, *settings: int) -> Allocated:
    return _numbers(x, filter, grad_y, settings), (contiguous_like(x),)


def _adjoint(
    grad_y: Tensor, x: Tensor, filter: Tensor, *settings: int
) -> tuple[tuple[Tensor, Tensor], tuple[int, ...]]:
    """The transposed map: the filter reversed, up and down exchanged."""
    up_v, up_h, down_v, down_h, left, _, top, _ = settings
    sides: list[int] = []
    for size, made, taps, up, down, before in (
        (x.shape[3], grad_y.shape[3], filter.shape[-1], up_h, down_h, left),
        (x.shape[2], grad_y.shape[2], filter.shape[0], up_v, down_v, top),
    ):
        sides += taps - 1 - before, (size - 1) * up + 1 - made * down + before
    return (grad_y, filter.flip(tuple(range(filter.ndim)))), (down_v, down_h, up_v, up_h, *sides)


_call = register(
    OpSchema(
        name="upfirdn2d",
        autocast="lower",
        arguments={"x": "float [N, C, H, W]", "filter": "float [...]"},
        outputs={"y": "float [N, C, V, U]"},
        residuals=("x", "filter"),
        constants=("filter",),
        settings=dict.fromkeys((*_FACTORS, *_SIDES), "SymInt"),
        limits=dict.fromkeys(_FACTORS, (1, 2**31 - 1)) | dict.fromkeys(_SIDES, (-(2**31), 2**31 - 1)),
        check=_check_fit,
        numbers=(
            *("planes", "height", "width", "out_height", "out_width", "taps_v", "taps_h"),
            *("up_v", "up_h", "down_v", "down_h", "left", "top"),
        ),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
        adjoint=_adjoint,
    ),
    _reference,
)
