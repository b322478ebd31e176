"""Tiles of products of two sets of vectors, [N, D] and [M, D], that the kernels of distances share.

Of float32 they are three TF32 products: their error is about 2^-21 of |x| |y|, that of a float32 sum about 2^-24
sqrt(D). So a tie is broken by the lower index where products are equal to the bit, as those of equal vectors are, and
either way where they differ by less than that error. Distances take the vectors less a centre: far from
the origin their products would cancel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import HOPPER_SHARED, PRECISION, device_of, shared_memory
from genfast.reference._centre import centre_of


def tiles(like: Tensor, size: int) -> dict[str, int]:
    """The launch of a kernel of products in the dtype of `like`, with `size` values in a vector: what spills nothing.
    A vector of at most the first number of values stays on chip, a longer one is read in parts of the second."""
    if like.element_size() == 2:
        whole, part, warps = 128, 64, 4
    else:
        whole, part, warps = (64, 32, 8) if shared_memory(like) >= HOPPER_SHARED else (16, 16, 8)
    block = max(16, triton.next_power_of_2(size)) if size <= whole else part
    return {"BLOCK_N": 64, "BLOCK_M": 64, "BLOCK_D": block, "num_warps": warps, "num_stages": 2}


def centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both less a centre of y. Half precision rounds what it moves far, so it only moves what is much further."""
    centre = centre_of(y, 2.0 if y.element_size() > 2 else 16.0)
    return x - centre, y - centre


def half_norms(x: Tensor) -> Tensor:
    """|x|^2 / 2 of every row, float32 [N]."""
    norms = x.new_empty(len(x), dtype=torch.float32)
    if len(x):
        block = min(1024, triton.next_power_of_2(x.shape[1]))
        rows = 1024 // block
        with device_of(x):
            half_norms_kernel[(triton.cdiv(len(x), rows),)](x, norms, len(x), x.shape[1], ROWS=rows, BLOCK=block)
    return norms


@triton.jit
def half_norms_kernel(x, norms, N, SIZE, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, SIZE, BLOCK):
        d = start + tl.arange(0, BLOCK)
        inside = (n[:, None] < N) & (d[None, :] < SIZE)
        values = tl.load(x + n[:, None] * SIZE + d[None, :], mask=inside, other=0.0).to(tl.float32)
        squares += values * values
    tl.store(norms + n, 0.5 * tl.sum(squares, 1), mask=n < N)


@triton.jit
def load_rows(x, n, start, N, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = start + tl.arange(0, BLOCK_D)
    return tl.load(x + n[:, None] * D + d[None, :], mask=(n[:, None] < N) & (d[None, :] < D), other=0.0)


@triton.jit
def load_columns(y, m, start, M, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = start + tl.arange(0, BLOCK_D)
    return tl.load(y + m[None, :] * D + d[:, None], mask=(m[None, :] < M) & (d[:, None] < D), other=0.0)


@triton.jit
def products(
    x, rows, n, y, m, N, M, D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr
):
    """x[n] y[m], float32; `rows` are the first BLOCK_D values of x[n], kept on chip where they are all of them."""
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if D <= BLOCK_D:
        total = tl.dot(rows, load_columns(y, m, 0, M, D, BLOCK_D), total, input_precision=PRECISION)
    else:
        for start in range(0, D, BLOCK_D):
            more = load_columns(y, m, start, M, D, BLOCK_D)
            total = tl.dot(load_rows(x, n, start, N, D, BLOCK_D), more, total, input_precision=PRECISION)
    return total
