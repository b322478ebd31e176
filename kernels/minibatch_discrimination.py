"""Minibatch discrimination in Triton: each program takes a few images and projections past all images.

A tile is [I, J, B]: lanes run over the projections, warps over the images of the loop, and each thread keeps values of
its own images, so that nothing is exchanged before the last sum and neither pass holds more than its own results.
"""

import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of

# Values of a projection that a program keeps on chip; of more, distances are read from cache once for each part.
MOST = 8
# Images that a program owns, forward and backward; of the loop, one for each warp; projections, one for each lane.
FORWARD, BACKWARD, OTHERS, LANES = 8, 4, 8, 32
BLOCKS = {"BLOCK_J": OTHERS, "BLOCK_B": LANES, "num_warps": OTHERS}


def minibatch_discrimination_forward(projected: Tensor, rows: int, save: bool) -> Tensor:
    """Returns `y` [rows, B]: `projected` [M, B, C], of which the first `rows` are compared with all."""
    count, kernels, size = projected.shape
    y = projected.new_empty(rows, kernels)
    if rows:
        with device_of(projected):
            minibatch_discrimination_forward_kernel[(triton.cdiv(rows, FORWARD), triton.cdiv(kernels, LANES))](
                projected, y, rows, count, kernels, C=size, PART=min(size, MOST), BLOCK_I=FORWARD, **BLOCKS
            )
    return y


def minibatch_discrimination_backward(grad_y: Tensor, projected: Tensor, rows: int) -> Tensor:
    """Returns `grad_projected` [M, B, C]."""
    count, kernels, size = projected.shape
    grad_projected = projected.new_empty(projected.shape)
    part = min(size, MOST)
    if count:
        grid = triton.cdiv(count, BACKWARD), triton.cdiv(kernels, LANES), triton.cdiv(size, part)
        with device_of(projected):
            minibatch_discrimination_backward_kernel[grid](
                grad_y, projected, grad_projected, rows, count, kernels, C=size, PART=part, BLOCK_I=BACKWARD, **BLOCKS
            )
    return grad_projected


@triton.jit
def places(BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_B: tl.constexpr):
    """The program's own images [I, 1, 1], the first images of the loop [1, J, 1] and the projections [1, 1, B]."""
    i = tl.program_id(0).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)[:, None, None]
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)[None, None, :]
    return i, tl.arange(0, BLOCK_J)[None, :, None].to(tl.int64), b


@triton.jit
def load_part(projected, at, inside, first, C: tl.constexpr, PART: tl.constexpr):
    """PART values from `first` on of the vectors at `at`, each a tensor; 0 past the last."""
    values = ()
    for c in tl.static_range(PART):
        values += (tl.load(projected + at + first + c, mask=inside & (first + c < C), other=0.0).to(tl.float32),)
    return values


@triton.jit
def distances(projected, own, other, at_own, at_other, inside_own, inside_other, C: tl.constexpr, PART: tl.constexpr):
    """Of the vectors at both places, of which `own` and `other` are all values or a part of them."""
    total = tl.abs(own[0] - other[0])
    if C == PART:
        for c in tl.static_range(1, PART):
            total += tl.abs(own[c] - other[c])
    else:
        total *= 0
        for c in range(C):
            value = tl.load(projected + at_own + c, mask=inside_own, other=0.0).to(tl.float32)
            total += tl.abs(value - tl.load(projected + at_other + c, mask=inside_other, other=0.0).to(tl.float32))
    return total


@triton.jit
def minibatch_discrimination_forward_kernel(
    projected,
    y,
    N,
    M,
    B,
    C: tl.constexpr,
    PART: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    i, first, b = places(BLOCK_I, BLOCK_J, BLOCK_B)
    # Read by each warp for itself: the tile of the loop then has the layout of its own.
    at_own, inside_own = (i * B + b) * C + first * 0, (i < N) & (b < B) & (first >= 0)
    own = load_part(projected, at_own, inside_own, 0, C, PART)
    total = tl.zeros((BLOCK_I, BLOCK_J, BLOCK_B), tl.float32)
    for start in range(0, M, BLOCK_J):
        j = start + first
        at_other, inside = (j * B + b) * C, (j < M) & (b < B)
        other = load_part(projected, at_other, inside, 0, C, PART)
        distance = distances(projected, own, other, at_own, at_other, inside_own, inside, C, PART)
        total += tl.where(j < M, tl.exp(-distance), 0.0)
    i = tl.program_id(0).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)[:, None]
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)[None, :]
    tl.store(y + i * B + b, tl.sum(total, 1).to(y.dtype.element_ty), mask=(i < N) & (b < B))


@triton.jit
def minibatch_discrimination_backward_kernel(
    grad_y,
    projected,
    grad_projected,
    N,
    M,
    B,
    C: tl.constexpr,
    PART: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Image i pulls on j by the gradients of both, as far as they have one."""
    i, first, b = places(BLOCK_I, BLOCK_J, BLOCK_B)
    start_c = tl.program_id(2) * PART
    at_own, inside_own = (i * B + b) * C + first * 0, (i < M) & (b < B) & (first >= 0)
    own = load_part(projected, at_own, inside_own, start_c, C, PART)
    grad_own = tl.load(grad_y + i * B + b + first * 0, mask=inside_own & (i < N), other=0.0).to(tl.float32)
    grads = ()
    for _ in tl.static_range(PART):
        grads += (tl.zeros((BLOCK_I, BLOCK_J, BLOCK_B), tl.float32),)
    for start in range(0, M, BLOCK_J):
        j = start + first
        at_other, inside = (j * B + b) * C, (j < M) & (b < B)
        other = load_part(projected, at_other, inside, start_c, C, PART)
        distance = distances(projected, own, other, at_own, at_other, inside_own, inside, C, PART)
        grad_other = tl.load(grad_y + j * B + b, mask=inside & (j < N), other=0.0).to(tl.float32)
        pull = tl.where(j < M, (grad_own + grad_other) * tl.exp(-distance), 0.0)
        sums = ()
        for c in tl.static_range(PART):
            difference = own[c] - other[c]
            sums += (grads[c] + tl.where(difference == 0, 0.0, tl.where(difference < 0, pull, -pull)),)
        grads = sums
    i = tl.program_id(0).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)[:, None]
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)[None, :]
    for c in tl.static_range(PART):
        inside = (i < M) & (b < B) & (start_c + c < C)
        total = tl.sum(grads[c], 1).to(grad_projected.dtype.element_ty)
        tl.store(grad_projected + (i * B + b) * C + start_c + c, total, mask=inside)
