"""Tracing: the fx graph of a forward, on a copy of the model."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from genfast._native import backends
from genfast.engine.calling import PROBES, at_work, call_error, copied, inputs_of
from genfast.engine.compiler.plan import NotIncremental
from genfast.engine.compiler.recorder import record
from genfast.engine.conventions import Conventions
from genfast.engine.protocols import ImageSpec, device_of

MOST_EXPORTED = 1000  # operations of a forward that torch.export traces; others are recorded
MOST_LABELS = 16  # labels that one forward is traced with


@dataclass(frozen=True)
class Argument:
    """An argument of forward that is not a constant: the image, the labels, or an entry of the condition."""

    name: str
    value: Tensor


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
    """The module that is traced: a copy of a model. Tracing a model that changes its own weights would break it."""

    def __init__(self, model: nn.Module, forward: str, names: Sequence[str]) -> None:
        super().__init__()
        self.model = copied(model).eval()
        self.call, self.names = getattr(self.model, forward), names

    def forward(self, *arguments: Any) -> Any:
        plain = len(arguments) - len(self.names)
        return self.call(*arguments[:plain], **dict(zip(self.names, arguments[plain:])))


def trace(model: nn.Module, spec: ImageSpec, conventions: Conventions | None, may_record: bool = True) -> Trace:
    """The graph of a model's forward, or of `network` of an `Autoregressive` model (conventions None).

    may_record: whether a long one is recorded, not traced by torch.
    Raises: NotIncremental for a forward that cannot be traced.
    """
    classes, device = spec.classes, device_of(model)
    batch = max(PROBES, min(classes, MOST_LABELS))
    # A generator of its own: the user's would give other numbers after a sampling than before it.
    generator = torch.Generator("cpu").manual_seed(0)
    levels = torch.randint(spec.levels, (batch, *spec.shape), generator=generator, dtype=torch.int64, device="cpu")
    labels = torch.arange(batch, device=device, dtype=torch.int64) % classes if classes else None
    if conventions is None:
        x = levels.to(device, torch.float32) * (2 / (spec.levels - 1)) - 1
        arguments = [Argument("x", x), None if labels is None else Argument("labels", labels)]
        names, forward = (), "network"
    else:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        # Where the range is to be inferred, it does not matter yet.
        known = conventions if conventions.input_range else replace(conventions, input_range=(0.0, 1.0))
        arguments = [Argument("x", inputs_of(known, levels.to(device), dtype))]
        arguments += [] if labels is None else [Argument("labels", labels)]
        for name, value in conventions.condition.items():
            rows = torch.arange(batch, device=value.device, dtype=torch.int64) % len(value)
            arguments.append(Argument(name, value[rows].to(device)))
        names, forward = tuple(conventions.condition), "__call__"
    values = tuple(None if one is None else one.value for one in arguments)
    with at_work(model), torch.no_grad():
        # A real forward first: what the model caches is then real too, and no tensor of the trace.
        network = _Network(model, forward, names)
        try:
            assigns, operations = _assigns(network, values)
        except Exception as error:
            if conventions is None:
                raise
            raise call_error(conventions, {one.name: one.value for one in arguments if one}, error) from error
        with backends.tracing():
            recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())
            if may_record and conventions is not None and operations > MOST_EXPORTED and not (assigns or recurrent):
                module, structure = _recorded(_Network(model, forward, names), values)
                return Trace(module, list(arguments), batch, structure, operations)
            module, given, structure = _traced(_Network(model, forward, names), assigns, values, arguments)
    return Trace(module, given, batch, structure)


class _Assigned(TorchDispatchMode):
    """Notes whether a parameter is written to, also through `.data`, which no version counter shows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.found, self.operations = False, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        for argument, value in zip(function._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
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
        with _quiet(), _unvalidated():
            return record(network, values)
    except Exception as error:
        raise _untraceable(error) from error


@contextmanager
def _unvalidated() -> Iterator[None]:
    """A context in which distributions do not look at their arguments, which would be a branch on values."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def _traced(
    network: _Network, assigns: bool, values: tuple[Any, ...], arguments: list[Argument | None]
) -> tuple[fx.GraphModule, list[Any], Any]:
    """The fx graph module of a model, the values of its placeholders, and the structure of its output."""
    with _quiet(), _unvalidated():
        if assigns:
            # torch.export refuses a forward that changes weights; plain tracing takes it.
            options: Any = {"pre_dispatch": True, "record_module_stack": True, "record_stack_traces": True}
            try:
                return make_fx(network, **options)(*values), list(arguments), None
            except Exception as error:
                raise _untraceable(error) from error
        try:
            exported = torch.export.export(network, values, strict=False)
        except Exception as error:
            raise _untraceable(error) from error
    given, user = [], iter(arguments)
    for spec in exported.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            given.append(next(user))
        else:
            given.append(exported.state_dict.get(spec.target, exported.constants.get(spec.target)))
    return _inlined(exported.graph_module), given, exported.call_spec.out_spec


def _inlined(module: fx.GraphModule) -> fx.GraphModule:
    """A graph module without the submodules of parts that run with gradients, which make no difference here."""
    graph = module.graph
    for node in list(graph.nodes):
        if "wrap_with_set_grad_enabled" not in str(node.target):
            continue
        _, submodule, *inputs = node.args
        inner = getattr(module, submodule.target).graph
        env = dict(zip((n for n in inner.nodes if n.op == "placeholder"), inputs))
        with graph.inserting_before(node):
            results = graph.graph_copy(inner, env)
        for user in list(node.users):  # getitem
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which torch says nothing: for a refusal it prints pages of graph, and logs them."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _untraceable(error: Exception) -> NotIncremental:
    """What cannot be traced, in a line: a branch that depends on values, an `.item()`, an object of its own class.

    The forward itself ran before, so an error now is one of tracing.
    """
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return NotIncremental(f"sample: the model cannot be traced: {type(error).__name__}: {reason}")
