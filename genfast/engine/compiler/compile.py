"""From a model to its pixel program: trace the forward, read the graph, simplify, schedule, lower, verify."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from genfast._native import backends
from genfast.engine.compiler.fuse import prune, simplify
from genfast.engine.compiler.lower import Lowering
from genfast.engine.compiler.plan import Graph, NotIncremental, Operand
from genfast.engine.compiler.proof import Order, prove
from genfast.engine.compiler.reader import Reader
from genfast.engine.compiler.schedule import extents, schedule
from genfast.engine.compiler.sums import linear_step
from genfast.engine.compiler.values import BATCH, COLUMN, FEATURE, ROW, Value, permuted
from genfast.engine.full_forward import check_foreign_spec, check_input_range, evaluating
from genfast.engine.program import Program
from genfast.engine.protocols import Autoregressive, ImageSpec, device_of
from genfast.engine.wrappers import unwraps
from genfast.likelihoods import Likelihood, read_output


@unwraps
@backends.float_mode()
def compile_program(
    model: nn.Module,
    *,
    shape: Sequence[int] | None = None,
    levels: int | None = None,
    input_range: Sequence[float] | None = None,
    head: str | None = None,
) -> Program:
    """The pixel program of a model.

    Args:
        model: an `Autoregressive` model, which states all the rest itself; or any module whose forward takes images,
            float [B, C, H, W], and returns the parameters of their conditionals.
        shape: (C, H, W) of the images.
        levels: values of a channel, 2 to 65536.
        input_range: (low, high): level 0 enters as low, the last level as high; (0, 1) if None.
        head: how the output is read; None: as its shape implies.
            "bernoulli": [B, C, H, W], for two levels, the logit of level 1.
            "categorical": [B, L, H, W] for C = 1, [B, C, L, H, W] or [B, C * L, H, W] in this order.
            "categorical-levels-first": [B, L, C, H, W] (as `CrossEntropyLoss` takes it) or [B, L * C, H, W].
            "mixture": [B, 3K or 10K, H, W], the parameters of `logistic_mixture_nll`.
    Returns: Program. Its parameters equal the model's output but for rounding; for a model that is not
        `Autoregressive` this is verified, see `prove`.
    Raises: NotIncremental for a model that cannot be run pixel by pixel, with the operation; its subclass NotCausal
        where a conditional depends on a value that is drawn later; ValueError for weights that are not finite, or
        arguments that do not fit.
    """
    settings = _settings(model, shape, levels, input_range, head)
    _check_weights(model)
    graph, output = _read(model, settings)
    _outputs(graph, output, settings)
    simplify(graph)
    extents(graph)
    draws = settings.likelihood.draws
    places = schedule(graph, draws)
    lowered = Lowering(graph, places, draws)
    low, high = settings.input_range
    program = Program(
        spec=settings.spec,
        likelihood=settings.likelihood,
        columns=lowered.columns,
        scale=(high - low) / (settings.spec.levels - 1),
        shift=low,
        image=lowered.buffer[graph.steps[0]],
        buffers=lowered.buffers,
        row=lowered.row,
        pixel=lowered.pixel,
        parameters=lowered.parameters(),
    )
    program.check()
    if settings.forward == "__call__":
        prove(program, model, settings.order)
    return program


@dataclass
class Settings:
    """A model's conventions, as far as they are known before it is traced; reading the output adds the others.

    Attributes:
        spec: of the images.
        input_range: (low, high), the inputs for the lowest and the highest level.
        forward: the name of the method that is traced.
        head: how the output is read; None: as its shape implies.
        likelihood: stated by the model, else read from the output.
        order: (dims, features): how the dimensions of the output are permuted to [B, .., H, W], and which of its
            features each parameter is.
    """

    spec: ImageSpec
    input_range: tuple[float, float]
    forward: str
    head: str | None = None
    likelihood: Likelihood | Any = None
    order: Order | Any = None


def _settings(
    model: nn.Module,
    shape: Sequence[int] | None,
    levels: int | None,
    input_range: Sequence[float] | None,
    head: str | None,
) -> Settings:
    if not isinstance(model, Autoregressive):
        spec = check_foreign_spec("compile_program", model, shape, levels)
        return Settings(spec, check_input_range("compile_program", input_range), "__call__", head)
    if (shape, levels, input_range, head) != (None,) * 4:
        raise ValueError("compile_program: expected only the model, which knows shape, levels and head; got more")
    return Settings(model.spec, (-1.0, 1.0), "network", likelihood=model.likelihood)


def _check_weights(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if isinstance(tensor, nn.Parameter) and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise NotIncremental(f"sample: {name} must be float32 to run pixel by pixel; got {dtype}")
        if bad := int((~tensor.isfinite()).sum()):
            raise ValueError(f"sample: {name} must be finite; got {bad} values that are not")


class _Network(nn.Module):
    """The module that is traced: a copy of a model. Tracing a model that changes its own weights would break it."""

    def __init__(self, model: nn.Module, forward: str) -> None:
        super().__init__()
        try:
            self.model = copy.deepcopy(model)
        except RuntimeError:
            # Weights that a hook computes before forward are no leaves, and cannot be copied.
            self.model = model
        self.call = getattr(self.model, forward)

    def forward(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def _read(model: nn.Module, settings: Settings) -> tuple[Graph, Value]:
    """The `Graph` of a model, and the value that the model returns."""
    classes, shape = settings.spec.classes, settings.spec.shape
    device = device_of(model)
    # A generator of its own: the user's would give other numbers after a sampling than before it.
    generator = torch.Generator(device).manual_seed(0)
    x = torch.rand(classes or 2, *shape, generator=generator, dtype=torch.float32, device=device)
    arguments: tuple[Tensor | None, ...] = (x,)
    if classes:
        arguments = (x, torch.arange(classes, device=device, dtype=torch.int64))
    elif settings.forward == "network":
        arguments = (x, None)
    with evaluating(model), torch.no_grad():
        assigns = _assigns(_Network(model, settings.forward), arguments)
        with backends.tracing():
            reader = Reader(shape, arguments)
            traced, given = _trace(_Network(model, settings.forward), assigns, arguments, reader.user)
            return reader.run(traced, given)


class _Assigned(TorchDispatchMode):
    """Notes whether a parameter is written to, also through `.data`, which no version counter shows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.found = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument, value in zip(function._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                self.found = self.found or value.untyped_storage().data_ptr() in self.storages
        return function(*args, **(kwargs or {}))


def _assigns(network: _Network, arguments: tuple[Any, ...]) -> bool:
    """Whether a forward changes parameters."""
    with _Assigned(network) as assigned:
        network(*arguments)
    return assigned.found


def _trace(
    network: _Network, assigns: bool, arguments: tuple[Any, ...], user: Iterable[Any]
) -> tuple[fx.GraphModule, list[Any]]:
    """The fx graph module of a model, and the values of its placeholders: `user`, parameters and buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if assigns:
            # torch.export refuses a forward that changes weights; plain tracing takes it.
            options: Any = {"pre_dispatch": True, "record_module_stack": True, "record_stack_traces": True}
            return make_fx(network, **options)(*arguments), list(user)
        try:
            exported = torch.export.export(network, arguments, strict=False)
        except Exception as error:
            # A class of torch's own is a refusal, such as of a branch that depends on values. All else is a fault, of
            # the model's code or of torch: drawing slowly would hide it.
            if not type(error).__module__.startswith("torch."):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NotIncremental(f"sample: the model cannot be traced: {reason}") from error
    given, user = [], iter(user)
    for spec in exported.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            given.append(next(user))
        else:
            given.append(exported.state_dict.get(spec.target, exported.constants.get(spec.target)))
    return exported.graph_module, given


def _outputs(graph: Graph, output: Value, settings: Settings) -> None:
    """Set the outputs of a graph: one for each draw."""
    for draw in _draws(output, settings):
        index, feature = graph.split(draw)
        if not (index == index[0]).all():
            # A product with the identity copies exactly.
            copy = np.eye(len(draw), dtype=np.float32)
            zeros = np.zeros(len(draw), np.float32)
            draw = linear_step(output, [(draw, 0, 0, (0, 0), copy)], zeros, output.domain, "the output")
            index, feature = graph.split(draw)
        graph.outputs.append(Operand(graph.view(index[0]), feature))
    prune(graph)


def _draws(output: Value, settings: Settings) -> list[np.ndarray]:
    """The codes of the parameters of each draw, a list of int64 arrays. Completes the settings."""
    spec = settings.spec
    expected = f"[B, .., H, W] with H={spec.height}, W={spec.width}"
    if {BATCH, ROW, COLUMN} - set(output.dims) or (output.size[ROW], output.size[COLUMN]) != (spec.height, spec.width):
        raise NotIncremental(f"sample: the model must return {expected}; got {output.shape}")
    space = [output.dims.index(name) for name in (ROW, COLUMN)]
    features = [i for i, name in enumerate(output.dims) if name == FEATURE]
    ordered = permuted(output, [output.dims.index(BATCH), *features, *space])
    codes, index = ordered.codes.reshape(-1), np.arange(ordered.codes.size)
    if settings.likelihood is None:
        reading = read_output("compile_program", ordered.codes.shape, spec.channels, spec.levels, settings.head)
        settings.likelihood, index = reading.likelihood, reading.index
    settings.order = [output.dims.index(BATCH), *features, *space], index
    ends = np.cumsum(settings.likelihood.counts)
    return np.split(codes[index], ends[:-1])
