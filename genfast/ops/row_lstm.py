"""The row LSTM: an LSTM that scans an image from top to bottom, a whole row a step, in one native call."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import check_shape, check_tensors
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.ops.diagonal_lstm import cell_dtype
from genfast.reference.row_lstm import row_lstm_ref


def row_lstm(
    gates: Tensor, weight: Tensor, h0: Tensor | None = None, c0: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Scan an LSTM down the rows of images; every pixel reads three pixels of the row above.

    Pixel (i, j)::

        a = gates[i, j] + h[i - 1, j - 1] @ weight[0] + h[i - 1, j] @ weight[1] + h[i - 1, j + 1] @ weight[2]
        i, f, g, o = a
        c[i, j] = sigmoid(f) * c[i - 1, j] + sigmoid(i) * tanh(g)
        h[i, j] = sigmoid(o) * tanh(c[i, j])

    Above the image and beside it h reads `h0`; above it c reads `c0`. So (i, j) depends on the triangle of pixels
    above it, one column wider on both sides for each row further up, and on no pixel beside it.

    Args:
        gates: [B, H, W, 4C] input-to-state pre-activations, bias included; gate order i, f, g, o as in
            `torch.nn.LSTM`; C >= 1; B, H and W may be 0; float32, float64, bfloat16 or float16; any strides.
        weight: [3, C, 4C]; the taps read the row above at the left, straight up, and at the right.
        h0: [C] hidden state outside the image; zeros if None.
        c0: [C] cell state above the image; zeros if None.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        hidden: [B, H, W, C], contiguous on the native backends; in (-1, 1).

    Raises:
        TypeError: an argument is no strided float tensor, or dtypes differ.
        ValueError: a shape does not fit, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in all four tensors, deterministic. The first is native; the higher ones run the
        reference, so `gates` is kept alive beside the saved activations. bfloat16 and float16 accumulate,
        and keep cells, in float32.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 3.1, equation 3, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> gates = torch.randn(8, 28, 28, 64)
        >>> weight = 0.1 * torch.randn(3, 16, 64)
        >>> genfast.row_lstm(gates, weight).shape
        torch.Size([8, 28, 28, 16])
    """
    given = {name: tensor for name, tensor in {"h0": h0, "c0": c0}.items() if tensor is not None}
    check_tensors("row_lstm", gates=gates, weight=weight, **given)
    if gates.ndim != 4 or gates.shape[3] == 0 or gates.shape[3] % 4:
        raise ValueError(f"row_lstm: gates must have shape [B, H, W, 4C] with C>=1; got {tuple(gates.shape)}")
    size = gates.shape[3] // 4
    check_shape("row_lstm", "weight", weight, (3, size, 4 * size), "[3, C, 4C]", C=size)
    for name, state in given.items():
        check_shape("row_lstm", name, state, (size,), "[C]", C=size)
    h0 = gates.new_zeros(size) if h0 is None else h0
    c0 = gates.new_zeros(size) if c0 is None else c0
    return _call(gates, weight, h0, c0, backend=backend)


def _numbers(batch: int, height: int, width: int, size: int) -> tuple[int | float, ...]:
    """What C++ takes after the addresses: the scans of one family share their arguments, this one has one direction."""
    return batch, height, width, 1, size


def _allocate(gates: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, save: bool) -> Allocated:
    shape = (*gates.shape[:3], weight.shape[1])
    hidden = gates.new_empty(*shape)
    saved_gates = contiguous_like(gates) if save else gates.new_empty(0)
    saved_cells = contiguous_like(hidden, cell_dtype(gates.dtype)) if save else gates.new_empty(0)
    return _numbers(*shape), (hidden, saved_gates, saved_cells)


def _allocate_gradients(
    grad_hidden: Tensor,
    hidden: Tensor,
    saved_gates: Tensor,
    saved_cells: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> Allocated:
    gradients = contiguous_like(saved_gates), contiguous_like(weight), contiguous_like(h0), contiguous_like(c0)
    return _numbers(*hidden.shape), gradients


_call = register(
    OpSchema(
        name="row_lstm",
        autocast="lower",
        arguments={"gates": "float [B, H, W, 4C]", "weight": "float [3, C, 4C]", "h0": "float [C]", "c0": "float [C]"},
        outputs={"hidden": "float [B, H, W, C]"},
        saved={"saved_gates": "float [B, H, W, 4C]", "saved_cells": "wide [B, H, W, C]"},
        limits={"C": (1, math.inf)},
        residuals=("hidden", "saved_gates", "saved_cells", "weight", "h0", "c0"),
        numbers=("batch", "height", "width", "directions", "hidden_size"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    row_lstm_ref,
)
