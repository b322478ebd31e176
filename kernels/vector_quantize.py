"""Vector quantisation in Triton: distances tile by tile with a running minimum, and sums over the rows of each code.

Rows are brought together by a stable sort of their codes, so that every sum has one order: no atomics. The lowest code
wins among vectors that are equal; see `_products` for those that are nearly so.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of, sum_parts
from genfast.kernels._products import centred, half_norms, load_rows, products, tiles

BLOCK, ROWS = 1024, 32


def vector_quantize_forward(
    x: Tensor, codebook: Tensor, commitment: float, codebook_weight: float, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `codes` [N], `quantized` [N, D] and `loss`, float32 []."""
    count, size = x.shape
    codes, quantized = x.new_empty(count, dtype=torch.int64), x.new_empty(x.shape)
    launch = tiles(x, size)
    moved, near = centred(x, codebook)
    parts = x.new_empty(1, triton.cdiv(count, launch["BLOCK_N"]), dtype=torch.float32)
    if count:
        with device_of(x):
            given = x, codebook, moved, near, half_norms(near)
            vector_quantize_kernel[(parts.numel(),)](
                *given, codes, quantized, parts, count, len(codebook), D=size, **launch
            )
    loss = sum_parts(parts, scale=(commitment + codebook_weight) / max(1, x.numel()))
    return codes, quantized, loss.view(())


def vector_quantize_backward(
    grad_quantized: Tensor,
    grad_loss: Tensor,
    x: Tensor,
    codebook: Tensor,
    codes: Tensor,
    commitment: float,
    codebook_weight: float,
    wanted: int,
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of x and of the codebook, the latter empty unless bit 1 of `wanted` is set; an empty
    incoming gradient counts as zero."""
    grad_x, of_loss = x.new_empty(x.shape), grad_loss.numel() > 0
    share = 2 / max(1, x.numel())
    if x.numel():
        given = grad_quantized, grad_loss, x, codebook, codes, grad_x, commitment * share, x.numel(), *codebook.shape
        kind = {"THROUGH": grad_quantized.numel() > 0, "OF_LOSS": of_loss, "BLOCK": BLOCK}
        with device_of(x):
            vector_quantize_backward_kernel[(triton.cdiv(x.numel(), BLOCK),)](*given, **kind)
    if not wanted & 2:
        return grad_x, codebook.new_empty(0)
    grad_codebook = codebook.new_empty(codebook.shape)
    if of_loss:
        _sum_rows(x, codes, grad_codebook, codebook, grad_loss, codebook_weight * share)
    else:
        grad_codebook.fill_(0)
    return grad_x, grad_codebook


def codebook_statistics(x: Tensor, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns `counts` [count] and `sums` [count, D], both float32."""
    sums = x.new_empty((count, x.shape[1]), dtype=torch.float32)
    starts = _sum_rows(x, codes, sums)
    return starts.diff().to(torch.float32), sums


def _sum_rows(x, codes, sums, codebook=None, grad_loss=None, scale=1.0):
    """Fills `sums` with the sum of the rows of each code, or with `scale` times the incoming gradient times the sum of
    the code less the row. Returns where in the sorted rows each code begins, and the end."""
    ordered, order = codes.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(len(sums) + 1, device=codes.device))
    block = min(128, triton.next_power_of_2(x.shape[1]))
    loss = (x, x) if codebook is None else (codebook, grad_loss)
    kind = {"OF_LOSS": codebook is not None, "ROWS": ROWS, "BLOCK_D": block}
    with device_of(x):
        sum_rows_kernel[(len(sums), triton.cdiv(x.shape[1], block))](
            x, order, starts, *loss, sums, scale, x.shape[1], **kind
        )
    return starts


@triton.jit
def vector_quantize_kernel(
    x,
    codebook,
    moved,
    near,
    norms,
    codes,
    quantized,
    parts,
    N,
    K,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = load_rows(moved, n, 0, N, D, BLOCK_D)
    least, code = tl.full((BLOCK_N,), float("inf"), tl.float32), tl.zeros((BLOCK_N,), tl.int32)
    for start in range(0, K, BLOCK_M):
        k = start + tl.arange(0, BLOCK_M)
        distance = tl.load(norms + k, mask=k < K, other=float("inf"))[None, :]
        distance -= products(moved, rows, n, near, k.to(tl.int64), N, K, D, BLOCK_N, BLOCK_M, BLOCK_D)
        low = tl.min(distance, 1)
        first = tl.min(tl.where(distance == low[:, None], k[None, :], K), 1)
        code = tl.where(low < least, first, code)
        least = tl.where(low < least, low, least)
    tl.store(codes + n, code.to(tl.int64), mask=n < N)
    squares = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = (n[:, None] < N) & (d[None, :] < D)
        nearest = tl.load(codebook + code.to(tl.int64)[:, None] * D + d[None, :], mask=inside, other=0.0)
        tl.store(quantized + n[:, None] * D + d[None, :], nearest, mask=inside)
        error = load_rows(x, n, start, N, D, BLOCK_D).to(tl.float32) - nearest.to(tl.float32)
        squares += error * error
    tl.store(parts + tl.program_id(0), tl.sum(squares))


@triton.jit
def vector_quantize_backward_kernel(
    grad_quantized,
    grad_loss,
    x,
    codebook,
    codes,
    grad_x,
    SCALE,
    SIZE,
    COUNT,
    D,
    THROUGH: tl.constexpr,
    OF_LOSS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    grad = tl.zeros((BLOCK,), tl.float32)
    if THROUGH:
        grad += tl.load(grad_quantized + i, mask=i < SIZE, other=0.0).to(tl.float32)
    if OF_LOSS:
        code = tl.load(codes + i // D, mask=i < SIZE, other=0)
        code = tl.where((code >= 0) & (code < COUNT), code, 0)
        error = tl.load(x + i, mask=i < SIZE, other=0.0).to(tl.float32)
        error -= tl.load(codebook + code * D + i % D, mask=i < SIZE, other=0.0).to(tl.float32)
        grad += tl.load(grad_loss).to(tl.float32) * SCALE * error
    tl.store(grad_x + i, grad.to(grad_x.dtype.element_ty), mask=i < SIZE)


@triton.jit
def sum_rows_kernel(
    x,
    order,
    starts,
    codebook,
    grad_loss,
    sums,
    SCALE,
    D,
    OF_LOSS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program sums the rows of one code, in the order of the rows."""
    code = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    first, end = tl.load(starts + code), tl.load(starts + code + 1)
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    if OF_LOSS:
        vector = tl.load(codebook + code * D + d, mask=d < D, other=0.0).to(tl.float32)
    for start in range(first, end, ROWS):
        at = start + tl.arange(0, ROWS)
        n = tl.load(order + at, mask=at < end, other=0)
        inside = (at[:, None] < end) & (d[None, :] < D)
        values = tl.load(x + n[:, None] * D + d[None, :], mask=inside, other=0.0).to(tl.float32)
        if OF_LOSS:
            values = tl.where(inside, vector[None, :] - values, 0.0)
        total += values
    result = tl.sum(total, 0)
    if OF_LOSS:
        result *= tl.load(grad_loss).to(tl.float32) * SCALE
    tl.store(sums + code * D + d, result.to(sums.dtype.element_ty), mask=d < D)
