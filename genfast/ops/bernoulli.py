"""The Bernoulli distribution of binary pixels: its likelihood and its sampler, each one native call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import (
    DRAW,
    DRAW_LIMITS,
    check_draw,
    check_interleaved,
    check_places,
    check_shape,
    check_tensors,
    check_values,
    check_weight,
    wide,
)
from genfast._native.layout import channels_innermost, contiguous_like, pixels_first
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.bernoulli import bernoulli_nll_ref, bernoulli_sample_ref


def bernoulli_nll(x: Tensor, logits: Tensor, weight: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """Negative log-likelihood of binary images, or cross-entropy of grey values in [0, 1].

    With p = sigmoid(logits)::

        nll[b] = sum over c, h, w of weight (-x log(p) - (1 - x) log(1 - p))

    A term of weight 0 is 0, also for an infinite logit. Channels-last logits are read in place, and their gradient
    is written the same way; the order of the sum is that of c, h, w all the same.

    Args:
        x: [B, C, H, W], uint8 0 or 1, or values in [0, 1] of the dtype of logits; B, H and W may be 0.
        logits: [B, C, H, W]; float32, float64, bfloat16 or float16; any scale, infinite too, any strides.
        weight: [B, C, H, W], bool or uint8 0 and 1, or numbers of at least 0 of the dtype of logits; None for ones.
            Where it is 0 the pixel is missing: its logit, a NaN too, counts for nothing.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        nll: [B], nats per image; float32, or float64 for float64 input: a half type would overflow.

    Raises:
        TypeError: x or weight has another dtype, or logits is no strided float tensor.
        ValueError: a shape does not fit, a value of x or weight is out of range (not looked at while compiling),
            devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in logits, deterministic; x and weight have none. The first is native: nothing is saved but the
        arguments. The higher ones run the reference.

    Paper:
        Auto-Encoding Variational Bayes, Kingma and Welling 2013, appendix C.1, arXiv 1312.6114.

    Example:
        >>> import torch, genfast
        >>> genfast.bernoulli_nll(torch.ones(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, 1, 2, 2))
        tensor([2.7726, 2.7726])
    """
    check_tensors("bernoulli_nll", logits=logits)
    if logits.ndim != 4:
        raise ValueError(f"bernoulli_nll: logits must have shape [B, C, H, W]; got {tuple(logits.shape)}")
    check_values("bernoulli_nll", x, logits)
    sizes = dict(zip("BCHW", logits.shape))
    check_shape("bernoulli_nll", "x", x, tuple(logits.shape), "[B, C, H, W]", **sizes)
    x, weight = x.detach(), check_weight("bernoulli_nll", weight, logits)
    if channels_innermost(logits):
        x, logits = pixels_first(x), pixels_first(logits)
        weight = pixels_first(weight) if weight.ndim == 4 else weight
        return _nll(x, logits, weight, sizes["C"], backend=backend)
    return _nll(x, logits, weight, 1, backend=backend)


def bernoulli_sample(
    logits: Tensor,
    seed: int,
    first_index: int = 0,
    temperature: float = 1.0,
    first_element: int = 0,
    *,
    backend: str = "auto",
) -> Tensor:
    """Draw binary images by one uniform number for each value, the same on every backend.

    With u of image `first_index + b` and element `first_element + (h W + w) C + c`, see `genfast.random.uniform`::

        draw[b, c, h, w] = 1 if u >= sigmoid(-logits[b, c, h, w] / temperature) else 0

    in float64: what `categorical_sample` draws with logits (0, logits). Image number i depends on (seed, i) alone.
    A value of probability 0 (an infinite logit) is never drawn; which one a NaN gives is unspecified.

    Args:
        logits: [B, C, H, W]; float32, float64, bfloat16 or float16; any scale, any strides.
        seed: int in [0, 2**64).
        first_index: index of the first image, int; that of the last is below 2**63.
        temperature: divides the logits; positive and finite.
        first_element: element of the first value, int; that of the last is below 2**32: to draw one pixel of a larger
            image.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        draw: [B, C, H, W], uint8, 0 or 1.

    Raises:
        TypeError: logits is no strided float tensor, or a number has another type.
        ValueError: a shape does not fit, a number is out of range, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 5.3, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> genfast.bernoulli_sample(torch.zeros(1, 1, 1, 6), seed=0).flatten().tolist()
        [0, 0, 0, 1, 0, 0]
    """
    check_tensors("bernoulli_sample", logits=logits)
    if logits.ndim != 4:
        raise ValueError(f"bernoulli_sample: logits must have shape [B, C, H, W]; got {tuple(logits.shape)}")
    settings = check_draw("bernoulli_sample", *_sizes(logits), seed, first_index, temperature, first_element)
    if channels_innermost(logits):
        batch, channels, height, width = logits.shape
        drawn = _sample(pixels_first(logits), *settings, backend=backend)
        return drawn.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return _sample(logits, *settings, backend=backend)


def _check_sample(op: str, logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> None:
    check_places(op, *_sizes(logits), first_index, first_element)


def _sizes(logits: Tensor) -> tuple[int, int]:
    return logits.shape[0], logits.shape[1:].numel()


def _reference(x: Tensor, logits: Tensor, weight: Tensor, channels: int) -> Tensor:
    """`channels`: how many alternate in memory, 1 where one lies after the other; it says in which order to sum."""
    return bernoulli_nll_ref(x, logits, weight)


def _check_channels(op: str, x: Tensor, logits: Tensor, weight: Tensor, channels: int) -> None:
    check_interleaved(op, logits.shape[1:].numel(), channels)


def _numbers(x: Tensor, logits: Tensor, weight: Tensor, channels: int) -> tuple[int | float, ...]:
    return *_sizes(logits), int(x.dtype == torch.uint8), int(weight.dtype == torch.uint8), channels


def _allocate(x: Tensor, logits: Tensor, weight: Tensor, channels: int, save: bool) -> Allocated:
    return _numbers(x, logits, weight, channels), (logits.new_empty(logits.shape[0], dtype=wide(logits.dtype)),)


def _allocate_gradients(grad_nll: Tensor, x: Tensor, logits: Tensor, weight: Tensor, channels: int) -> Allocated:
    return _numbers(x, logits, weight, channels), (contiguous_like(logits),)


def _allocate_sample(logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> Allocated:
    batch, places, *inner = logits.shape
    numbers = (batch, places, math.prod(inner), seed, first_index, first_element, temperature)
    return numbers, (contiguous_like(logits, torch.uint8),)


_nll = register(
    OpSchema(
        name="bernoulli_nll",
        arguments={
            "x": "uint8|float [B, ...]",
            "logits": "float [B, ...]",
            "weight": "uint8|float [B, ...] or none",
        },
        outputs={"nll": "wide [B]"},
        residuals=("x", "logits", "weight"),
        constants=("x", "weight"),
        settings={"channels": "SymInt"},
        limits={"channels": (1, math.inf)},
        check=_check_channels,
        numbers=("batch", "size", "x_is_bytes", "weight_is_bytes", "channels"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    _reference,
)
_sample = register(
    OpSchema(
        name="bernoulli_sample",
        arguments={"logits": "float [B, N, ...]"},
        outputs={"draw": "uint8 [B, N, ...]"},
        settings=DRAW,
        limits=DRAW_LIMITS,
        check=_check_sample,
        numbers=("batch", "places", "inner", "seed", "first_index", "first_element", "temperature"),
        allocate=_allocate_sample,
    ),
    bernoulli_sample_ref,
)
