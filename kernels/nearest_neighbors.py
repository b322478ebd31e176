"""Nearest neighbours in Triton: distances tile by tile, the nearest of each row so far in registers.

A tile costs one comparison of its least distance with the worst kept one; what is nearer then goes in one by one. For
more than `MOST` neighbours the kernel runs again, each time for those that come after the last one of the time before:
the same binary, so that a distance has the same bits each time.
Memory is O(N k + M).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of
from genfast.kernels._products import centred, half_norms, load_rows, products, tiles

MOST, PAIRS = 64, 32


def nearest_neighbors(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns `squared_distances`, float32 [N, k], ascending, and `indices`, int64 [N, k]."""
    count, size = x.shape
    squares, indices = x.new_empty((count, k), dtype=torch.float32), x.new_empty((count, k), dtype=torch.int64)
    if not count:
        return squares, indices
    launch = tiles(x, size) | {"BLOCK_K": triton.next_power_of_2(min(MOST, k))}
    bounds = x.new_empty(count, dtype=torch.float32), x.new_empty(count, dtype=torch.int32)
    bounds[0].fill_(-torch.inf)
    bounds[1].fill_(-1)
    with device_of(x):
        moved, near = centred(x, y)
        norms = half_norms(near)
        for start in range(0, k, MOST):
            wanted = count, len(y), k, start, min(MOST, k - start)
            nearest_neighbors_kernel[(triton.cdiv(count, launch["BLOCK_N"]),)](
                moved, near, norms, *bounds, indices, *wanted, D=size, BOUNDED=k > MOST, **launch
            )
        # Ascending indices, which a stable sort by distance keeps where distances are equal.
        indices = indices.sort(1).values
        block = min(128, triton.next_power_of_2(size))
        squared_distances_kernel[(triton.cdiv(count * k, PAIRS),)](
            x, y, indices, squares, count * k, k, size, PAIRS=PAIRS, BLOCK_D=block
        )
    squares, order = squares.sort(dim=1, stable=True)
    return squares, indices.gather(1, order)


@triton.jit(do_not_specialize=["COUNT", "FIRST"])
def nearest_neighbors_kernel(
    x,
    y,
    norms,
    bound_distance,
    bound_index,
    indices,
    N,
    M,
    K,
    FIRST,
    COUNT,
    D: tl.constexpr,
    BOUNDED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The COUNT nearest, in no order, of those that come after the bounds if BOUNDED, into the columns from FIRST."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = load_rows(x, n, 0, N, D, BLOCK_D)
    lane = tl.arange(0, BLOCK_K)
    # Lanes past the last neighbour, and rows past the last one, count as full.
    free = (lane[None, :] < COUNT) & (n[:, None] < N)
    kept = tl.where(free, float("inf"), float("-inf"))
    kept_index = tl.zeros((BLOCK_N, BLOCK_K), tl.int32) + lane[None, :]
    worst = tl.max(kept, 1)
    if BOUNDED:
        after = tl.load(bound_distance + n, mask=n < N, other=0.0)
        after_index = tl.load(bound_index + n, mask=n < N, other=0)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        distance = tl.load(norms + m, mask=m < M, other=float("inf"))[None, :]
        distance -= products(x, rows, n, y, m.to(tl.int64), N, M, D, BLOCK_N, BLOCK_M, BLOCK_D)
        if BOUNDED:
            equal = (distance == after[:, None]) & (m[None, :] > after_index[:, None])
            distance = tl.where((distance > after[:, None]) | equal, distance, float("inf"))
        low = tl.min(distance, 1)
        while tl.max((low < worst).to(tl.int32), 0) > 0:
            nearer = (low < worst)[:, None]
            index = tl.min(tl.where(distance == low[:, None], m[None, :], M), 1)
            # Of the worst ones the highest index goes.
            last = tl.max(tl.where(kept == worst[:, None], kept_index, -1), 1)
            place = nearer & (kept == worst[:, None]) & (kept_index == last[:, None])
            kept = tl.where(place, low[:, None], kept)
            kept_index = tl.where(place, index[:, None], kept_index)
            distance = tl.where(nearer & (m[None, :] == index[:, None]), float("inf"), distance)
            worst = tl.max(kept, 1)
            low = tl.min(distance, 1)
    tl.store(indices + n[:, None] * K + FIRST + lane[None, :], kept_index.to(tl.int64), mask=free)
    tl.store(bound_distance + n, worst, mask=n < N)
    tl.store(bound_index + n, tl.max(tl.where(kept == worst[:, None], kept_index, -1), 1), mask=n < N)


@triton.jit
def squared_distances_kernel(x, y, indices, squares, COUNT, K, SIZE, PAIRS: tl.constexpr, BLOCK_D: tl.constexpr):
    """From the differences, in which nothing cancels."""
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    n, m = pair // K, tl.load(indices + pair, mask=pair < COUNT, other=0)
    total = tl.zeros((PAIRS, BLOCK_D), tl.float32)
    for start in range(0, SIZE, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = (pair[:, None] < COUNT) & (d[None, :] < SIZE)
        error = tl.load(x + n[:, None] * SIZE + d[None, :], mask=inside, other=0.0).to(tl.float32)
        error -= tl.load(y + m[:, None] * SIZE + d[None, :], mask=inside, other=0.0).to(tl.float32)
        total += error * error
    tl.store(squares + pair, tl.sum(total, 1), mask=pair < COUNT)
