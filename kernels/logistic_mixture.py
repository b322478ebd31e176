"""The discretised mixture of logistics in Triton: each program holds all components of a tile of pixels on chip.

Positions are in half bins, so that the edges of bins are whole numbers: level v of L is 2v - (L - 1), which is L - 1
times the pixel scaled to [-1, 1]; its bin ends at the position +- 1.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast._native.layout import channels_innermost, empty_like
from genfast.kernels._common import bits_of, device_of, sum_parts, tanh, uniform

# Components times pixels of a program; the sampler's are float64.
LIKELIHOOD, SAMPLER = 512, 512

LOWEST_LOG_SCALE = tl.constexpr(-7.0)
# The end of an edge bin, in scales: its exponential is zero.
FAR = tl.constexpr(1e4)


def logistic_mixture_nll_forward(x: Tensor, params: Tensor, levels: int, save: bool) -> Tensor:
    """Returns `nll`, float32 [B]."""
    tiles = _tiles(params, x.shape[1], LIKELIHOOD)
    parts = params.new_empty(x.shape[0], tiles["tiles"], dtype=torch.float32)
    if parts.numel():
        with device_of(params):
            logistic_mixture_nll_forward_kernel[(parts.numel(),)](
                x, params, parts, levels, X_LAST=channels_innermost(x), **tiles["launch"]
            )
    return sum_parts(parts)


def logistic_mixture_nll_backward(grad_nll: Tensor, x: Tensor, params: Tensor, levels: int) -> Tensor:
    """Returns `grad_params`, in the memory layout of `params`."""
    tiles = _tiles(params, x.shape[1], LIKELIHOOD)
    grad_params = empty_like(params)
    if grad_params.numel():
        with device_of(params):
            logistic_mixture_nll_backward_kernel[(x.shape[0] * tiles["tiles"],)](
                grad_nll, x, params, grad_params, levels, X_LAST=channels_innermost(x), **tiles["launch"]
            )
    return grad_params


def logistic_mixture_sample(
    params: Tensor, levels: int, seed: int, first_index: int, temperature: float, first_element: int, channels: int
) -> Tensor:
    """Returns the levels drawn, uint8 [B, C, H, W]."""
    batch, _, height, width = params.shape
    tiles = _tiles(params, channels, SAMPLER)
    draw = params.new_empty((batch, channels, height, width), dtype=torch.uint8)
    if draw.numel():
        with device_of(params):
            logistic_mixture_sample_kernel[(batch * tiles["tiles"],)](
                params, draw, levels, seed, first_index, bits_of(temperature), first_element, **tiles["launch"]
            )
    return draw


def _tiles(params, channels, values):
    """How many programs an image takes, and the launch of the kernels."""
    _, rows, height, width = params.shape
    size = rows // (3 if channels == 1 else 10)
    block_k = triton.next_power_of_2(size)
    block = min(max(1, values // block_k), triton.next_power_of_2(max(1, height * width)))
    launch = {"LENGTH": height * width, "CHANNELS": channels, "K": size, "LAST": channels_innermost(params)}
    launch |= {"BLOCK": block, "BLOCK_K": block_k, "num_warps": 4}
    return {"tiles": triton.cdiv(height * width, block), "launch": launch}


@triton.jit
def tile(LENGTH, CHANNELS: tl.constexpr, K: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """This program's image and pixels, where their first parameters are, and the step from one row to the next."""
    tiles = tl.cdiv(LENGTH, BLOCK)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    ROWS: tl.constexpr = K * (3 if CHANNELS == 1 else 10)
    at = image * ROWS * LENGTH
    if LAST:
        at += p * ROWS
        step = 1
    else:
        at += p
        step = LENGTH
    return image, p, at, step


@triton.jit
def load_position(x, image, p, c, LENGTH, LEVELS, CHANNELS: tl.constexpr, X_LAST: tl.constexpr):
    """The position of channel `c` at each pixel, [BLOCK, 1]."""
    at = image * CHANNELS * LENGTH
    if X_LAST:
        at += p * CHANNELS + c
    else:
        at += c * LENGTH + p
    level = tl.load(x + at, mask=p < LENGTH, other=0).to(tl.int32)
    return (2 * level - (LEVELS - 1)).to(tl.float32)[:, None]


@triton.jit
def load_row(params, at, inside, step, row, K: tl.constexpr):
    return tl.load(params + at + row * K * step, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def bin_mass(mean, raw_log_scale, coupling, position, LEVELS):
    """The logarithm of the mass of a bin, shift + log(ratio), and its derivatives by the mean and the log-scale.

    With a and b the ends of the bin in scales from the mean, w = b - a, the mass is sigmoid(b) sigmoid(-a) (1 - e^-w),
    in which nothing cancels. A narrow bin keeps log(w) apart: the product of three masses could underflow.
    """
    last = (LEVELS - 1).to(tl.float32)
    log_scale = tl.where(raw_log_scale < LOWEST_LOG_SCALE, LOWEST_LOG_SCALE, raw_log_scale)
    inverse = tl.exp(-log_scale)
    half = inverse / last
    a = half * (tl.fma(mean, -last, position - 1) - coupling)
    b = half * (tl.fma(mean, -last, position + 1) - coupling)
    lowest, highest = position <= -last, position >= last
    a = tl.where(lowest, -FAR, a)
    b = tl.where(highest, FAR, b)
    w = tl.where(lowest | highest, FAR, 2 * half)
    ea, eb, ew = tl.exp(-tl.abs(a)), tl.exp(-tl.abs(b)), tl.exp(-w)
    narrow = w < 1
    y = tl.where(narrow, 0.25 * w * w, 0.0)
    # e^(-w/2) sinh(w/2) / (w/2), to 2e-11
    series = 1 + y / 6 * (1 + y / 20 * (1 + y / 42 * (1 + y / 72)))
    width = tl.where(narrow, tl.exp(-0.5 * w) * series, 1 - ew)
    tail_a = tl.where(a > 0, 1.0, ea) / (1 + ea)
    tail_b = tl.where(b > 0, eb, 1.0) / (1 + eb)
    shift = tl.where(b < 0, b, 0.0) - tl.where(a > 0, a, 0.0)
    shift += tl.where(narrow, tl.log(2 / last) - log_scale, 0.0)
    by_mean = inverse * (tail_a - tail_b)
    by_log_scale = a * tail_a - b * tail_b - tl.where(narrow, 1.0, w) * ew / width
    by_log_scale = tl.where(raw_log_scale < LOWEST_LOG_SCALE, 0.0, by_log_scale)
    return shift, width / ((1 + ea) * (1 + eb)), by_mean, by_log_scale


@triton.jit
def softmax_parts(values, k, K: tl.constexpr):
    """e^(values - largest) of each component, zero past the last."""
    values = tl.where(k[None, :] < K, values, float("-inf"))
    largest = tl.max(values, 1)[:, None]
    return tl.exp(values - largest), largest


@triton.jit
def logistic_mixture_nll_forward_kernel(
    x,
    params,
    parts,
    LEVELS,
    LENGTH,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    X_LAST: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    image, p, at, step = tile(LENGTH, CHANNELS, K, LAST, BLOCK)
    k = tl.arange(0, BLOCK_K)
    at = at[:, None] + k[None, :] * step
    inside = (p[:, None] < LENGTH) & (k[None, :] < K)
    logits = load_row(params, at, inside, step, 0, K)
    shift, ratio = logits, tl.full((BLOCK, BLOCK_K), 1.0, tl.float32)
    red = load_position(x, image, p, 0, LENGTH, LEVELS, CHANNELS, X_LAST)
    position, green = red, red
    for c in tl.static_range(CHANNELS):
        mean = load_row(params, at, inside, step, 1 + c, K)
        log_scale = load_row(params, at, inside, step, 1 + CHANNELS + c, K)
        coupling = tl.zeros((BLOCK, BLOCK_K), tl.float32)
        if c > 0:
            position = load_position(x, image, p, c, LENGTH, LEVELS, CHANNELS, X_LAST)
            coupling = tanh(load_row(params, at, inside, step, 6 + c, K), False) * red
        if c == 1:
            green = position
        if c == 2:
            coupling += tanh(load_row(params, at, inside, step, 9, K), False) * green
        more, factor, _, _ = bin_mass(mean, log_scale, coupling, position, LEVELS)
        shift += more
        ratio *= factor
    share, best = softmax_parts(shift, k, K)
    weight, best_weight = softmax_parts(logits, k, K)
    nll = best_weight - best + tl.log(tl.sum(weight, 1)[:, None]) - tl.log(tl.sum(share * ratio, 1)[:, None])
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(p[:, None] < LENGTH, nll, 0.0)))


@triton.jit
def logistic_mixture_nll_backward_kernel(
    grad_nll,
    x,
    params,
    grad_params,
    LEVELS,
    LENGTH,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    X_LAST: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    image, p, at, step = tile(LENGTH, CHANNELS, K, LAST, BLOCK)
    k = tl.arange(0, BLOCK_K)
    at = at[:, None] + k[None, :] * step
    inside = (p[:, None] < LENGTH) & (k[None, :] < K)
    grad = tl.load(grad_nll + image).to(tl.float32)
    kind = grad_params.dtype.element_ty
    logits = load_row(params, at, inside, step, 0, K)
    mean, log_scale = load_row(params, at, inside, step, 1, K), load_row(params, at, inside, step, 1 + CHANNELS, K)
    red = load_position(x, image, p, 0, LENGTH, LEVELS, CHANNELS, X_LAST)
    shift, ratio, by_red, by_red_scale = bin_mass(mean, log_scale, 0.0, red, LEVELS)
    shift += logits
    if CHANNELS == 3:
        half = 1 / (LEVELS - 1).to(tl.float32)
        green = load_position(x, image, p, 1, LENGTH, LEVELS, CHANNELS, X_LAST)
        blue = load_position(x, image, p, 2, LENGTH, LEVELS, CHANNELS, X_LAST)
        on_green = tanh(load_row(params, at, inside, step, 7, K), False)
        on_blue = tanh(load_row(params, at, inside, step, 8, K), False)
        green_on_blue = tanh(load_row(params, at, inside, step, 9, K), False)
        mean, log_scale = load_row(params, at, inside, step, 2, K), load_row(params, at, inside, step, 5, K)
        more, factor, by_green, by_green_scale = bin_mass(mean, log_scale, on_green * red, green, LEVELS)
        shift += more
        ratio *= factor
        mean, log_scale = load_row(params, at, inside, step, 3, K), load_row(params, at, inside, step, 6, K)
        coupling = on_blue * red + green_on_blue * green
        more, factor, by_blue, by_blue_scale = bin_mass(mean, log_scale, coupling, blue, LEVELS)
        shift += more
        ratio *= factor
    share, _ = softmax_parts(shift, k, K)
    share *= ratio
    share *= -grad / tl.sum(share, 1)[:, None]
    weight, _ = softmax_parts(logits, k, K)
    grad_params += at
    tl.store(grad_params, (weight * (grad / tl.sum(weight, 1)[:, None]) + share).to(kind), mask=inside)
    tl.store(grad_params + K * step, (share * by_red).to(kind), mask=inside)
    tl.store(grad_params + (1 + CHANNELS) * K * step, (share * by_red_scale).to(kind), mask=inside)
    if CHANNELS == 3:
        tl.store(grad_params + 2 * K * step, (share * by_green).to(kind), mask=inside)
        tl.store(grad_params + 3 * K * step, (share * by_blue).to(kind), mask=inside)
        tl.store(grad_params + 5 * K * step, (share * by_green_scale).to(kind), mask=inside)
        tl.store(grad_params + 6 * K * step, (share * by_blue_scale).to(kind), mask=inside)
        by_blue *= share * half
        by_coefficient = share * by_green * half * red * (1 - on_green * on_green)
        tl.store(grad_params + 7 * K * step, by_coefficient.to(kind), mask=inside)
        tl.store(grad_params + 8 * K * step, (by_blue * red * (1 - on_blue * on_blue)).to(kind), mask=inside)
        by_coefficient = by_blue * green * (1 - green_on_blue * green_on_blue)
        tl.store(grad_params + 9 * K * step, by_coefficient.to(kind), mask=inside)


@triton.jit
def load_drawn(params, inside, step, row, K: tl.constexpr):
    return tl.load(params + row * K * step, mask=inside, other=0.0).to(tl.float64)


@triton.jit
def tanh_exact(x):
    """In float64; an infinite exponential gives 1."""
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit
def mixture_levels(
    params,
    inside,
    step,
    seed,
    number,
    element,
    draw,
    temperature,
    LEVELS,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The levels of red, green and blue, all three the first of one channel: int32 [BLOCK].

    `params` [BLOCK] points to the first parameters, `number` and `element` are of the first channels; the component is
    drawn by `draw`, the levels by `draw` + 1.
    """
    k = tl.arange(0, BLOCK_K)
    every = (inside[:, None]) & (k[None, :] < K)
    logits = tl.load(params[:, None] + k[None, :] * step, mask=every, other=0.0).to(tl.float64)
    logits = tl.where(k[None, :] < K, logits, float("-inf"))
    scaled = (logits - tl.max(logits, 1)[:, None]) / temperature
    weights = tl.where(scaled < -708.0, 0.0, tl.exp(scaled))
    passed = uniform(seed, number, element, draw) * tl.sum(weights, 1)
    component = tl.sum(((tl.cumsum(weights, 1) <= passed[:, None]) & (k[None, :] < K - 1)).to(tl.int32), 1)
    params += component * step

    last = (LEVELS - 1).to(tl.float64)
    red, green, blue = (tl.zeros((BLOCK,), tl.int32),) * 3
    for c in tl.static_range(CHANNELS):
        log_scale = load_drawn(params, inside, step, 1 + CHANNELS + c, K)
        log_scale = tl.where(log_scale < LOWEST_LOG_SCALE, LOWEST_LOG_SCALE, log_scale)
        # The middle of the 2^-24 that a number stands for: neither 0 nor 1.
        u = uniform(seed, number, element + c, draw + 1) + 2.9802322387695312e-08
        position = last * load_drawn(params, inside, step, 1 + c, K)
        if c > 0:
            position += tanh_exact(load_drawn(params, inside, step, 6 + c, K)) * (2 * red.to(tl.float64) - last)
        if c == 2:
            position += tanh_exact(load_drawn(params, inside, step, 9, K)) * (2 * green.to(tl.float64) - last)
        position += last * temperature * tl.exp(log_scale) * tl.log(u / (1 - u))
        # Level v has the positions from 2v - L to 2v - L + 2, the lowest and the highest level all beyond them too.
        level = 0.5 * (position + LEVELS)
        level = tl.where(level > 0, level, 0.0)
        level = tl.where(level > last, last, level).to(tl.int32)
        if c == 0:
            red = level
        if c <= 1:
            green = level
        blue = level
    return red, green, blue


@triton.jit(do_not_specialize=["seed", "first_index", "temperature", "first_element"])
def logistic_mixture_sample_kernel(
    params,
    draw,
    LEVELS,
    seed,
    first_index,
    temperature,
    first_element,
    LENGTH,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    image, p, at, step = tile(LENGTH, CHANNELS, K, LAST, BLOCK)
    inside = p < LENGTH
    number = tl.zeros((BLOCK,), tl.int64) + first_index + image
    element = first_element + p.to(tl.int64) * CHANNELS
    red, green, blue = mixture_levels(
        params + at,
        inside,
        step,
        seed,
        number,
        element,
        0,
        temperature.to(tl.float64, bitcast=True),
        LEVELS,
        CHANNELS,
        K,
        BLOCK,
        BLOCK_K,
    )
    draw += image * CHANNELS * LENGTH + p
    tl.store(draw, red.to(tl.uint8), mask=inside)
    if CHANNELS == 3:
        tl.store(draw + LENGTH, green.to(tl.uint8), mask=inside)
        tl.store(draw + 2 * LENGTH, blue.to(tl.uint8), mask=inside)
