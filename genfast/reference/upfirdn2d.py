"""Upsample, filter, downsample in plain PyTorch: the specification of `genfast.ops.upfirdn2d`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.reference._spec import Inputs, Sizes, Spec, normal


def upfirdn2d_ref(
    x: Tensor,
    filter: Tensor,
    up: tuple[int, int] = (1, 1),
    down: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Tensor:
    """`x` [N, C, H, W], `filter` [K] or [KH, KW]; `up` and `down` (vertical, horizontal), `padding` (left, right, top,
    bottom) in pixels of the upsampled image, negative to crop; a filter of one dimension is used along both."""
    batch, channels, height, width = x.shape
    # up - 1 zeros after each sample.
    x = F.pad(x[:, :, :, None, :, None], (0, up[1] - 1, 0, 0, 0, up[0] - 1))
    x = x.reshape(batch * channels, 1, height * up[0], width * up[1])
    # One side may be cropped by more than the image has there.
    x = F.pad(F.pad(x, [max(p, 0) for p in padding]), [min(p, 0) for p in padding])
    # torch correlates; a convolution reads the filter backwards.
    if filter.ndim == 1:
        filter = filter[:, None] * filter
    y = F.conv2d(x, filter.flip(0, 1)[None, None])[:, :, :: down[0], :: down[1]]
    return y.reshape(batch, channels, *y.shape[2:])


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    taps = (sizes["K"], sizes["L"]) if sizes["L"] else (sizes["K"],)
    p = sizes["P"]
    return {
        "x": normal(generator, sizes["B"], sizes["C"], sizes["H"], sizes["W"]),
        "filter": normal(generator, *taps),
        "up": (sizes["U"], sizes["V"]),
        "down": (sizes["D"], sizes["E"]),
        # Enough for every filter to fit into the smallest image.
        "padding": (p, sizes["K"] + sizes["L"] - p, sizes["K"] - 1, 2 - p),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCHWKLUVDEP", values))


SPEC = Spec(
    name="upfirdn2d",
    reference=upfirdn2d_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0),
        _sizes(3, 2, 5, 7, 4, 0, 2, 2, 1, 1, 2),
        _sizes(2, 3, 9, 8, 4, 0, 1, 1, 2, 2, 1),
        _sizes(2, 2, 7, 33, 3, 5, 1, 1, 1, 1, 1),
        _sizes(1, 3, 6, 19, 12, 0, 2, 2, 2, 2, 5),
        _sizes(5, 1, 11, 4, 2, 3, 3, 2, 1, 2, 0),
        _sizes(3, 4, 17, 16, 4, 4, 1, 2, 2, 1, -1),
        _sizes(33, 1, 4, 5, 5, 0, 2, 3, 3, 2, 2),
        _sizes(2, 1, 40, 70, 4, 0, 2, 2, 1, 1, 2),
        _sizes(2, 2, 35, 67, 6, 1, 1, 1, 2, 2, 3),
        _sizes(1, 2, 5, 6, 1, 1, 4, 4, 1, 1, -2),
        _sizes(0, 2, 4, 4, 4, 0, 2, 2, 1, 1, 2),
        _sizes(2, 0, 4, 4, 3, 0, 1, 1, 1, 1, 1),
    ),
    gradcheck=(_sizes(1, 2, 3, 4, 3, 0, 2, 1, 1, 2, 1), _sizes(2, 1, 3, 2, 2, 3, 1, 2, 2, 1, -1)),
    bench={
        "up 2, 4 taps, 16x64x64x64": _sizes(16, 64, 64, 64, 4, 0, 2, 2, 1, 1, 2),
        "down 2, 4 taps, 16x64x128x128": _sizes(16, 64, 128, 128, 4, 0, 1, 1, 2, 2, 1),
        "blur, 4 taps, 16x64x64x64": _sizes(16, 64, 64, 64, 4, 0, 1, 1, 1, 1, 1),
    },
    compiled=(_sizes(16, 64, 4, 4, 4, 4, 2, 2, 1, 1, 2), _sizes(16, 64, 64, 64, 12, 0, 1, 1, 1, 1, 5)),
    gradients="every order in x, deterministic and native: the gradient is the same op",
    paper="Analyzing and Improving the Image Quality of StyleGAN, Karras et al. 2020, section 2, arXiv 1912.04958",
    ranges={
        "C": range(1, 4),
        "H": range(1, 9),
        "W": range(1, 40),
        "K": range(1, 7),
        "L": range(6),
        **dict.fromkeys("UVDE", range(1, 4)),
        "P": range(-2, 4),
    },
)
