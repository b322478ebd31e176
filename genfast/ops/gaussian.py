"""The diagonal Gaussian likelihood of real values: one pass forward, one backward."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast._native.checks import check_shape, check_tensors, check_weight, wide
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.gaussian import gaussian_nll_ref


def gaussian_nll(
    x: Tensor, mean: Tensor, log_variance: Tensor, weight: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Negative log-likelihood of real values under a diagonal Gaussian, summed over each image.

    With lv clamped to [-30, 20], outside of which its gradient is 0::

        nll[b] = sum of weight (log(2 pi) + lv + (x - mean)^2 exp(-lv)) / 2

    Args:
        x: [B, ...]; float32, float64, bfloat16 or float16; any strides. Computed in float32 or wider.
        mean: like x.
        log_variance: like x, or of a shape that broadcasts to it, such as [1]: then it is expanded in memory.
        weight: [B, ...], bool or uint8 0 and 1, or numbers of at least 0 of the dtype of x; None for ones. Where it is
            0 the value is missing: whatever stands there, a NaN too, counts for nothing and has gradient 0.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        nll: [B], nats per image; float32, or float64 for float64 input: a half type would overflow.

    Raises:
        TypeError: a tensor has another dtype than said, or is not strided.
        ValueError: a shape does not fit, a weight is negative (not looked at while compiling), devices differ, or
            the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in x, mean and log_variance, deterministic; weight has none. The first is native: nothing is saved
        but the arguments, and the gradient of x is only made where it is wanted. The higher ones run the reference.

    Paper:
        Auto-Encoding Variational Bayes, Kingma and Welling 2013, appendix C.2, arXiv 1312.6114.

    Example:
        >>> import torch, genfast
        >>> genfast.gaussian_nll(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
        tensor([2.7568, 2.7568])
    """
    op = "gaussian_nll"
    check_tensors(op, x=x, mean=mean, log_variance=log_variance)
    shape = x.shape
    if x.ndim < 1:
        raise ValueError(f"{op}: x must have shape [B, ...]; got {tuple(shape)}")
    check_shape(op, "mean", mean, shape, "[B, ...]", B=shape[0])
    if log_variance.shape != shape:
        try:
            log_variance = log_variance.expand(shape)
        except RuntimeError:
            got = tuple(log_variance.shape)
            raise ValueError(f"{op}: log_variance must broadcast to {tuple(shape)}; got {got}") from None
    weight = check_weight(op, weight, x)
    return _nll(x, mean, log_variance, weight, backend=backend)


def _numbers(x: Tensor, weight: Tensor) -> tuple[int | float, ...]:
    return x.shape[0], x.shape[1:].numel(), int(weight.dtype == torch.uint8)


def _allocate(x: Tensor, mean: Tensor, log_variance: Tensor, weight: Tensor, save: bool) -> Allocated:
    return _numbers(x, weight), (x.new_empty(x.shape[0], dtype=wide(x.dtype)),)


def _allocate_gradients(
    grad_nll: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor, weight: Tensor, wanted: int
) -> Allocated:
    of_x = contiguous_like(x) if wanted & 1 else x.new_empty(0)
    return _numbers(x, weight), (of_x, contiguous_like(mean), contiguous_like(log_variance))


_nll = register(
    OpSchema(
        name="gaussian_nll",
        arguments={
            **dict.fromkeys(("x", "mean", "log_variance"), "float [B, ...]"),
            "weight": "uint8|float [B, ...] or none",
        },
        outputs={"nll": "wide [B]"},
        residuals=("x", "mean", "log_variance", "weight"),
        constants=("weight",),
        optional=("x",),
        numbers=("batch", "size", "weight_is_bytes"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    gaussian_nll_ref,
)
