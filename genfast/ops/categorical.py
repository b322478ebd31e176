"""The categorical distribution over the levels of a pixel: its likelihood and its sampler, each one native call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import (
    DRAW,
    DRAW_LIMITS,
    check_draw,
    check_interleaved,
    check_levels,
    check_places,
    check_shape,
    check_tensors,
    wide,
)
from genfast._native.layout import channels_innermost, contiguous_like, pixels_first
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.categorical import categorical_nll_ref, categorical_sample_ref


def categorical_nll(x: Tensor, logits: Tensor, *, backend: str = "auto") -> Tensor:
    """Negative log-likelihood of images under a softmax for each pixel and channel.

    With l over the levels 0 .. L-1::

        nll[b] = sum over c, h, w of logsumexp_l logits[b, c, l, h, w] - logits[b, c, x[b, c, h, w], h, w]

    Logits are read where the convolution wrote them, [B, C, L, H, W] or with channels last [B, H, W, C, L], and
    their gradient is written the same way; other strides are copied first. The order of the sum is that of c, h, w
    in both. A logit of -inf is a level of
    probability 0: it costs nothing, has gradient 0, and an image in which it occurs has nll inf. Where every logit
    of a pixel is -inf, or one is inf or NaN, the result is NaN.

    Args:
        x: [B, C, H, W], uint8, levels in 0 .. L-1; B, H and W may be 0.
        logits: [B, C, L, H, W], L in 2 .. 256; float32, float64, bfloat16 or float16; any scale, any strides.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        nll: [B], nats per image; float32, or float64 for float64 input: a half type would overflow.

    Raises:
        TypeError: x is no uint8 tensor, or logits no strided float tensor.
        ValueError: a shape does not fit, a level is out of range (not looked at while compiling: such an image then
            has nll NaN on the native backends), devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in logits, deterministic; x has none. The first is native and recomputes the softmax: nothing is
        saved but the two arguments. The higher ones run the reference.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 2.2, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> x = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
        >>> logits = torch.randn(4, 3 * 256, 8, 8).unflatten(1, (3, 256))
        >>> genfast.categorical_nll(x, logits).shape
        torch.Size([4])
    """
    check_tensors("categorical_nll", logits=logits)
    _check_logits("categorical_nll", logits)
    batch, channels, levels, height, width = logits.shape
    check_levels("categorical_nll", x, logits, levels)
    sizes = {"B": batch, "C": channels, "H": height, "W": width}
    check_shape("categorical_nll", "x", x, tuple(sizes.values()), "[B, C, H, W]", **sizes)
    if channels_innermost(logits):
        return _nll(pixels_first(x), pixels_first(logits), channels, backend=backend)
    return _nll(x, logits, 1, backend=backend)


def categorical_sample(
    logits: Tensor,
    seed: int,
    first_index: int = 0,
    temperature: float = 1.0,
    first_element: int = 0,
    *,
    backend: str = "auto",
) -> Tensor:
    """Draw the level of each pixel and channel by one uniform number, the same on every backend.

    With u of image `first_index + b` and element `first_element + (h W + w) C + c`, see `genfast.random.uniform`::

        weight[l] = exp((logits[b, c, l, h, w] - max) / temperature)
        draw[b, c, h, w] = the first l with weight[0] + ... + weight[l] > u (weight[0] + ... + weight[L-1])

    in float64. Image number i depends on (seed, i) alone. A level of probability 0 (logit -inf) is never drawn, and
    nothing outside 0 .. L-1 ever; where every logit is -inf, or one is inf or NaN, which level is drawn is unspecified.

    Args:
        logits: [B, C, L, H, W], L in 2 .. 256; float32, float64, bfloat16 or float16; any scale, any strides; the
            layouts of `categorical_nll` are read in place.
        seed: int in [0, 2**64).
        first_index: index of the first image, int; that of the last is below 2**63.
        temperature: divides the logits; positive and finite.
        first_element: element of the first value, int; that of the last is below 2**32: to draw one pixel of a larger
            image.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        draw: [B, C, H, W], uint8, levels in 0 .. L-1.

    Raises:
        TypeError: logits is no strided float tensor, or a number has another type.
        ValueError: a shape does not fit, a number is out of range, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 2.2, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> genfast.categorical_sample(torch.zeros(1, 1, 4, 1, 6), seed=0).flatten().tolist()
        [1, 1, 1, 3, 1, 1]
    """
    check_tensors("categorical_sample", logits=logits)
    _check_logits("categorical_sample", logits)
    settings = check_draw("categorical_sample", *_sizes(logits), seed, first_index, temperature, first_element)
    if channels_innermost(logits):
        batch, channels, _, height, width = logits.shape
        drawn = _sample(pixels_first(logits), *settings, backend=backend)
        return drawn.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return _sample(logits, *settings, backend=backend)


def _check_logits(op: str, logits: Tensor) -> None:
    if logits.ndim != 5 or not 2 <= logits.shape[2] <= 256:
        got = tuple(logits.shape)
        raise ValueError(f"{op}: logits must have shape [B, C, L, H, W] with L in 2 .. 256; got {got}")


def _check_sample(op: str, logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> None:
    check_places(op, *_sizes(logits), first_index, first_element)


def _sizes(logits: Tensor) -> tuple[int, int]:
    """How many images there are, and how many values each has."""
    return logits.shape[0], logits.shape[1] * logits.shape[3:].numel()


def _numbers(logits: Tensor) -> tuple[int | float, ...]:
    batch, places, levels, *inner = logits.shape
    return batch, places, levels, math.prod(inner)


def _reference(x: Tensor, logits: Tensor, channels: int) -> Tensor:
    """`channels`: how many alternate in memory, 1 where one lies after the other; it says in which order to sum."""
    return categorical_nll_ref(x, logits)


def _check_channels(op: str, x: Tensor, logits: Tensor, channels: int) -> None:
    check_interleaved(op, x.shape[1:].numel(), channels)


def _allocate(x: Tensor, logits: Tensor, channels: int, save: bool) -> Allocated:
    return (*_numbers(logits), channels), (logits.new_empty(logits.shape[0], dtype=wide(logits.dtype)),)


def _allocate_gradients(grad_nll: Tensor, x: Tensor, logits: Tensor, channels: int) -> Allocated:
    return (*_numbers(logits), channels), (contiguous_like(logits),)


def _allocate_sample(logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> Allocated:
    shape = logits.shape[:2] + logits.shape[3:]
    numbers = (*_numbers(logits), seed, first_index, first_element, temperature)
    return numbers, (logits.new_empty(shape, dtype=torch.uint8),)


_nll = register(
    OpSchema(
        name="categorical_nll",
        arguments={"x": "uint8 [B, N, ...]", "logits": "float [B, N, L, ...]"},
        outputs={"nll": "wide [B]"},
        residuals=("x", "logits"),
        constants=("x",),
        settings={"channels": "SymInt"},
        limits={"L": (2, 256), "channels": (1, math.inf)},
        check=_check_channels,
        numbers=("batch", "places", "levels", "inner", "channels"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    _reference,
)
_sample = register(
    OpSchema(
        name="categorical_sample",
        arguments={"logits": "float [B, N, L, ...]"},
        outputs={"draw": "uint8 [B, N, ...]"},
        settings=DRAW,
        limits={"L": (2, 256), **DRAW_LIMITS},
        check=_check_sample,
        numbers=("batch", "places", "levels", "inner", "seed", "first_index", "first_element", "temperature"),
        allocate=_allocate_sample,
    ),
    categorical_sample_ref,
)
