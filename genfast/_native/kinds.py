"""What the tensors and numbers of an op must be: said in its schema, checked where the registered op itself is called.

The public functions check their own arguments and call the kernels past this. Whatever else calls an op (a compiled
graph, `torch.ops.genfast`) gets an error, as a kernel that is given a tensor of another size reads foreign memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genfast._native.checks import wide

# What letters stand for: sizes, and the dimensions that "..." leaves out.
Sizes = dict[str, Any]
# The least and the greatest value of a number.
Limits = Mapping[str, tuple[float, float]]
_TEXT, _PRODUCT = re.compile(r"(\w+(?:\|\w+)*) \[(.*)\]( or none)?"), re.compile(r"(?=.)(\d*)([A-Z]*)")
_FIXED = {name: getattr(torch, name) for name in ("uint8", "int64", "float64")}


@dataclass(frozen=True)
class Kind:
    """One tensor of an op, read from a text such as "uint8|float [B, 4C, ...] or none".

    First the dtypes: "float" is that of the call, "wide" that of its sums. Then the sizes: a letter is the same number
    wherever it stands, 4C and BS are products, "..." is any number of dimensions, the same everywhere. "or none": an
    empty tensor stands for one that is not given.
    """

    dtypes: tuple[str, ...]
    shape: str
    dims: tuple[tuple[int, tuple[str, ...]], ...]  # a factor and letters
    is_open: bool
    optional: bool

    @classmethod
    def of(cls, text: str) -> Kind:
        """Raises: ValueError for a text of another form."""
        found = _TEXT.fullmatch(text)
        dtypes, dims = (found[1].split("|"), found[2].split(", ") if found[2] else []) if found else ([], [])
        is_open = dims[-1:] == ["..."]
        products = [_PRODUCT.fullmatch(dim) for dim in (dims[:-1] if is_open else dims)]
        if not found or not {"float", "wide", *_FIXED}.issuperset(dtypes) or None in products:
            expected = "dtypes and sizes as in 'uint8|float [B, 4C, ...] or none'"
            raise ValueError(f"kind of a tensor: expected {expected}; got {text!r}")
        read = tuple((int(product[1] or 1), tuple(product[2])) for product in products if product)
        return cls(tuple(dtypes), f"[{found[2]}]", read, is_open, bool(found[3]))

    @property
    def is_integer(self) -> bool:
        return all(dtype in ("uint8", "int64") for dtype in self.dtypes)

    def check(self, op: str, name: str, tensor: Tensor, like: Tensor, sizes: Sizes) -> None:
        """`tensor` is of this kind, beside the tensor `like` that has the dtype and the device of the call.

        `sizes`: of the letters that are known; those of this tensor are added.
        """
        if tensor.device != like.device:
            raise ValueError(f"{op}: {name} must be on the device {like.device}; got {tensor.device}")
        if self.optional and tensor.numel() == 0:
            return
        if not any(tensor.dtype == _dtype(dtype, like.dtype) for dtype in self.dtypes):
            expected = " or ".join(_short(_dtype(dtype, like.dtype)) for dtype in self.dtypes)
            raise TypeError(f"{op}: {name} must have dtype {expected}; got {_short(tensor.dtype)}")
        if not self._fits(tensor.shape, sizes):
            letters = dict.fromkeys(letter for _, letters in self.dims for letter in letters)
            listed = ", ".join(f"{letter}={sizes[letter]}" for letter in (*letters, "...") if letter in sizes)
            expected = f"{self.shape}{' with ' * bool(listed)}{listed}"
            raise ValueError(f"{op}: {name} must have shape {expected}; got {tuple(tensor.shape)}")

    def _fits(self, shape: torch.Size, sizes: Sizes) -> bool:
        count = len(self.dims)
        if len(shape) < count or (len(shape) > count and not self.is_open):
            return False
        for (product, letters), size in zip(self.dims, shape):
            unknown = None
            for letter in letters:
                if letter in sizes:
                    product *= sizes[letter]
                else:
                    unknown = letter
            if unknown:  # the only one, which becomes what it must be
                sizes[unknown] = size // max(product, 1)
                product *= sizes[unknown]
            if size != product:
                return False
        return not self.is_open or sizes.setdefault("...", shape[count:]) == shape[count:]


def _dtype(name: str, of_call: torch.dtype) -> torch.dtype:
    if name == "float":
        return of_call
    return wide(of_call) if name == "wide" else _FIXED[name]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_devices(op: str, *tensors: Tensor) -> None:
    """All are on one device: a kernel, or the memory of a result, is that of one."""
    for tensor in tensors:
        if tensor.device != tensors[0].device:
            raise ValueError(f"{op}: tensors must be on one device; got {tensors[0].device} and {tensor.device}")


def make_checker(
    op: str,
    lead: str,
    tensors: Mapping[str, Kind],
    settings: Sequence[str],
    limits: Limits,
    arguments: Sequence[str],
    check: Callable[..., Sizes | None] | None,
) -> Callable[..., None]:
    """A function of all tensors and settings of a native function, in order: it raises for what does not fit.

    Args:
        op: name of the native function.
        lead: the tensor that has the dtype and the device of the call.
        tensors: their kinds by name.
        settings: names of the numbers after them.
        limits: of sizes by their letters, and of settings.
        arguments: those of the tensors that fix the sizes, and that `check` is given.
        check: (op, *arguments, *settings) -> more sizes, for what limits cannot say.
    """
    made = [name for name in tensors if name not in arguments]

    def check_call(*inputs: Any) -> None:
        given, sizes = dict(zip((*tensors, *settings), inputs)), dict[str, Any]()
        for name in arguments:
            tensors[name].check(op, name, given[name], given[lead], sizes)
        numbers = {name: given[name] for name in settings}
        for name, value in (sizes | numbers).items():
            if name in limits:
                _check_limits(op, name, value, *limits[name])
        if check:
            sizes.update(check(op, *(given[name] for name in arguments), *numbers.values()) or {})
        for name in made:
            tensors[name].check(op, name, given[name], given[lead], sizes)

    return check_call


def _check_limits(op: str, name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        expected = f"lie in {low} .. {high}" if high < math.inf else f"be at least {low}"
        raise ValueError(f"{op}: {name} must {expected}; got {value}")
