"""Upsampling, filters and downsampling under the names of StyleGAN3 code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genfast import ops
from genfast.compat.stylegan3._backend import backend

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]
# A number for both axes, or one each, (x, y); of a padding also (left, right, top, bottom).
Numbers = int | Sequence[int]
SEPARABLE = 8  # taps from which on `setup_filter` keeps a filter of one dimension


def setup_filter(
    f: Any,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """The filter of the functions below: float32 [K], applied along both axes, or [KH, KW].

    Args:
        f: taps [K] or [KH, KW], a number, or None for the identity.
        device: where it is made.
        normalize: whether it is scaled to a sum of 1.
        flip_filter: whether its order is reversed.
        gain: what an image's brightness is multiplied by.
        separable: whether taps [K] stay one dimension, else they become [K, K]; None: from 8 taps on.
    Raises: ValueError for other taps, or for separable of two dimensions.
    """
    taps = torch.as_tensor(1 if f is None else f, dtype=torch.float32, device="cpu")
    taps = taps.reshape(1) if taps.ndim == 0 else taps
    if taps.ndim > 2 or not taps.numel():
        raise ValueError(f"setup_filter: f must have shape [K] or [KH, KW]; got {tuple(taps.shape)}")
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= SEPARABLE
    if separable and taps.ndim != 1:
        raise ValueError(f"setup_filter: f must have shape [K] to be separable; got {tuple(taps.shape)}")
    if taps.ndim == 1 and not separable:
        taps = taps[:, None] * taps
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(tuple(range(taps.ndim)))
    return (taps * gain ** (taps.ndim / 2)).to(device)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 1,
    down: Numbers = 1,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """Upsample by zeros, pad, convolve with a filter, keep every down-th pixel: `genfast.upfirdn2d`.

    Args:
        x: float [N, C, H, W].
        f: float [K] or [KH, KW] of `setup_filter`, converted to the dtype of x; None for the identity. No gradient.
        up: factor, or (x, y), each at least 1.
        down: factor, or (x, y), each at least 1.
        padding: pixels of the upsampled image: one number, (x, y), or (left, right, top, bottom); negative to crop.
        flip_filter: False: a convolution; True: a correlation.
        gain: factor of the result.
        impl: "cuda": the fastest backend that serves these tensors, wherever they are; "ref": plain PyTorch.
    Returns: [N, C, (H up + top + bottom - KH) // down + 1, (W up + left + right - KW) // down + 1].
    Raises: as `genfast.upfirdn2d`; ValueError for another impl.
    Gradients: every order in x.
    Paper: Analyzing and Improving the Image Quality of StyleGAN, arXiv 1912.04958.
    Example: `upfirdn2d(torch.randn(1, 3, 8, 8), setup_filter([1, 3, 3, 1]), up=2, padding=(2, 1, 2, 1), gain=4)`
    """
    f = torch.ones(1, 1, dtype=torch.float32, device=x.device) if f is None else f
    f = f * gain ** (f.ndim / 2)
    if flip_filter:
        f = f.flip(tuple(range(f.ndim)))
    (up_x, up_y), (down_x, down_y) = _pair("up", up), _pair("down", down)
    return ops.upfirdn2d(
        x, f.to(x.dtype), (up_y, up_x), (down_y, down_x), _sides(padding), backend=backend("upfirdn2d", impl)
    )


def filter2d(
    x: Tensor, f: Tensor | None, padding: Numbers = 0, flip_filter: bool = False, gain: float = 1, impl: str = "cuda"
) -> Tensor:
    """`upfirdn2d` whose result has the size of x, and `padding` more pixels on its sides.

    Args: as in `upfirdn2d`; padding: of the result.
    """
    height, width = _taps(f)
    sides = _more(padding, width // 2, (width - 1) // 2, height // 2, (height - 1) // 2)
    return upfirdn2d(x, f, padding=sides, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 2,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`upfirdn2d` whose result is `up` times as large as x, as bright, and has `padding` more pixels on its sides.

    Args: as in `upfirdn2d`; padding: of the result.
    """
    (up_x, up_y), (height, width) = _pair("up", up), _taps(f)
    sides = _more(padding, (width + up_x - 1) // 2, (width - up_x) // 2, (height + up_y - 1) // 2, (height - up_y) // 2)
    return upfirdn2d(x, f, up, 1, sides, flip_filter, gain * up_x * up_y, impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Numbers = 2,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`upfirdn2d` whose result is x, with `padding` more pixels on its sides, divided in size by `down`.

    Args: as in `upfirdn2d`; padding: of x.
    """
    (down_x, down_y), (height, width) = _pair("down", down), _taps(f)
    sides = _more(
        padding, (width - down_x + 1) // 2, (width - down_x) // 2, (height - down_y + 1) // 2, (height - down_y) // 2
    )
    return upfirdn2d(x, f, 1, down, sides, flip_filter, gain, impl)


def _pair(name: str, value: Numbers) -> tuple[int, int]:
    """(x, y)."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2:
        raise ValueError(f"upfirdn2d: {name} must be an int or 2 of them; got {value!r}")
    return values[0], values[1]


def _sides(padding: Numbers) -> tuple[int, int, int, int]:
    """(left, right, top, bottom)."""
    if not isinstance(padding, int) and len(padding) == 4:
        left, right, top, bottom = padding
        return left, right, top, bottom
    x, y = _pair("padding", padding)
    return x, x, y, y


def _more(padding: Numbers, *own: int) -> tuple[int, ...]:
    return tuple(side + more for side, more in zip(_sides(padding), own))


def _taps(f: Tensor | None) -> tuple[int, int]:
    """(height, width) of a filter."""
    return (1, 1) if f is None else (f.shape[0], f.shape[-1])
