"""What torch.autocast makes of the tensors of an op: the rule of the torch function that the op replaces."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genfast._native.schema import OpSchema

_is_enabled = torch._C._is_any_autocast_enabled


def following(schema: OpSchema, function: Callable) -> Callable:
    """The public function of an op, which follows `schema.autocast` where autocast is enabled."""
    if schema.autocast == "as given":
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _recast(schema.autocast, function, args, kwargs) if _is_enabled() else function(*args, **kwargs)

    return call


def _recast(rule: str, function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    device = tensors[0].device.type if tensors else "cpu"
    dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    if not dtypes or not torch.is_autocast_enabled(device):
        return function(*args, **kwargs)
    if rule == "widest":
        dtype = functools.reduce(torch.promote_types, dtypes)
    else:
        dtype = torch.get_autocast_dtype(device) if rule == "lower" else torch.float32

    def cast(value: Any) -> Any:
        # As in torch, float64 stays what it is.
        casts = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(dtype) if casts else value

    # The reference is made of functions that autocast would cast once more.
    with torch.autocast(device, enabled=False):
        return function(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})
