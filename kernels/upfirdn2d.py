"""Upsample, filter and downsample in Triton: tiles of the result, in which only samples are read, never a zero between
them. The gradient is the same kernel: the filter reversed, up and down exchanged.
"""

import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of

# Pixels of a tile, of one map or of several small ones; the most of a row.
TILE, WIDEST = 1024, 128


def upfirdn2d_forward(
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
    save: bool,
) -> Tensor:
    """Returns `y` [N, C, OH, OW]."""
    taps_v, taps_h = filter.shape[0], filter.shape[-1]
    height = (x.shape[2] * up_v + top + bottom - taps_v) // down_v + 1
    width = (x.shape[3] * up_h + left + right - taps_h) // down_h + 1
    y = x.new_empty(*x.shape[:2], height, width)
    return _filter(x, filter, y, (up_v, up_h), (down_v, down_h), (top, left), flip=False)


def upfirdn2d_backward(
    grad_y: Tensor,
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
    """Returns `grad_x`."""
    before = filter.shape[0] - 1 - top, filter.shape[-1] - 1 - left
    return _filter(grad_y, filter, x.new_empty(x.shape), (down_v, down_h), (up_v, up_h), before, flip=True)


def _filter(x, filter, y, up, down, before, flip):
    """Fills `y`; `before` is what is padded at the top and on the left."""
    height, width = y.shape[2:]
    block_w = min(WIDEST, triton.next_power_of_2(width))
    block_h = min(TILE // block_w, triton.next_power_of_2(height))
    maps = TILE // (block_w * block_h)
    taps = filter.shape[0], filter.shape[-1]
    # Integer divisions round towards 0: this many samples more keep what they divide from being negative.
    lift = [max(0, triton.cdiv(p - k + 1, u)) for p, k, u in zip(before, taps, up)]
    origin = [k - 1 - p + u * n for p, k, u, n in zip(before, taps, up, lift)]
    if y.numel():
        count = y.shape[:2].numel()
        grid = triton.cdiv(count, maps) * triton.cdiv(height, block_h), triton.cdiv(width, block_w)
        kind = {"KH": taps[0], "KW": taps[1], "UP_V": up[0], "UP_H": up[1], "DOWN_V": down[0], "DOWN_H": down[1]}
        kind |= {"SEPARABLE": filter.ndim == 1, "FLIP": flip, "MAPS": maps, "BLOCK_H": block_h, "BLOCK_W": block_w}
        with device_of(x):
            upfirdn2d_kernel[grid](x, filter, y, count, *x.shape[2:], height, width, *origin, *lift, **kind)
    return y


@triton.jit
def taps_of(filter, phase, step, K: tl.constexpr, UP: tl.constexpr, FLIP: tl.constexpr):
    """The value of the tap that every pixel has at this step, of the shape of `phase`; any value where it has none.
    The filter is read one value for all pixels: one for each would be as many reads as those of the image."""
    value = 0.0
    for p in tl.static_range(UP):
        tap = tl.minimum(step * UP + p, K - 1)
        if FLIP:
            tap = K - 1 - tap
        read = tl.load(filter + tap).to(tl.float32)
        value = read if UP == 1 else tl.where(phase == p, read, value)
    return value


@triton.jit
def upfirdn2d_kernel(
    x,
    filter,
    y,
    COUNT,
    H,
    W,
    HEIGHT,
    WIDTH,
    ORIGIN_V,
    ORIGIN_H,
    LIFT_V,
    LIFT_H,
    KH: tl.constexpr,
    KW: tl.constexpr,
    UP_V: tl.constexpr,
    UP_H: tl.constexpr,
    DOWN_V: tl.constexpr,
    DOWN_H: tl.constexpr,
    SEPARABLE: tl.constexpr,
    FLIP: tl.constexpr,
    MAPS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    blocks = tl.cdiv(HEIGHT, BLOCK_H)
    r = tl.arange(0, MAPS * BLOCK_H)[:, None]
    image = (tl.program_id(0) // blocks).to(tl.int64) * MAPS + r // BLOCK_H
    row = tl.program_id(0) % blocks * BLOCK_H + r % BLOCK_H
    column = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    # Sample i lies at BEFORE + i UP of the padded image, and tap k of this pixel reads `v - k` of it.
    v, h = row * DOWN_V + ORIGIN_V, column * DOWN_H + ORIGIN_H
    phase_v, phase_h, last_v, last_h = v % UP_V, h % UP_H, v // UP_V - LIFT_V, h // UP_H - LIFT_H
    total = tl.zeros((MAPS * BLOCK_H, BLOCK_W), tl.float32)
    # A sample may be read for a pixel that is not there: two more masks in the loops would be registers to spill.
    for step_v in range((KH + UP_V - 1) // UP_V):
        i = last_v - step_v
        inside_v = (phase_v + step_v * UP_V < KH) & (i >= 0) & (i < H) & (image < COUNT)
        samples = x + (image * H + i) * W
        for step_h in range((KW + UP_H - 1) // UP_H):
            j = last_h - step_h
            inside_h = (phase_h + step_h * UP_H < KW) & (j >= 0) & (j < W)
            if SEPARABLE:
                value = taps_of(filter, phase_v, step_v, KH, UP_V, FLIP)
                value *= taps_of(filter, phase_h, step_h, KW, UP_H, FLIP)
            else:
                value = 0.0
                for p in tl.static_range(UP_V):
                    at = tl.minimum(step_v * UP_V + p, KH - 1)
                    if FLIP:
                        at = KH - 1 - at
                    along = taps_of(filter + at * KW, phase_h, step_h, KW, UP_H, FLIP)
                    value = along if UP_V == 1 else tl.where(phase_v == p, along, value)
            total += value * tl.load(samples + j, mask=inside_v & inside_h, other=0.0).to(tl.float32)
    inside = (image < COUNT) & (row < HEIGHT) & (column < WIDTH)
    tl.store(y + (image * HEIGHT + row) * WIDTH + column, total.to(y.dtype.element_ty), mask=inside)
