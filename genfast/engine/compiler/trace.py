"""Tracing: the fx graph of a forward, on a copy of the model."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from genfast._native import backends
from genfast._text import first_line
from genfast.engine.calling import (
    PROBES,
    at_work,
    call,
    call_error,
    copied,
    entered,
    forget_batch,
    inputs_of,
    probe_images,
)
from genfast.engine.compiler.nodes import written_by
from genfast.engine.compiler.plan import NotIncremental
from genfast.engine.compiler.recorder import record
from genfast.engine.conventions import Conventions
from genfast.engine.protocols import ImageSpec, device_of, dtype_of

_STREAMS = threading.RLock()  # only one thread at a time puts its own streams in the place of the process's
MOST_EXPORTED = 250  # operations of a forward that torch.export traces; others, and recurrent ones, are recorded
MOST_LABELS = 16  # labels that one forward is traced with


@dataclass(frozen=True)
class Argument:
    """An argument of forward that is not a constant.

    Attributes:
        kind: "image", "labels" or "condition".
        value: that it was traced with.
        name: of an entry of the condition, which may be any: also "x" or "labels".
    """

    kind: str
    value: Tensor
    name: str = ""


@dataclass
class Trace:
    """The graph of a forward.

    Attributes:
        module: the traced module.
        given: the values of its placeholders: tensors, None, or an `Argument`.
        batch: of the images that it was traced with.
        structure: of what forward returns, whose leaves the graph returns; None: the graph returns it as it is.
        recorded: how many operations were recorded; 0: it was traced by torch.
    """

    module: fx.GraphModule
    given: list[Any]
    batch: int
    structure: Any = None
    recorded: int = 0


class _Network(nn.Module):
    """The module that is traced: a copy of a model. Tracing a model that changes its own weights would break it.

    conventions: of a foreign model, the entries of whose condition are the last arguments; None: `network` of another.
    """

    def __init__(self, model: nn.Module, conventions: Conventions | None) -> None:
        super().__init__()
        self.model = copied(model).eval()
        self.conventions = conventions

    def forward(self, *arguments: Any) -> Any:
        if self.conventions is None:
            return self.model.network(*arguments)
        names = list(self.conventions.condition)
        count = len(arguments) - len(names)
        labels = arguments[1] if count > 1 else None
        x = entered(self.conventions, arguments[0])
        return call(self.model, x, labels, dict(zip(names, arguments[count:])))


def trace(model: nn.Module, spec: ImageSpec, conventions: Conventions | None, may_record: bool = True) -> Trace:
    """The graph of a model's forward, or of `network` of an `Autoregressive` model (conventions None).

    may_record: whether a long one is recorded, not traced by torch.
    Raises: NotIncremental for a forward that cannot be traced.
    """
    device, batch = device_of(model), max(PROBES, min(spec.classes, MOST_LABELS))
    levels, labels = probe_images(spec, batch)
    labels = None if labels is None else labels.to(device)
    if conventions is None:
        x = levels.to(device, torch.float32) * (2 / (spec.levels - 1)) - 1
        arguments = [Argument("image", x), None if labels is None else Argument("labels", labels)]
        known = None
    else:
        dtype = dtype_of(model)
        # Where the range is to be inferred, it does not matter yet.
        known = conventions if conventions.input_range else replace(conventions, input_range=(0.0, 1.0))
        arguments = [Argument("image", inputs_of(known, levels.to(device), dtype))]
        arguments += [] if labels is None else [Argument("labels", labels)]
        for name, value in conventions.condition.items():
            rows = torch.arange(batch, device=value.device, dtype=torch.int64) % len(value)
            arguments.append(Argument("condition", value[rows].to(device), name))
    values = tuple(None if one is None else one.value for one in arguments)
    with at_work(model), torch.no_grad(), _in_steps():
        # A real forward first: what the model caches is then real too, and no tensor of the trace.
        network = _Network(model, known)
        try:
            assigns, operations = _assigns(network, values)
        except Exception as error:
            if conventions is None:
                raise
            assert values[0] is not None and known is not None  # the images of a foreign model
            images, condition = entered(known, values[0]), condition_of(arguments)
            if not forget_batch(model, images, labels, condition):
                raise call_error(model, conventions, images, labels, condition, error) from error
            assigns, operations = _assigns(_Network(model, known), values)
        with backends.tracing():
            recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())
            long = recurrent or operations > MOST_EXPORTED
            if may_record and conventions is not None and long and not assigns:
                module, structure = _recorded(_Network(model, known), values)
                return Trace(module, list(arguments), batch, structure, max(1, operations))
            module, given, structure = _traced(lambda: _Network(model, known), assigns, values, arguments)
    return Trace(module, given, batch, structure)


@contextmanager
def _in_steps() -> Iterator[None]:
    """A context in which a layer of torch's transformers runs its operations, not one that stands for all of them."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def condition_of(arguments: Sequence[Argument | None]) -> dict[str, Tensor]:
    """The entries of the condition among the arguments, by name."""
    return {one.name: one.value for one in arguments if one is not None and one.kind == "condition"}


class _Assigned(TorchDispatchMode):
    """Notes whether a parameter is written to, also through `.data`, which no version counter shows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.found, self.operations = False, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        for value in written_by(function, args):
            if isinstance(value, Tensor):
                self.found = self.found or value.untyped_storage().data_ptr() in self.storages
        return function(*args, **(kwargs or {}))


def _assigns(network: _Network, values: tuple[Any, ...]) -> tuple[bool, int]:
    """Whether a forward changes parameters, in place or by assigning others to `.data`; and its operations."""
    before = [parameter.data_ptr() for parameter in network.parameters()]
    with _Assigned(network) as assigned:
        network(*values)
    moved = before != [parameter.data_ptr() for parameter in network.parameters()]
    return assigned.found or moved, assigned.operations


def _recorded(network: _Network, values: tuple[Any, ...]) -> tuple[fx.GraphModule, Any]:
    """The graph of a forward of many operations. Raises: NotIncremental."""
    try:
        with _quiet():
            return record(network, values)
    except Exception as error:
        raise _untraceable(error) from error


class _Data(TorchFunctionMode):
    """`.data` of what is computed as an operation of the trace, for which it would be a constant."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function == Tensor.data.__get__ and not isinstance(args[0], nn.Parameter):  # type: ignore[attr-defined]
            return args[0].detach()
        return function(*args, **(kwargs or {}))


class _Drawn(TorchFunctionMode):
    """What is drawn from a `torch.Generator` as a constant of the trace. A graph that holds the generator, which not
    every torch can, would draw later, from another state."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(kwargs.get("generator"), torch.Generator):
            return function(*args, **kwargs)
        tensors = [one for one in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(one, Tensor)]
        if not tensors:
            with _disable_current_modes():
                return function(*args, **kwargs)
        if len(tensors) > 1 or not function.__name__.endswith("_"):
            return function(*args, **kwargs)  # a draw that depends on values
        (x,) = tensors
        with _disable_current_modes():
            drawn = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            args, kwargs = pytree.tree_map(lambda one: drawn if one is x else one, (args, kwargs))
            function(*args, **kwargs)
        return x.copy_(drawn)


def _traced(
    network: Callable[[], _Network], assigns: bool, values: tuple[Any, ...], arguments: list[Argument | None]
) -> tuple[fx.GraphModule, list[Any], Any]:
    """The fx graph module of a model, the values of its placeholders, and the structure of its output.

    network: makes the copy of the model that is traced; a failed trace may leave one unusable.
    """
    refusal: Exception | None = None
    with _quiet(), _Drawn():
        # torch.export refuses a forward that changes weights, or a scripted module, and makes a graph of its own of
        # what stands under `torch.no_grad()`; plain tracing takes them.
        if not assigns:
            try:
                exported = torch.export.export(network(), values, strict=False)
                if not any(isinstance(node.target, HigherOrderOperator) for node in exported.graph.nodes):
                    return _of_export(exported, arguments)
            except Exception as error:
                refusal = error
        try:
            with _Data():
                module = make_fx(network(), pre_dispatch=True, record_module_stack=True, record_stack_traces=True)(
                    *values
                )
        except Exception as error:
            raise _untraceable(refusal or error) from error
    return module, list(arguments), None


def _of_export(exported: Any, arguments: list[Argument | None]) -> tuple[fx.GraphModule, list[Any], Any]:
    given, user = [], iter(arguments)
    for spec in exported.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            given.append(next(user))
        else:
            given.append(exported.state_dict.get(spec.target, exported.constants.get(spec.target)))
    return exported.graph_module, given, exported.call_spec.out_spec


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which torch says nothing in this thread: for a refusal it prints pages of graph, and logs them."""
    with _STREAMS, warnings.catch_warnings():
        names = [name for name in list(logging.root.manager.loggerDict) if name.startswith("torch")]
        talking = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
        # A distribution looks at the values of its parameters, which cannot be traced.
        validates = Distribution._validate_args
        warnings.simplefilter("ignore")
        Distribution.set_default_validate_args(False)
        for logger in talking:
            logger.disabled = True
        out: Any = _Muted(sys.stdout)
        err: Any = _Muted(sys.stderr)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                yield
        finally:
            Distribution.set_default_validate_args(validates)
            for logger in talking:
                logger.disabled = False


class _Muted(io.TextIOBase):
    """A stream that drops what one thread writes, the present one, and passes on what others do."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self.thread and self.stream is not None:
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            self.stream.flush()


def _untraceable(error: Exception) -> NotIncremental:
    """What cannot be traced, in a line: a branch that depends on values, an `.item()`, an object of its own class.

    The forward itself ran before, so an error now is one of tracing.
    """
    return NotIncremental(f"sample: the model cannot be traced: {type(error).__name__}: {first_line(error)}")
