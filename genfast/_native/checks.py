"""Argument checks of the ops. Errors read `op: argument must ...; got ...`."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from genfast._native.backends import FLOATS
from genfast._native.transforms import is_traced, mapped, transforms_run

FINITE = sys.float_info.max


def check_tensors(op: str, **tensors: Tensor) -> None:
    """All are strided float tensors that share the device and dtype of the first."""
    first, lead = next(iter(tensors.items()))
    dtype = device = None
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name} must be a torch.Tensor; got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{op}: {name} must be a strided tensor; got layout {tensor.layout}")
        if tensor is lead:
            dtype, device = tensor.dtype, tensor.device
            if dtype not in FLOATS:
                names = "float32, float64, bfloat16 or float16"
                raise TypeError(f"{op}: {name} must have dtype {names}; got {dtype}")
            continue
        if tensor.dtype != dtype:
            raise TypeError(f"{op}: {name} must have the dtype of {first}, {dtype}; got {tensor.dtype}")
        if tensor.device != device:
            raise ValueError(f"{op}: {name} must be on the device of {first}, {device}; got {tensor.device}")


def check_shape(op: str, name: str, tensor: Tensor, shape: tuple[int, ...], symbols: str, **sizes: int) -> None:
    """`tensor` has `shape`; `symbols` is the same shape in letters and `sizes` what the letters stand for."""
    if tensor.shape != shape:
        values = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
        raise ValueError(f"{op}: {name} must have shape {symbols} with {values}; got {tuple(tensor.shape)}")


def check_whole(op: str, name: str, value: int, low: int, end: int) -> None:
    """`value` is an int in [low, end)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{op}: {name} must be an int; got {type(value).__name__}")
    if not low <= value < end:
        raise ValueError(f"{op}: {name} must lie in [{low}, {_power(end)}); got {value}")


def check_sizes(layer: str, **sizes: int) -> None:
    """Each is an int of at least 1."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{layer}: {name} must be an int; got {value!r}")
        if value < 1:
            raise ValueError(f"{layer}: {name} must be at least 1; got {value}")


def _power(number: int) -> str:
    return f"2**{number.bit_length() - 1}" if number > 1 and number & (number - 1) == 0 else str(number)


def signed(op: str, seed: int) -> int:
    """A seed in [0, 2**64) as the signed 64-bit number of the same bits, which is what an op's schema can hold."""
    check_whole(op, "seed", seed, 0, 2**64)
    # Without a branch, which torch.compile would take for two graphs.
    return (seed + 2**63) % 2**64 - 2**63


def check_levels(op: str, x: Tensor, like: Tensor, levels: int) -> None:
    """`x` holds levels 0 .. levels - 1 as uint8, on the device of the tensor `like`."""
    _check_kind(op, x, like, (torch.uint8,))
    # A comparison of the levels would be a graph for each of its answers.
    if not torch.compiler.is_compiling() and levels < 256:
        check_range(op, "x", x, 0, levels - 1)


def check_values(op: str, x: Tensor, like: Tensor) -> None:
    """`x` holds 0 and 1 as uint8, or values in [0, 1] in the dtype of the tensor `like`, on its device."""
    _check_kind(op, x, like, (torch.uint8, like.dtype))
    if not x.is_floating_point():
        check_levels(op, x, like, 2)
    else:
        check_range(op, "x", x, 0, 1, "lie in [0, 1]")


def check_weight(op: str, weight: Tensor | None, like: Tensor) -> Tensor:
    """`weight` of the shape of `like`, as uint8 or in its dtype, detached; an empty tensor for None."""
    if weight is None:
        return like.new_empty(0, dtype=torch.uint8)
    _check_kind(op, weight, like, (torch.bool, torch.uint8, like.dtype), "weight")
    if weight.shape != like.shape:
        raise ValueError(f"{op}: weight must have shape {tuple(like.shape)}; got {tuple(weight.shape)}")
    weight = weight.detach()
    if weight.dtype == torch.bool:
        return weight.view(torch.uint8)
    if weight.dtype == torch.uint8:
        check_range(op, "weight", weight, 0, 1, "be 0 or 1 as uint8")
    else:
        check_range(op, "weight", weight, 0, torch.finfo(weight.dtype).max, "be finite and at least 0")
    return weight


def check_range(call: str, name: str, tensor: Tensor, low: float, high: float, expected: str = "") -> None:
    """Every value lies in [low, high] (ValueError). A GPU is not waited for: it asserts that on its own, later.

    Values are not looked at while compiling, as reading one would break the graph in two, nor in another trace, where
    they are those of an example, nor where there are none: of fake tensors, within vmap.
    """
    if torch.compiler.is_compiling() or not tensor.numel() or tensor.is_meta:
        return
    if isinstance(tensor, FakeTensor) or (transforms_run() and mapped()) or is_traced():
        return
    tensor = tensor.detach()
    if tensor.is_cuda:
        torch._assert_async(((tensor >= low) & (tensor <= high)).all(), _expected(call, name, low, high, expected))
        return
    # A byte is no less than 0, and one value is read in half the time of two.
    bytes_ = tensor.dtype == torch.uint8 and low == 0
    least, greatest = (0, tensor.max().item()) if bytes_ else (value.item() for value in tensor.aminmax())
    if not (least >= low and greatest <= high):
        got = greatest if least >= low else least
        raise ValueError(f"{_expected(call, name, low, high, expected)}; got {got}")


def _expected(call: str, name: str, low: float, high: float, expected: str) -> str:
    return f"{call}: {name} must {expected or f'lie in {low} .. {high}'}"


def _check_kind(op: str, x: Tensor, like: Tensor, dtypes: tuple[torch.dtype, ...], name: str = "x") -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor; got {type(x).__name__}")
    if x.dtype not in dtypes:
        raise TypeError(f"{op}: {name} must have dtype {' or '.join(map(str, dtypes))}; got {x.dtype}")
    if x.layout != torch.strided:
        raise TypeError(f"{op}: {name} must be a strided tensor; got layout {x.layout}")
    if x.device != like.device:
        raise ValueError(f"{op}: {name} must be on the device {like.device}; got {x.device}")


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over an image: float32 for half types, which would overflow."""
    return dtype if dtype == torch.float64 else torch.float32


# The schema types of what `check_draw` returns.
DRAW = {"seed": "SymInt", "first_index": "SymInt", "temperature": "float", "first_element": "SymInt"}


# Their least and greatest values there.
DRAW_LIMITS = {
    "seed": (-(2**63), 2**63 - 1),
    "first_index": (0, 2**63 - 1),
    "temperature": (5e-324, FINITE),
    "first_element": (0, 2**32 - 1),
}


def check_draw(
    op: str, batch: int, size: int, seed: int, first_index: int, temperature: float, first_element: int
) -> tuple[int, int, float, int]:
    """The settings of a sampler of `batch` images of `size` values, checked, as its op takes them."""
    for name, value, bits in (("first_index", first_index, 63), ("first_element", first_element, 32)):
        check_whole(op, name, value, 0, 2**bits)
    check_places(op, batch, size, first_index, first_element)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise TypeError(f"{op}: temperature must be a number; got {type(temperature).__name__}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"{op}: temperature must be positive and finite; got {temperature}")
    return signed(op, seed), first_index, float(temperature), first_element


def check_interleaved(op: str, size: int, channels: int) -> None:
    """`size` values are those of a whole number of pixels of `channels`."""
    if size % channels:
        raise ValueError(f"{op}: channels must divide the {size} values of an image; got {channels}")


def check_places(op: str, batch: int, size: int, first_index: int, first_element: int = 0) -> None:
    """The last image and the last value have a place among the random numbers too."""
    if first_index + batch > 2**63:
        raise ValueError(f"{op}: first_index must be at most 2**63 - {batch}, the images; got {first_index}")
    if first_element + size > 2**32:
        raise ValueError(f"{op}: first_element must be at most 2**32 - {size}, the values; got {first_element}")
