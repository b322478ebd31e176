"""Argument checks of the ops, and the house error message: `name: expected ...; got ...`."""

import torch

from genfast._backends import FLOATS


def check_tensors(op, **tensors):
    """All are strided float tensors that share the device and dtype of the first."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{op}: {name} must be a torch.Tensor; got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{op}: {name} must be a strided tensor; got layout {tensor.layout}")
        if name == first_name and tensor.dtype not in FLOATS:
            raise TypeError(f"{op}: {name} must have dtype float32, float64, bfloat16 or float16; got {tensor.dtype}")
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {name} must have the dtype of {first_name}, {first.dtype}; got {tensor.dtype}")
        if tensor.device != first.device:
            raise ValueError(f"{op}: {name} must be on the device of {first_name}, {first.device}; got {tensor.device}")


def check_shape(op, name, tensor, shape, symbols, **sizes):
    """`tensor` has `shape`; `symbols` is the same shape in letters and `sizes` what the letters stand for."""
    if tensor.shape != shape:
        values = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
        raise ValueError(f"{op}: {name} must have shape {symbols} with {values}; got {tuple(tensor.shape)}")
