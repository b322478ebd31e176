"""How much work a computation is: its arithmetic, the memory it must touch, and what it keeps for its gradient."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Of every element that they read, an operation; what is pointwise has one for every element that it writes.
REDUCTIONS = frozenset(
    "sum mean amax amin max min var std logsumexp softmax _softmax _log_softmax cumsum argmax argmin topk sort".split()
)
MOVES = frozenset("clone copy_ _to_copy fill_ zero_ where masked_fill".split())


class Arithmetic(TorchDispatchMode):
    """Counts the FLOPs of what runs inside: those of matrix products and convolutions, two for each multiply-add, and
    one for each element of everything else that computes."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        # It imports Triton, which takes a tenth of a second: only here.
        self.known = importlib.import_module("torch.utils.flop_counter").flop_registry

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        packet = function._overloadpacket
        name = function._schema.name.partition("::")[2]
        if packet in self.known:
            self.flops += int(self.known[packet](*args, **kwargs, out_val=result))
        elif name in REDUCTIONS:
            self.flops += _elements(args)
        elif torch.Tag.pointwise in function.tags and name not in MOVES:
            self.flops += _elements(result)
        return result


def flops(function: Callable[[], Any]) -> int:
    """FLOPs of a call; operations that torch does not know, such as those of genfast, count nothing."""
    with Arithmetic() as counted:
        function()
    return counted.flops


def kept_bytes(function: Callable[[], Any], given: Iterable[Any]) -> int:
    """Bytes that a call keeps for its backward pass, beside those of the tensors that it is `given`."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    for tensor in _tensors(given):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    del result  # it holds what was kept until here, so that no address was used twice
    return sum(kept.values())


def moved_bytes(given: Iterable[Any], result: Any, leaves: Iterable[Tensor] = ()) -> int:
    """Bytes that a call must read and write at least: what it is given and its result, each once; with `leaves` also
    those of a backward pass: the same again, and the gradients of the leaves."""
    forward = _bytes(given) + _bytes([result])
    backward = list(leaves)
    return 2 * forward + _bytes(backward) if backward else forward


def _bytes(values: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(values))


def _elements(values: Any) -> int:
    return next((tensor.numel() for tensor in _tensors([values])), 0)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
