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


def signed(op, seed):
    """A seed in [0, 2**64) as the signed 64-bit number of the same bits, which is what an op's schema can hold."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{op}: seed must be an int; got {type(seed).__name__}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"{op}: seed must lie in [0, 2**64); got {seed}")
    return seed - 2**64 if seed >= 2**63 else seed
