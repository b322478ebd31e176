"""Argument checks of the ops, and the house error message: `name: expected ...; got ...`."""

import torch

from genfast._backends import FLOATS


def check_tensors(op, **tensors):
    """All are strided float tensors that share the device and dtype of the first."""
    first, lead = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{op}: {name} must be a torch.Tensor; got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{op}: {name} must be a strided tensor; got layout {tensor.layout}")
        if name == first and tensor.dtype not in FLOATS:
            names = "float32, float64, bfloat16 or float16"
            raise TypeError(f"{op}: {name} must have dtype {names}; got {tensor.dtype}")
        if tensor.dtype != lead.dtype:
            raise TypeError(f"{op}: {name} must have the dtype of {first}, {lead.dtype}; got {tensor.dtype}")
        if tensor.device != lead.device:
            device = lead.device
            raise ValueError(f"{op}: {name} must be on the device of {first}, {device}; got {tensor.device}")


def check_shape(op, name, tensor, shape, symbols, **sizes):
    """`tensor` has `shape`; `symbols` is the same shape in letters and `sizes` what the letters stand for."""
    if tensor.shape != shape:
        values = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
        raise ValueError(f"{op}: {name} must have shape {symbols} with {values}; got {tuple(tensor.shape)}")
