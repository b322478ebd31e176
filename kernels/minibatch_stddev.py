"""The minibatch standard deviation in Triton: tiles of a group's images and some of their values, [G, BLOCK]."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of

# Values of a tile; images of it, of which a larger group is read twice.
TILE, MOST = 2048, 16
EPSILON = tl.constexpr(1e-8)


def minibatch_stddev_forward(x: Tensor, group: int, channels: int, save: bool) -> Tensor:
    """Returns `y` [N, C + channels, H, W]."""
    batch, features, height, width = x.shape
    launch = _launch(x, group, channels)
    y = x.new_empty(batch, features + channels, height, width)
    groups, columns = launch["GROUPS"], features // channels * height * width
    parts = x.new_empty(groups, channels, triton.cdiv(columns, launch["BLOCK"]), dtype=torch.float32)
    with device_of(x):
        deviations_kernel[(parts.numel(),)](x, y, parts, **launch)
        append_maps_kernel[(batch * channels,)](
            parts, y, 1 / columns, groups, channels, parts.shape[2], features, height * width, BLOCK=256
        )
    return y


def minibatch_stddev_backward(grad_y: Tensor, x: Tensor, group: int, channels: int) -> Tensor:
    """Returns `grad_x`."""
    grad_x = x.new_empty(x.shape)
    launch = _launch(x, group, channels)
    columns = x.shape[1:].numel() // channels
    with device_of(x):
        minibatch_stddev_backward_kernel[(launch["GROUPS"] * channels * triton.cdiv(columns, launch["BLOCK"]),)](
            grad_y, x, grad_x, 1 / (columns * min(group, len(x))), **launch
        )
    return grad_x


def _launch(x, group, channels):
    size = min(group, len(x))
    block = min(MOST, triton.next_power_of_2(size))
    sizes = {"GROUPS": len(x) // size, "GROUP": size, "CHANNELS": channels, "FEATURES": x.shape[1]}
    blocks = {"WHOLE": size <= block, "BLOCK_G": block, "BLOCK": TILE // block}
    return {**sizes, "PIXELS": x.shape[2:].numel(), **blocks}


@triton.jit
def load_images(x, k, at, inside, STEP, GROUP, SIZE):
    """The values `at` [1, BLOCK] of the images `k` [G, 1] of a group, of which the first is STEP images before the
    next; 0 outside."""
    return tl.load(x + k * STEP * SIZE + at, mask=inside & (k < GROUP), other=0.0).to(tl.float32)


@triton.jit
def moments(x, k, at, inside, GROUPS, GROUP, SIZE, WHOLE: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and standard deviation of each value over the group, [BLOCK], and the first BLOCK_G images of it."""
    images = load_images(x, k, at, inside, GROUPS, GROUP, SIZE)
    if WHOLE:
        mean = tl.sum(images, 0) / GROUP
        error = tl.where(k < GROUP, images - mean[None, :], 0.0)
        squares = tl.sum(error * error, 0)
    else:
        mean, squares = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
        for start in range(0, GROUP, BLOCK_G):
            mean += tl.sum(load_images(x, start + k, at, inside, GROUPS, GROUP, SIZE), 0)
        mean /= GROUP
        for start in range(0, GROUP, BLOCK_G):
            error = load_images(x, start + k, at, inside, GROUPS, GROUP, SIZE) - mean[None, :]
            error = tl.where(start + k < GROUP, error, 0.0)
            squares += tl.sum(error * error, 0)
    return mean, tl.sqrt(squares / GROUP + EPSILON), images


@triton.jit
def place(GROUPS, CHANNELS, FEATURES, PIXELS, BLOCK: tl.constexpr):
    """The first image of the program's group, its block of channels, the columns [1, BLOCK] of that, how many there
    are, and the number of the program among those of the same."""
    columns = FEATURES // CHANNELS * PIXELS
    blocks = tl.cdiv(columns, BLOCK)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    image = (tl.program_id(0) // (blocks * CHANNELS)).to(tl.int64)
    return image, tl.program_id(0) // blocks % CHANNELS, column, columns


@triton.jit
def deviations_kernel(
    x,
    y,
    parts,
    GROUPS,
    GROUP,
    CHANNELS,
    FEATURES,
    PIXELS,
    WHOLE: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copies the images, and sums the standard deviations of a block of columns."""
    image, channel, column, columns = place(GROUPS, CHANNELS, FEATURES, PIXELS, BLOCK)
    k = tl.arange(0, BLOCK_G)[:, None].to(tl.int64)
    size, inside = FEATURES * PIXELS, column < columns
    at = image * size + channel * columns + column
    _, deviation, images = moments(x, k, at, inside, GROUPS, GROUP, size, WHOLE, BLOCK_G, BLOCK)
    valid = tl.program_id(0) % tl.cdiv(columns, BLOCK) * BLOCK + tl.arange(0, BLOCK) < columns
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(valid, deviation, 0.0)))
    wide = (FEATURES + CHANNELS) * PIXELS
    to = image * wide + channel * columns + column
    kind = y.dtype.element_ty
    tl.store(y + k * GROUPS * wide + to, images.to(kind), mask=inside & (k < GROUP))
    if not WHOLE:
        for start in range(BLOCK_G, GROUP, BLOCK_G):
            images = load_images(x, start + k, at, inside, GROUPS, GROUP, size)
            tl.store(y + (start + k) * GROUPS * wide + to, images.to(kind), mask=inside & (start + k < GROUP))


@triton.jit
def append_maps_kernel(parts, y, SCALE, GROUPS, CHANNELS, COUNT, FEATURES, PIXELS, BLOCK: tl.constexpr):
    """One program fills one map of one image."""
    image, channel = (tl.program_id(0) // CHANNELS).to(tl.int64), tl.program_id(0) % CHANNELS
    n = tl.arange(0, BLOCK)
    first = (image % GROUPS * CHANNELS + channel) * COUNT
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COUNT, BLOCK):
        sums += tl.load(parts + first + start + n, mask=start + n < COUNT, other=0.0)
    value = tl.zeros((BLOCK,), tl.float32) + tl.sum(sums) * SCALE
    at = (image * (FEATURES + CHANNELS) + FEATURES + channel) * PIXELS
    for start in range(0, PIXELS, BLOCK):
        tl.store(y + at + start + n, value.to(y.dtype.element_ty), mask=start + n < PIXELS)


@triton.jit
def sum_of_maps(grad_y, at, STEP, GROUP, PIXELS, BLOCK_G: tl.constexpr, BLOCK: tl.constexpr):
    """Of the maps of a group, of which that of the first image is at `at`."""
    k, pixel = tl.arange(0, BLOCK_G)[:, None].to(tl.int64), tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK_G, BLOCK), tl.float32)
    for start in range(0, GROUP, BLOCK_G):
        for first in range(0, PIXELS, BLOCK):
            inside = (start + k < GROUP) & (first + pixel < PIXELS)
            total += tl.load(grad_y + at + (start + k) * STEP + first + pixel, mask=inside, other=0.0).to(tl.float32)
    return tl.sum(total)


@triton.jit
def minibatch_stddev_backward_kernel(
    grad_y,
    x,
    grad_x,
    SCALE,
    GROUPS,
    GROUP,
    CHANNELS,
    FEATURES,
    PIXELS,
    WHOLE: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program sums the gradients of its group's maps for itself."""
    image, channel, column, columns = place(GROUPS, CHANNELS, FEATURES, PIXELS, BLOCK)
    k = tl.arange(0, BLOCK_G)[:, None].to(tl.int64)
    size, wide, inside = FEATURES * PIXELS, (FEATURES + CHANNELS) * PIXELS, column < columns
    at = image * size + channel * columns + column
    # The gradients of the group's images at `at` too: a second tile of addresses would be registers to spill.
    grads = grad_y + image * (wide - size)
    of_map = image * wide + (FEATURES + channel) * PIXELS
    total = sum_of_maps(grad_y, of_map, GROUPS * wide, GROUP, PIXELS, BLOCK_G, BLOCK)
    mean, deviation, images = moments(x, k, at, inside, GROUPS, GROUP, size, WHOLE, BLOCK_G, BLOCK)
    share = total * SCALE / deviation
    kind = grad_x.dtype.element_ty
    for start in range(0, GROUP, BLOCK_G):
        if not WHOLE:
            images = load_images(x, start + k, at, inside, GROUPS, GROUP, size)
        grad = load_images(grads, start + k, at, inside, GROUPS, GROUP, wide)
        grad += share[None, :] * (images - mean[None, :])
        tl.store(grad_x + (start + k) * GROUPS * size + at, grad.to(kind), mask=inside & (start + k < GROUP))
