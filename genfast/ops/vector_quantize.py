"""Vector quantisation: the nearest code of every vector, without a matrix of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import FINITE, check_range, check_tensors, check_whole, wide
from genfast._native.kinds import Sizes
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.vector_quantize import codebook_statistics_ref, vector_quantize_ref


def vector_quantize(
    x: Tensor, codebook: Tensor, commitment: float = 0.25, codebook_weight: float = 1.0, *, backend: str = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """Replace every vector by the nearest of a codebook, and say what that costs.

    With e[n] = codebook[codes[n]] and sg a stop of the gradient::

        codes[n] = argmin over k of |x[n] - codebook[k]|^2, the lowest of equals
        loss = (codebook_weight sum of (sg(x) - e)^2 + commitment sum of (x - sg(e))^2) / (N D)

    Distances are taken tile by tile with a running minimum: memory is O((N + K) D), not N K. Sums have one fixed order,
    so codes do not depend on the batch or the threads; beside exact arithmetic a code differs only where two
    distances are equal within rounding: of float32 (float64 for float64 input), relative to the spread of x and the
    codebook around the mean of the codebook, wherever that lies, for it is subtracted from both where it is more than
    two standard deviations of the codebook from the origin, a coordinate at a time.

    Args:
        x: [N, D]; float32, float64, bfloat16 or float16; any strides; D at least 1. Computed in float32 or wider.
        codebook: [K, D] with K at least 1, of the dtype of x.
        commitment: weight of what draws x to its code; finite, at least 0.
        codebook_weight: weight of what draws codes to their x; 0 where moving averages do that.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        (codes, quantized, loss). codes: int64 [N]. quantized: [N, D], e. loss: [], float32, or float64 for float64
        input; 0 for N = 0.

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of x, or a weight is no number.
        ValueError: a shape does not fit, K = 0, a weight is out of range, devices differ, or the name of the backend
            is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        In x and the codebook, as the stops of the gradient say, deterministic; that of `quantized` is handed to x
        unchanged (straight-through). The first order is native, that of the codebook only made where it is wanted;
        the higher ones run the reference.

    Paper:
        Neural Discrete Representation Learning, van den Oord et al. 2017, equations 1 to 3, arXiv 1711.00937.

    Example:
        >>> import torch, genfast
        >>> x, codebook = torch.tensor([[0.9, 0.0], [0.0, 0.2]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> genfast.vector_quantize(x, codebook)[0]
        tensor([1, 0])
    """
    op = "vector_quantize"
    check_tensors(op, x=x, codebook=codebook)
    _check_vectors(op, x)
    if codebook.ndim != 2 or codebook.shape[0] < 1 or codebook.shape[1] != x.shape[1]:
        expected = f"[K, D] with K>=1, D={x.shape[1]}"
        raise ValueError(f"{op}: codebook must have shape {expected}; got {tuple(codebook.shape)}")
    weights = {"commitment": commitment, "codebook_weight": codebook_weight}
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{op}: {name} must be a number; got {type(value).__name__}")
        if not 0 <= value < math.inf:
            raise ValueError(f"{op}: {name} must be finite and at least 0; got {value}")
    return _quantize(x, codebook, *map(float, weights.values()), backend=backend)


def codebook_statistics(x: Tensor, codes: Tensor, count: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """How often each code was chosen, and the sum of the vectors that chose it: what moving averages need.

    ::

        counts[k] = number of n with codes[n] = k,   sums[k] = sum of x[n] over these n, n ascending

    Args:
        x: [N, D]; float32, float64, bfloat16 or float16; any strides; D at least 1. Summed in float32 or wider.
        codes: int64 [N], from 0 to count - 1.
        count: K, at least 1.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        (counts, sums). counts: [K]; sums: [K, D]; both float32, or float64 for float64 input.

    Raises:
        TypeError: x is no strided float tensor, codes are not int64, or count is no int.
        ValueError: a shape does not fit, a code is out of range (not looked at while compiling), devices differ, or
            the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.

    Gradients:
        None.

    Paper:
        Neural Discrete Representation Learning, van den Oord et al. 2017, appendix A.1, arXiv 1711.00937.

    Example:
        >>> import torch, genfast
        >>> genfast.codebook_statistics(torch.ones(3, 1), torch.tensor([0, 2, 2]), 3)[0]
        tensor([1., 0., 2.])
    """
    op = "codebook_statistics"
    check_tensors(op, x=x)
    _check_vectors(op, x)
    check_whole(op, "count", count, 1, 2**31)
    if not isinstance(codes, torch.Tensor) or codes.dtype != torch.int64:
        got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
        raise TypeError(f"{op}: codes must be an int64 tensor; got {got}")
    if codes.shape != x.shape[:1]:
        raise ValueError(f"{op}: codes must have shape [N] with N={x.shape[0]}; got {tuple(codes.shape)}")
    if codes.device != x.device:
        raise ValueError(f"{op}: codes must be on the device of x, {x.device}; got {codes.device}")
    check_range(op, "codes", codes, 0, count - 1)
    return _statistics(x, codes, count, backend=backend)


def _check_vectors(op: str, x: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"{op}: x must have shape [N, D] with D>=1; got {tuple(x.shape)}")


def _check_count(op: str, x: Tensor, codes: Tensor, count: int) -> Sizes:
    return {"K": count}


def _numbers(x: Tensor, codebook: Tensor, commitment: float, codebook_weight: float) -> tuple[int | float, ...]:
    return *x.shape, codebook.shape[0], commitment, codebook_weight


def _allocate(x: Tensor, codebook: Tensor, commitment: float, codebook_weight: float, save: bool) -> Allocated:
    codes = x.new_empty(x.shape[0], dtype=torch.int64)
    results = codes, contiguous_like(x), x.new_empty((), dtype=wide(x.dtype))
    return _numbers(x, codebook, commitment, codebook_weight), results


def _allocate_gradients(
    grad_quantized: Tensor,
    grad_loss: Tensor,
    x: Tensor,
    codebook: Tensor,
    codes: Tensor,
    commitment: float,
    codebook_weight: float,
    wanted: int,
) -> Allocated:
    of_codebook = contiguous_like(codebook) if wanted & 2 else codebook.new_empty(0)
    return _numbers(x, codebook, commitment, codebook_weight), (contiguous_like(x), of_codebook)


def _allocate_statistics(x: Tensor, codes: Tensor, count: int) -> Allocated:
    results = x.new_empty(count, dtype=wide(x.dtype)), x.new_empty((count, x.shape[1]), dtype=wide(x.dtype))
    return (*x.shape, count), results


_quantize = register(
    OpSchema(
        name="vector_quantize",
        autocast="float32",
        arguments={"x": "float [N, D]", "codebook": "float [K, D]"},
        outputs={"codes": "int64 [N]", "quantized": "float [N, D]", "loss": "wide []"},
        residuals=("x", "codebook", "codes"),
        optional=("codebook",),
        settings={"commitment": "float", "codebook_weight": "float"},
        limits={
            **dict.fromkeys("DK", (1, math.inf)),
            **dict.fromkeys(("commitment", "codebook_weight"), (0, FINITE)),
        },
        numbers=("rows", "depth", "count", "commitment", "codebook_weight"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    vector_quantize_ref,
)
_statistics = register(
    OpSchema(
        name="codebook_statistics",
        autocast="float32",
        arguments={"x": "float [N, D]", "codes": "int64 [N]"},
        outputs={"counts": "wide [K]", "sums": "wide [K, D]"},
        settings={"count": "SymInt"},
        limits={"D": (1, math.inf), "count": (1, 2**31 - 1)},
        check=_check_count,
        numbers=("rows", "depth", "count"),
        allocate=_allocate_statistics,
    ),
    codebook_statistics_ref,
)
