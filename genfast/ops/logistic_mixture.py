"""The discretised mixture of logistics, the likelihood of PixelCNN++."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast._native.checks import DRAW, DRAW_LIMITS, check_draw, check_levels, check_places, check_tensors, wide
from genfast._native.layout import channels_innermost, empty_like, in_place_or_copy
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.logistic_mixture import channels_of, logistic_mixture_nll_ref, logistic_mixture_sample_ref


def logistic_mixture_nll(x: Tensor, params: Tensor, levels: int, *, backend: str = "auto") -> Tensor:
    """Negative log-likelihood of images under a discretised mixture of logistics, the likelihood of PixelCNN++.

    The channels of a pixel share the component k of the mixture; a level has the mass of a logistic over its bin::

        P(x) = sum_k softmax(weights)_k prod_c [sigmoid((x_c + h - m_ck) / s_ck) - sigmoid((x_c - h - m_ck) / s_ck)]
        h = 1 / (L - 1), s = exp(max(log_scale, -7))
        m_R = mean_R,  m_G = mean_G + tanh(a) x_R,  m_B = mean_B + tanh(b) x_R + tanh(c) x_G

    with pixels scaled to [-1, 1], 2 x / (L - 1) - 1. The bin of level 0 begins at minus infinity and that of level
    L - 1 ends at infinity, so that the probabilities of all levels sum to one. G and B see the true values of the
    channels before them.

    Args:
        x: uint8 [B, C, H, W], levels 0 to L - 1; C is 1 or 3.
        params: [B, P, H, W]. C=1: P = 3K, K logits of the components, K means, K log-scales. C=3: P = 10K, K logits,
            then three blocks of [3, K]: means of R, G, B; log-scales; coefficients a, b, c before their tanh. Read in
            place if contiguous or channels_last.
        levels: L, 2 to 256.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        nll: [B], nats per image; float32, or float64 for float64 input: a half type would overflow. Finite in float32
        for params up to 1e30. Sums are in one order, on a CPU in float64.

    Raises:
        TypeError: `x` is not uint8, `params` is no strided float tensor, or `levels` is no int.
        ValueError: a shape does not fit, a level is out of range (not looked for while torch.compile traces), devices
            differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in `params`, deterministic; the first is native, recomputes everything and saves nothing but the
        arguments; the higher ones run the reference. A log-scale below -7 has the gradient zero. bfloat16 and float16
        are computed in float32.

    Paper:
        PixelCNN++, Salimans et al. 2017, section 2.1, equations 2 and 3, arXiv 1701.05517. The paper switches to the
        density where a bin's mass is below 1e-5; here the mass is computed without cancellation instead.

    Example:
        >>> import torch, genfast
        >>> x = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
        >>> genfast.logistic_mixture_nll(x, torch.randn(4, 100, 8, 8), 256).shape
        torch.Size([4])
    """
    op = "logistic_mixture_nll"
    _check_params(op, params, levels)
    check_levels(op, x, params, levels)
    batch, _, height, width = params.shape
    if x.ndim != 4 or x.shape[1] not in (1, 3) or (x.shape[0], *x.shape[2:]) != (batch, height, width):
        raise ValueError(
            f"{op}: x must have shape [B, C, H, W] with B={batch}, C=1 or 3, H={height}, W={width}; "
            f"got {tuple(x.shape)}"
        )
    if channels_of(params, x.shape[1]) is None:
        kind = "3K with K>=1 for C=1" if x.shape[1] == 1 else "10K with K>=1 for C=3"
        raise ValueError(f"{op}: params must have shape [B, P, H, W] with P={kind}; got {tuple(params.shape)}")
    return _nll(x, params, levels, backend=backend)


def logistic_mixture_sample(
    params: Tensor,
    levels: int,
    seed: int,
    first_index: int = 0,
    temperature: float = 1.0,
    first_element: int = 0,
    channels: int | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Draw images from a discretised mixture of logistics; what `logistic_mixture_nll` says of `params` holds.

    One number chooses the component, then one for each channel its value, R first::

        k = min {k: softmax(weights / T)_1 + ... + softmax(weights / T)_k > u}
        x_c = m_ck + T s_ck log(u_c / (1 - u_c)), rounded to the nearest level

    where the means of G and B are shifted by the levels just drawn. Computed in float64, so that every backend draws
    the same levels. Pixel p of image b reads `genfast.random.uniform` at image `first_index` + b: for the component
    draw 0 of element `first_element` + p C, for channel c draw 1 of element `first_element` + p C + c.

    Args:
        params: [B, 3K or 10K, H, W] as in `logistic_mixture_nll`.
        levels: L, 2 to 256.
        seed: int in [0, 2**64).
        first_index: index of the first image, that of the last is below 2**63; image i is the same whatever batch it
            is drawn in.
        temperature: positive; divides the logits of the components and multiplies the scales.
        first_element: raster index of the first pixel, times C: for drawing one pixel of an image at a time. That of
            the last value is below 2**32.
        channels: C, 1 or 3; may be left out where P fits only one of the two.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        draw: uint8 [B, C, H, W], levels 0 to L - 1, also for numbers at either end of [0, 1).

    Raises:
        TypeError: `params` is no strided float tensor, or `levels` or `seed` is no int.
        ValueError: a shape does not fit, or a number is out of range.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None; a draw has no derivative.

    Paper:
        PixelCNN++, Salimans et al. 2017, section 2.1, arXiv 1701.05517.

    Example:
        >>> import torch, genfast
        >>> genfast.logistic_mixture_sample(torch.randn(4, 100, 8, 8), 256, seed=0).shape
        torch.Size([4, 3, 8, 8])
    """
    op = "logistic_mixture_sample"
    _check_params(op, params, levels)
    if channels not in (None, 1, 3):
        raise ValueError(f"{op}: channels must be 1 or 3; got {channels!r}")
    count = channels_of(params, channels)
    if count is None:
        kinds = {None: "3K or 10K, and not both unless channels is given,", 1: "3K", 3: "10K"}
        raise ValueError(
            f"{op}: params must have shape [B, P, H, W] with P={kinds[channels]} with K>=1; got {tuple(params.shape)}"
        )
    size = count * params.shape[2:].numel()
    settings = check_draw(op, params.shape[0], size, seed, first_index, temperature, first_element)
    return _sample(params, levels, *settings, count, backend=backend)


def _check_params(op: str, params: Tensor, levels: int) -> None:
    check_tensors(op, params=params)
    if isinstance(levels, bool) or not isinstance(levels, int):
        raise TypeError(f"{op}: levels must be an int; got {type(levels).__name__}")
    if not 2 <= levels <= 256:
        raise ValueError(f"{op}: levels must lie in 2 to 256; got {levels}")
    if params.ndim != 4:
        raise ValueError(f"{op}: params must have shape [B, P, H, W]; got {tuple(params.shape)}")


def _check_channels(op: str, x: Tensor, params: Tensor, levels: int) -> None:
    if channels_of(params, x.shape[1]) is None:
        expected = "3K with K>=1 for C=1, or 10K with K>=1 for C=3"
        raise ValueError(f"{op}: params must have shape [B, P, H, W] with P={expected}; got {tuple(params.shape)}")


def _check_draw(
    op: str,
    params: Tensor,
    levels: int,
    seed: int,
    first_index: int,
    temperature: float,
    first_element: int,
    channels: int,
) -> None:
    batch, _, height, width = params.shape
    if channels_of(params, channels) is None:
        raise ValueError(f"{op}: channels must fit params {tuple(params.shape)}; got {channels}")
    check_places(op, batch, channels * height * width, first_index, first_element)


def _sizes(channels: int, params: Tensor, levels: int) -> tuple[int, ...]:
    """B, C, K, H W, L, as the C++ functions read them."""
    batch, size, height, width = params.shape
    return batch, channels, size // (3 if channels == 1 else 10), height * width, levels


def _layouts(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(int(channels_innermost(tensor)) for tensor in tensors)


def _allocate(x: Tensor, params: Tensor, levels: int, save: bool) -> Allocated:
    nll = params.new_empty(params.shape[0], dtype=wide(params.dtype))
    return (*_sizes(x.shape[1], params, levels), *_layouts(x, params)), (nll,)


def _allocate_gradients(grad_nll: Tensor, x: Tensor, params: Tensor, levels: int) -> Allocated:
    return (*_sizes(x.shape[1], params, levels), *_layouts(x, params)), (empty_like(params),)


def _allocate_draw(
    params: Tensor, levels: int, seed: int, first_index: int, temperature: float, first_element: int, channels: int
) -> Allocated:
    batch, _, height, width = params.shape
    draw = params.new_empty((batch, channels, height, width), dtype=torch.uint8)
    sizes = _sizes(channels, params, levels)
    return (*sizes, *_layouts(params), seed, first_index, first_element, temperature), (draw,)


_nll = register(
    OpSchema(
        name="logistic_mixture_nll",
        arguments={"x": "uint8 [B, C, H, W]", "params": "float [B, P, H, W]"},
        outputs={"nll": "wide [B]"},
        residuals=("x", "params"),
        constants=("x",),
        settings={"levels": "SymInt"},
        limits={"levels": (2, 256)},
        check=_check_channels,
        numbers=("batch", "channels", "components", "pixels", "levels", "x_innermost", "params_innermost"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
        arrange=in_place_or_copy,
    ),
    logistic_mixture_nll_ref,
)

_sample = register(
    OpSchema(
        name="logistic_mixture_sample",
        arguments={"params": "float [B, P, H, W]"},
        outputs={"draw": "uint8 [B, C, H, W]"},
        settings={"levels": "SymInt", **DRAW, "channels": "SymInt"},
        limits={"levels": (2, 256), **DRAW_LIMITS, "channels": (1, 3)},
        check=_check_draw,
        numbers=(
            *("batch", "channels", "components", "pixels", "levels"),
            *("params_innermost", "seed", "first_index", "first_element", "temperature"),
        ),
        allocate=_allocate_draw,
        arrange=in_place_or_copy,
    ),
    logistic_mixture_sample_ref,
)
