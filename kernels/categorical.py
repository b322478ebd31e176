"""The categorical likelihood and sampler in Triton: each program holds all levels of a tile of pixels on chip.

Logits are [B, N, L, M], contiguous: N places before the levels and M after them. The pixels of a tile lie one step
apart in memory, along M, or along N where the levels are last (M = 1).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import bits_of, device_of, sum_parts, uniform

# Values of a tile; the sampler's are float64.
LIKELIHOOD, SAMPLER = 4096, 1024


def categorical_nll_forward(x: Tensor, logits: Tensor, channels: int, save: bool) -> Tensor:
    """Returns `nll`, float32 [B]."""
    tiles = _tiles(logits, LIKELIHOOD)
    parts = logits.new_empty(logits.shape[0], tiles["count"] // max(1, logits.shape[0]), dtype=torch.float32)
    if tiles["count"]:
        with device_of(logits):
            categorical_nll_forward_kernel[(tiles["count"],)](x, logits, parts, **tiles["launch"])
    return sum_parts(parts)


def categorical_nll_backward(grad_nll: Tensor, x: Tensor, logits: Tensor, channels: int) -> Tensor:
    """Returns `grad_logits`."""
    tiles = _tiles(logits, LIKELIHOOD)
    grad_logits = logits.new_empty(logits.shape)
    if tiles["count"]:
        with device_of(logits):
            categorical_nll_backward_kernel[(tiles["count"],)](grad_nll, x, logits, grad_logits, **tiles["launch"])
    return grad_logits


def categorical_sample(logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> Tensor:
    """Returns the levels drawn, uint8 [B, N, ...]."""
    tiles = _tiles(logits, SAMPLER)
    draw = logits.new_empty(logits.shape[:2] + logits.shape[3:], dtype=torch.uint8)
    if tiles["count"]:
        with device_of(logits):
            categorical_sample_kernel[(tiles["count"],)](
                logits, draw, seed, first_index, bits_of(temperature), first_element, **tiles["launch"]
            )
    return draw


def _tiles(logits, values):
    """How many programs there are, and the launch of the kernels."""
    batch, places, levels, *inner = logits.shape
    inner = torch.Size(inner).numel()
    last = inner == 1
    runs, length = (1, places) if last else (places, inner)
    block_l = triton.next_power_of_2(levels)
    # Where pixels are neighbours in memory, 32 bytes of each level at least.
    block = max(values // block_l, 1 if last else 32 // logits.element_size())
    block = min(block, triton.next_power_of_2(max(1, length)))
    launch = {"RUNS": runs, "LENGTH": length, "LEVELS": levels, "LAST": last, "BLOCK": block, "BLOCK_L": block_l}
    return {"count": batch * runs * triton.cdiv(length, block), "launch": launch | {"num_warps": 4}}


@triton.jit
def tile(LENGTH, LEVELS: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr, BLOCK_L: tl.constexpr):
    """This program's run of pixels (over images too), its pixels in it, and where its logits are."""
    tiles = tl.cdiv(LENGTH, BLOCK)
    run = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    l = tl.arange(0, BLOCK_L)
    at = run * LENGTH * LEVELS
    if LAST:
        at += p[:, None] * LEVELS + l[None, :]
    else:
        at += l[None, :] * LENGTH + p[:, None]
    return run, p, l, at


@triton.jit
def load_tile(logits, at, p, l, LENGTH, LEVELS: tl.constexpr):
    """Levels past the last read as -inf, pixels past the last as 0."""
    inside = p[:, None] < LENGTH
    values = tl.load(logits + at, mask=inside & (l[None, :] < LEVELS), other=float("-inf"))
    return tl.where(inside, values, 0.0)


@triton.jit
def categorical_nll_forward_kernel(
    x,
    logits,
    parts,
    RUNS,
    LENGTH,
    LEVELS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    run, p, l, at = tile(LENGTH, LEVELS, LAST, BLOCK, BLOCK_L)
    values = load_tile(logits, at, p, l, LENGTH, LEVELS).to(tl.float32)
    level = tl.load(x + run * LENGTH + p, mask=p < LENGTH, other=0).to(tl.int32)
    largest = tl.max(values, 1)
    total = tl.sum(tl.exp(values - largest[:, None]), 1)
    at_level = tl.sum(tl.where(l[None, :] == level[:, None], values, 0.0), 1)
    nll = tl.where(level < LEVELS, largest - at_level + tl.log(total), float("nan"))
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(p < LENGTH, nll, 0.0)))


@triton.jit
def categorical_nll_backward_kernel(
    grad_nll,
    x,
    logits,
    grad_logits,
    RUNS,
    LENGTH,
    LEVELS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    run, p, l, at = tile(LENGTH, LEVELS, LAST, BLOCK, BLOCK_L)
    values = load_tile(logits, at, p, l, LENGTH, LEVELS).to(tl.float32)
    level = tl.load(x + run * LENGTH + p, mask=p < LENGTH, other=0).to(tl.int32)
    weight = tl.load(grad_nll + run // RUNS).to(tl.float32)
    e = tl.exp(values - tl.max(values, 1)[:, None])
    probability = e / tl.sum(e, 1)[:, None]
    grad = weight * (probability - (l[None, :] == level[:, None]).to(tl.float32))
    grad = tl.where(level[:, None] < LEVELS, grad, float("nan")).to(grad_logits.dtype.element_ty)
    tl.store(grad_logits + at, grad, mask=(p[:, None] < LENGTH) & (l[None, :] < LEVELS))


@triton.jit(do_not_specialize=["seed", "first_index", "temperature", "first_element"])
def categorical_sample_kernel(
    logits,
    draw,
    seed,
    first_index,
    temperature,
    first_element,
    RUNS,
    LENGTH,
    LEVELS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    run, p, l, at = tile(LENGTH, LEVELS, LAST, BLOCK, BLOCK_L)
    values = load_tile(logits, at, p, l, LENGTH, LEVELS).to(tl.float64)
    scaled = (values - tl.max(values, 1)[:, None]) / temperature.to(tl.float64, bitcast=True)
    weights = tl.where(scaled < -708.0, 0.0, tl.exp(scaled))
    image = tl.zeros((BLOCK,), tl.int64) + first_index + run // RUNS
    u = uniform(seed, image, first_element + p.to(tl.int64) * RUNS + run % RUNS, 0)
    # A sum by halves may rise at a weight of 0 by rounding: such a level is never the answer.
    passed = (tl.cumsum(weights, 1) > (u * tl.sum(weights, 1))[:, None]) & (weights > 0)
    level = tl.min(tl.where(passed, l[None, :], BLOCK_L), 1)
    level = tl.where(level < LEVELS, level, 0).to(tl.uint8)
    tl.store(draw + run * LENGTH + p, level, mask=p < LENGTH)
