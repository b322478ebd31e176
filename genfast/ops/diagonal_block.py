"""The residual Diagonal BiLSTM layer of PixelRNN, fused into one native call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import check_shape, check_tensors
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.ops.diagonal_lstm import cell_dtype
from genfast.reference.diagonal_block import diagonal_block_ref

_ARGUMENTS = {
    "x": "float [B, H, W, F]",
    "input_weight": "float [F, 2, 4C]",
    "input_bias": "float [2, 4C]",
    "weight": "float [2, 2, C, 4C]",
    "h0": "float [2, C]",
    "c0": "float [2, C]",
    "output_weight": "float [C, F]",
    "output_bias": "float [F]",
}


def diagonal_block(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Apply one residual Diagonal BiLSTM layer: input-to-state, both scans, shift, add, 1x1 up, residual.

    With pixel (i, j) as in `diagonal_lstm`::

        hidden = diagonal_lstm(x @ input_weight + input_bias, weight, h0, c0)
        s[i, j] = hidden[i, j, 0] + hidden[i - 1, j, 1]            (nothing is added in row 0)
        y = x + s @ output_weight + output_bias

    Direction 1 is shifted down one row, so that no pixel reads its own right side.

    Args:
        x: [B, H, W, F] features, channels last; B, H and W may be 0; float32, float64, bfloat16 or float16;
            any strides.
        input_weight: [F, 2, 4C] input-to-state of both directions; gate order i, f, g, o.
        input_bias: [2, 4C].
        weight: [2, 2, C, 4C] state-to-state; [d, 0] reads the row above, [d, 1] the side pixel.
        h0: [2, C] hidden state outside the image.
        c0: [2, C] cell state outside the image.
        output_weight: [C, F].
        output_bias: [F].
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        y: [B, H, W, F], contiguous on the native backends.

    Raises:
        TypeError: an argument is no strided float tensor, or dtypes differ.
        ValueError: a shape does not fit, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in all eight tensors, deterministic. The first is native, higher ones run the reference.

    Paper:
        Pixel Recurrent Neural Networks, van den Oord et al. 2016, sections 3.2 and 3.3, arXiv 1601.06759.

    Example:
        >>> import torch, genfast
        >>> from genfast.reference import SPECS
        >>> inputs = SPECS["diagonal_block"].inputs(dict(B=2, H=8, W=8, F=32, C=16))
        >>> genfast.diagonal_block(**inputs).shape
        torch.Size([2, 8, 8, 32])
    """
    tensors = dict(zip(_ARGUMENTS, (x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias)))
    check_tensors("diagonal_block", **tensors)
    if x.ndim != 4 or x.shape[3] == 0:
        raise ValueError(f"diagonal_block: x must have shape [B, H, W, F] with F>=1; got {tuple(x.shape)}")
    features = x.shape[3]
    if weight.ndim != 4 or weight.shape[2] == 0:
        got = tuple(weight.shape)
        raise ValueError(f"diagonal_block: weight must have shape [2, 2, C, 4C] with C>=1; got {got}")
    size = weight.shape[2]
    shapes = {
        "weight": ((2, 2, size, 4 * size), "[2, 2, C, 4C]"),
        "input_weight": ((features, 2, 4 * size), "[F, 2, 4C]"),
        "input_bias": ((2, 4 * size), "[2, 4C]"),
        "h0": ((2, size), "[2, C]"),
        "c0": ((2, size), "[2, C]"),
        "output_weight": ((size, features), "[C, F]"),
        "output_bias": ((features,), "[F]"),
    }
    for name, (shape, symbols) in shapes.items():
        check_shape("diagonal_block", name, tensors[name], shape, symbols, F=features, C=size)
    return _call(*tensors.values(), backend=backend)


def _allocate(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    save: bool,
) -> Allocated:
    batch, height, width, features = x.shape
    size = weight.shape[2]
    shape = (batch, height, width, 2)
    hidden = x.new_empty(*shape, size) if save else x.new_empty(0)
    saved_gates = x.new_empty(*shape, 4 * size) if save else x.new_empty(0)
    saved_cells = contiguous_like(hidden, cell_dtype(x.dtype))
    return (batch, height, width, features, size), (contiguous_like(x), hidden, saved_gates, saved_cells)


def _allocate_gradients(
    grad_y: Tensor,
    x: Tensor,
    hidden: Tensor,
    gates: Tensor,
    cells: Tensor,
    input_weight: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
) -> Allocated:
    size, features = output_weight.shape
    input_gradients = contiguous_like(x), contiguous_like(input_weight), x.new_empty(2, 4 * size)
    scan_gradients = contiguous_like(weight), contiguous_like(h0), contiguous_like(c0)
    output_gradients = contiguous_like(output_weight), x.new_empty(features)
    return (*x.shape, size), (*input_gradients, *scan_gradients, *output_gradients)


_call = register(
    OpSchema(
        name="diagonal_block",
        autocast="lower",
        arguments=_ARGUMENTS,
        outputs={"y": "float [B, H, W, F]"},
        saved={
            "hidden": "float [B, H, W, 2, C]",
            "saved_gates": "float [B, H, W, 2, 4C]",
            "saved_cells": "wide [B, H, W, 2, C]",
        },
        limits={"F": (1, math.inf), "C": (1, math.inf)},
        residuals=(
            *("x", "hidden", "saved_gates", "saved_cells"),
            *("input_weight", "weight", "h0", "c0", "output_weight"),
        ),
        numbers=("batch", "height", "width", "features", "hidden_size"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
        dtypes={
            "cpp": (torch.float32, torch.float64),
            "triton": (torch.float32, torch.bfloat16, torch.float16),
        },
    ),
    diagonal_block_ref,
)
