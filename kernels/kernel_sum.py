"""Sums of a kernel in Triton: products tile by tile, the sum of a row of a tile in float32, that of all in float64."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of
from genfast.kernels._gaussian import exponential
from genfast.kernels._products import centred, half_norms, load_rows, products, tiles


def kernel_sum(x: Tensor, y: Tensor, kernel: int, gamma: float, coef0: float, degree: int) -> Tensor:
    """Returns `total`, float64 [N]."""
    count, size = x.shape
    total = x.new_empty(count, dtype=torch.float64)
    if not len(y):
        total.fill_(0)
    elif count:
        launch = tiles(x, size)
        x, y = centred(x, y) if kernel else (x, y)
        # The polynomial needs no norms; any float32 tensor stands for them.
        norms = (half_norms(x), half_norms(y)) if kernel else (x, y)
        with device_of(x):
            kernel_sum_kernel[(triton.cdiv(count, launch["BLOCK_N"]),)](
                x, y, *norms, total, gamma, coef0, count, len(y), DEGREE=0 if kernel else degree, D=size, **launch
            )
    return total


@triton.jit
def kernel_sum_kernel(
    x,
    y,
    x_norms,
    y_norms,
    total,
    GAMMA,
    COEF0,
    N,
    M,
    DEGREE: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Of the Gaussian kernel where DEGREE is 0, else of the polynomial."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = load_rows(x, n, 0, N, D, BLOCK_D)
    sums = tl.zeros((BLOCK_N,), tl.float64)
    if DEGREE == 0:
        x_norm = tl.load(x_norms + n, mask=n < N, other=0.0)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        product = products(x, rows, n, y, m.to(tl.int64), N, M, D, BLOCK_N, BLOCK_M, BLOCK_D)
        if DEGREE == 0:
            y_norm = tl.load(y_norms + m, mask=m < M, other=0.0)
            half_square = x_norm[:, None] + y_norm[None, :] - product
            exponent = -2 * GAMMA * tl.where(half_square < 0, 0.0, half_square)
            value = tl.where(exponent < -87.0, 0.0, exponential(tl.where(exponent < -87.0, 0.0, exponent)))
        else:
            base = GAMMA * product + COEF0
            value = base
            for _ in tl.static_range(DEGREE - 1):
                value *= base
        sums += tl.sum(tl.where(m[None, :] < M, value, 0.0), 1).to(tl.float64)
    tl.store(total + n, sums, mask=n < N)
