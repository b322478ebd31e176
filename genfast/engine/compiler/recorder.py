"""Recording: the fx graph of a forward that runs thousands of operations, such as a loop over pixels.

torch.export takes milliseconds for each operation. Here a forward runs once, on real tensors, and what depends on its
arguments is written down; all else is a constant.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from genfast.engine.compiler.nodes import written_by

# Operations that turn a value into a Python number: what follows is right for the recorded images alone.
_TO_PYTHON = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "unique", "masked_select")


# What torch computes step by step, over all pixels, and is to be one node.
_RECURRENT = {
    "lstm": torch.ops.aten.lstm.input,
    "gru": torch.ops.aten.gru.input,
    "rnn_tanh": torch.ops.aten.rnn_tanh.input,
    "rnn_relu": torch.ops.aten.rnn_relu.input,
}


class Unrecordable(Exception):
    """A forward does what depends on the values of its arguments."""


class _Recorder(TorchDispatchMode):
    def __init__(self, arguments: Sequence[Tensor | None]) -> None:
        super().__init__()
        self.graph, self.root = fx.Graph(), nn.Module()
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Tensor] = []  # an id is unique only as long as its tensor lives
        self.constants: dict[int, fx.Node] = {}
        for number, argument in enumerate(arguments):
            node = self.graph.placeholder(f"argument_{number}")
            if argument is not None:
                self.note(argument, node)

    def note(self, tensor: Tensor, node: fx.Node) -> None:
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def node(self, value: Any) -> Any:
        """The node of a tensor; other values as they are."""
        if not isinstance(value, Tensor):
            return value
        if id(value) in self.nodes:
            return self.nodes[id(value)]
        if id(value) not in self.constants:
            name = f"constant_{len(self.constants)}"
            # A copy: a constant may be written to later.
            self.root.register_buffer(name, value.detach().clone())
            self.alive.append(value)
            self.constants[id(value)] = self.graph.get_attr(name)
        return self.constants[id(value)]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(one, Tensor)]
        if not any(id(tensor) in self.nodes for tensor in tensors):
            for value in written_by(function, args):
                self.constants.pop(id(value), None)
            return function(*args, **kwargs)
        name = function._schema.name.partition("::")[2]
        if name in _TO_PYTHON:
            raise Unrecordable(f"a branch or a number that depends on values ({name})")
        return self.noted(function, args, kwargs, function(*args, **kwargs))

    def noted(self, function: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """The result of a function, after its node is written down."""
        node = self.graph.call_function(function, *pytree.tree_map(self.node, (args, kwargs)))
        if isinstance(result, Tensor):
            self.note(result, node)
        elif isinstance(result, (tuple, list)):
            for number, part in enumerate(result):
                if isinstance(part, Tensor):
                    self.note(part, self.graph.call_function(operator.getitem, (node, number)))
        return result


class _Whole(TorchFunctionMode):
    """Writes recurrent layers and attention down as one node each."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention and all(
            id(one) in self.recorder.nodes for one in args[:3]
        ):
            with _disable_current_modes():
                result = function(*args, **(kwargs or {}))
            whole = torch.ops.aten.scaled_dot_product_attention.default
            return self.recorder.noted(whole, args, kwargs or {}, result)
        operation = _RECURRENT.get(getattr(function, "__name__", ""))
        if operation is None or kwargs or len(args) != 9 or isinstance(args[2], Tensor):  # a packed sequence
            return function(*args, **(kwargs or {}))
        with _disable_current_modes():
            result = function(*args)
        return self.recorder.noted(operation, args, {}, result)


def record(network: Callable[..., Any], values: Sequence[Tensor | None]) -> tuple[fx.GraphModule, Any]:
    """(graph module, structure of the output) of a forward. Raises: Unrecordable, or what the forward raises."""
    values = [None if value is None else value.clone() for value in values]
    recorder = _Recorder(values)
    with recorder, _Whole(recorder):
        output = network(*values)
    leaves, structure = pytree.tree_flatten(output)
    recorder.graph.output([recorder.node(leaf) for leaf in leaves])
    return fx.GraphModule(recorder.root, recorder.graph), structure
