"""Bias, activation, gain and limit in one pass over a feature map."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import FINITE, check_shape, check_tensors
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.bias_act import ACTIVATIONS, bias_act_ref


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    activation: str = "linear",
    slope: float = 0.2,
    gain: float = 1.0,
    limit: float | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Add a bias to every channel, and scale and limit what the activation makes of it.

    ::

        y = clamp(activation(x + bias[c]) * gain, -limit, limit)

    Args:
        x: [N, C] or [N, C, ...], C >= 1; any other size may be 0; float32, float64, bfloat16 or float16; any strides;
            channels_last memory is read in place. Half types are computed in float32.
        bias: [C], or None.
        activation: "linear", "relu", "leaky_relu", "tanh", "sigmoid" or "swish", x sigmoid(x).
        slope: of a leaky relu for negative values, at least 0.
        gain: a finite number.
        limit: at least 0, or None for no limit.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        y: of the shape of x; channels_last where x is, else contiguous on the native backends.

    Raises:
        TypeError: x or bias is no strided float tensor of the dtype of x, or a number is none.
        ValueError: a shape does not fit, devices differ, a number is out of its range, or the name of the activation
            or the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in x and bias, deterministic; the first is native and recomputes the activation, the higher ones
        run the reference. 0 beyond the limit, and at 0 of a relu; that of a leaky relu at 0 is its slope.

    Paper:
        A Style-Based Generator Architecture for Generative Adversarial Networks, Karras et al. 2019, appendix C,
        arXiv 1812.04948, has it between all its layers; swish: Ramachandran et al. 2017, arXiv 1710.05941.

    Example:
        >>> import torch, genfast
        >>> genfast.bias_act(torch.tensor([[-1.0, 3.0]]), torch.tensor([0.0, 1.0]), "leaky_relu", limit=2.0)
        tensor([[-0.2000,  2.0000]])
    """
    op = "bias_act"
    check_tensors(op, x=x, **({} if bias is None else {"bias": bias}))
    if x.ndim < 2 or x.shape[1] < 1:
        raise ValueError(f"{op}: x must have shape [N, C, ...] with C>=1; got {tuple(x.shape)}")
    if bias is not None:
        check_shape(op, "bias", bias, x.shape[1:2], "[C]", C=x.shape[1])
    _check_activation(op, x, bias, activation)
    slope, gain = _number("slope", slope, 0), _number("gain", gain, -math.inf)
    limit = math.inf if limit is None else _number("limit", limit, 0)
    bias = x.new_empty(0) if bias is None else bias
    if x.ndim == 4 and not x.is_contiguous() and (pixels := x.permute(0, 2, 3, 1)).is_contiguous():
        batch, channels, height, width = x.shape
        y = _call(pixels.flatten(0, 2), bias, activation, slope, gain, limit, backend=backend)
        return y.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return _call(x, bias, activation, slope, gain, limit, backend=backend)


def _check_activation(op: str, x: Tensor, bias: Tensor | None, activation: str, *numbers: float) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")


def _number(name: str, value: float, low: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"bias_act: {name} must be a number; got {type(value).__name__}")
    if not (low <= value < math.inf and value > -math.inf):
        expected = "finite" if low < 0 else f"finite and at least {low}"
        raise ValueError(f"bias_act: {name} must be {expected}; got {value}")
    return float(value)


def _numbers(x: Tensor, activation: str, slope: float, gain: float, limit: float) -> tuple[int | float, ...]:
    return *x.shape[:2], math.prod(x.shape[2:]), ACTIVATIONS.index(activation), slope, gain, limit


def _allocate(
    x: Tensor, bias: Tensor, activation: str, slope: float, gain: float, limit: float, save: bool
) -> Allocated:
    return _numbers(x, activation, slope, gain, limit), (contiguous_like(x),)


def _allocate_gradients(
    grad_y: Tensor, x: Tensor, bias: Tensor, activation: str, slope: float, gain: float, limit: float, wanted: int
) -> Allocated:
    gradients = contiguous_like(x), contiguous_like(bias) if wanted & 2 else bias.new_empty(0)
    return _numbers(x, activation, slope, gain, limit), gradients


_call = register(
    OpSchema(
        name="bias_act",
        arguments={"x": "float [N, C, ...]", "bias": "float [C] or none"},
        outputs={"y": "float [N, C, ...]"},
        residuals=("x", "bias"),
        optional=("bias",),
        settings={"activation": "str", "slope": "float", "gain": "float", "limit": "float"},
        limits={"C": (1, math.inf), "slope": (0, FINITE), "gain": (-FINITE, FINITE), "limit": (0, math.inf)},
        check=_check_activation,
        numbers=("batch", "channels", "size", "activation", "slope", "gain", "limit"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    bias_act_ref,
)
