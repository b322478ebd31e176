"""The diagonal LSTM: a two-dimensional LSTM scan, in one native call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import check_shape, check_tensors
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.diagonal_lstm import diagonal_lstm_ref


def diagonal_lstm(
    gates: Tensor, weight: Tensor, h0: Tensor | None = None, c0: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Scan a two-dimensional LSTM over images, in one or both horizontal directions at once.

    Pixel (i, j) of direction d, with side = j - 1 for direction 0 (left to right) and j + 1 for direction 1::

        a = gates[i, j] + h[i - 1, j] @ weight[d, 0] + h[i, side] @ weight[d, 1]      i, f, g, o = a
        c[i, j] = sigmoid(f) * c[i, side] + sigmoid(i) * tanh(g)
        h[i, j] = sigmoid(o) * tanh(c[i, j])

    Outside the image h reads `h0` and c reads `c0`.

    Args:
        gates: [B, H, W, D, 4C] input-to-state pre-activations, bias included; gate order i, f, g, o as in
            `torch.nn.LSTM`; D is 1 or 2, C >= 1; B, H and W may be 0; float32, float64, bfloat16 or float16;
            any strides.
        weight: [D, 2, C, 4C]; tap 0 reads the row above, tap 1 the side pixel.
        h0: [D, C] hidden state outside the image; zeros if None.
        c0: [D, C] cell state outside the image; zeros if None.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        hidden: [B, H, W, D, C], contiguous on the native backends; in (-1, 1).

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
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 3.2, equation 3, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> gates = torch.randn(8, 28, 28, 2, 64)
        >>> weight = 0.1 * torch.randn(2, 2, 16, 64)
        >>> genfast.diagonal_lstm(gates, weight).shape
        torch.Size([8, 28, 28, 2, 16])
    """
    check_tensors("diagonal_lstm", gates=gates, weight=weight, **_given(h0=h0, c0=c0))
    if gates.ndim != 5 or gates.shape[3] not in (1, 2) or gates.shape[4] == 0 or gates.shape[4] % 4:
        raise ValueError(
            f"diagonal_lstm: gates must have shape [B, H, W, D, 4C] with D=1 or 2, C>=1; got {tuple(gates.shape)}"
        )
    directions, size = gates.shape[3], gates.shape[4] // 4
    sizes = {"D": directions, "C": size}
    check_shape("diagonal_lstm", "weight", weight, (directions, 2, size, 4 * size), "[D, 2, C, 4C]", **sizes)
    for name, state in _given(h0=h0, c0=c0).items():
        check_shape("diagonal_lstm", name, state, (directions, size), "[D, C]", **sizes)
    h0 = gates.new_zeros(directions, size) if h0 is None else h0
    c0 = gates.new_zeros(directions, size) if c0 is None else c0
    return _call(gates, weight, h0, c0, backend=backend)


def _given(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def cell_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of saved cells: a cell is a running sum, which 8 or 11 bits of mantissa would not hold."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _allocate(gates: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, save: bool) -> Allocated:
    sizes = (*gates.shape[:4], weight.shape[2])
    hidden = gates.new_empty(*sizes)
    saved_gates = contiguous_like(gates) if save else gates.new_empty(0)
    saved_cells = contiguous_like(hidden, cell_dtype(gates.dtype)) if save else gates.new_empty(0)
    return sizes, (hidden, saved_gates, saved_cells)


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
    return hidden.shape, gradients


_call = register(
    OpSchema(
        name="diagonal_lstm",
        autocast="lower",
        arguments={
            "gates": "float [B, H, W, D, 4C]",
            "weight": "float [D, 2, C, 4C]",
            "h0": "float [D, C]",
            "c0": "float [D, C]",
        },
        outputs={"hidden": "float [B, H, W, D, C]"},
        saved={"saved_gates": "float [B, H, W, D, 4C]", "saved_cells": "wide [B, H, W, D, C]"},
        limits={"D": (1, 2), "C": (1, math.inf)},
        residuals=("hidden", "saved_gates", "saved_cells", "weight", "h0", "c0"),
        numbers=("batch", "height", "width", "directions", "hidden_size"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    diagonal_lstm_ref,
)
