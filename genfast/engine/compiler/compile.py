"""From a model to its pixel program: the graph of its forward, read operation by operation."""

import copy
import warnings

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from genfast._native import backends
from genfast.engine.compiler.fuse import prune, simplify
from genfast.engine.compiler.lower import Lowering
from genfast.engine.compiler.plan import NotIncremental, Operand
from genfast.engine.compiler.proof import prove
from genfast.engine.compiler.reader import Reader
from genfast.engine.compiler.schedule import extents, schedule
from genfast.engine.compiler.sums import linear_step
from genfast.engine.compiler.values import BATCH, COLUMN, FEATURE, ROW, permuted
from genfast.engine.full_forward import ORDERS, evaluating
from genfast.engine.program import Program
from genfast.models import Autoregressive


def compile_program(model, *, shape=None, levels=None, input_range=None, head=None):
    """The pixel program of a model.

    Args:
        model: a `genfast.models.Autoregressive`, which says all the rest itself; or any module whose forward takes
            images, float [B, C, H, W], and returns the parameters of their conditionals.
        shape: (C, H, W) of the images.
        levels: values of a channel, 2 to 256.
        input_range: (low, high): level 0 enters as low, the last level as high; (0, 1) if None.
        head: how the output is read; None for what its shape says.
            "bernoulli": [B, C, H, W], for two levels, the logit of level 1.
            "categorical": [B, L, H, W] for C = 1, [B, C, L, H, W] or [B, C * L, H, W] in this order.
            "categorical-levels-first": [B, L, C, H, W] (as `CrossEntropyLoss` takes it) or [B, L * C, H, W].
            "mixture": [B, 3K or 10K, H, W], the parameters of `logistic_mixture_nll`.
    Returns: Program. Its parameters equal the model's output but for rounding; of a model that is not genfast's own
        that is tried, see `prove`.
    Raises: NotIncremental for a model that cannot be run pixel by pixel, naming what stops it; NotCausal, one of these,
        where a conditional depends on what is drawn later; ValueError for weights that are not finite, or arguments
        that do not fit.
    """
    if isinstance(model, Autoregressive):
        if (shape, levels, input_range, head) != (None,) * 4:
            raise ValueError("compile_program: expected only the model, which knows shape, levels and head; got more")
        settings = _own_settings(model)
    else:
        settings = _foreign_settings(shape, levels, input_range, head)
    _check_weights(model)
    graph, output = _read(model, settings)
    draws = _outputs(graph, output, settings)
    simplify(graph)
    extents(graph)
    places = schedule(graph, draws)
    lowered = Lowering(graph, places, draws)
    channels, height, width = settings["shape"]
    low, high = settings["input_range"]
    program = Program(
        channels=channels,
        height=height,
        width=width,
        levels=settings["levels"],
        columns=lowered.columns,
        scale=(high - low) / (settings["levels"] - 1),
        shift=low,
        image=lowered.buffer[graph.steps[0]],
        buffers=lowered.buffers,
        row=lowered.row,
        pixel=lowered.pixel,
        head=settings["head"].partition("-")[0],
        parameters=lowered.parameters(),
        classes=settings["classes"],
    )
    program.check()
    if not isinstance(model, Autoregressive):
        prove(program, model, settings["order"])
    return program


def _own_settings(model):
    c = model.config
    head = "mixture" if model.draws == 1 and hasattr(c, "mixtures") else "categorical"
    return {
        "shape": (c.channels, c.height, c.width),
        "levels": c.levels,
        "input_range": (-1.0, 1.0),
        "head": "bernoulli" if head == "categorical" and c.levels == 2 else head,
        "classes": getattr(c, "classes", 0),
        "forward": "network",
    }


def _foreign_settings(shape, levels, input_range, head):
    if shape is None or levels is None:
        raise ValueError(f"compile_program: shape=(C, H, W) and levels must be given; got {shape} and {levels}")
    shape = tuple(shape)
    if len(shape) != 3 or any(type(n) is not int or n < 1 for n in shape):
        raise ValueError(f"compile_program: shape must be (C, H, W), each at least 1; got {shape}")
    if type(levels) is not int or not 2 <= levels <= 256:
        raise ValueError(f"compile_program: levels must be an int in 2 .. 256; got {levels!r}")
    low, high = (0.0, 1.0) if input_range is None else map(float, input_range)
    if not (np.isfinite([low, high]).all() and low != high):
        raise ValueError(f"compile_program: input_range must be two different numbers; got {input_range}")
    if head is not None and head not in ORDERS:
        raise ValueError(f"compile_program: head must be one of {', '.join(ORDERS)}; got {head!r}")
    return {
        "shape": shape,
        "levels": levels,
        "input_range": (low, high),
        "head": head,
        "classes": 0,
        "forward": "__call__",
    }


def _check_weights(model):
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if isinstance(tensor, nn.Parameter) and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise NotIncremental(f"sample: {name} must be float32 to run pixel by pixel; got {dtype}")
        if bad := int((~tensor.isfinite()).sum()):
            raise ValueError(f"sample: {name} must be finite; got {bad} values that are not")


class _Network(nn.Module):
    """What is traced: a copy of a model, since one that changes its own weights would be left with traced ones."""

    def __init__(self, model, forward):
        super().__init__()
        try:
            self.model = copy.deepcopy(model)
        except RuntimeError:
            # Weights computed by a hook before forward cannot be copied.
            self.model = model
        self.call = getattr(self.model, forward)

    def forward(self, *arguments):
        return self.call(*arguments)


def _read(model, settings):
    """Graph of a model, and the value that it returns."""
    classes = settings["classes"]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = torch.rand(classes or 2, *settings["shape"], device=device)
    arguments = (x, torch.arange(classes, device=device)) if classes else (x,)
    if settings["forward"] == "network" and not classes:
        arguments = (x, None)
    with evaluating(model), torch.no_grad(), backends.capturing():
        reader = Reader(settings["shape"], arguments)
        traced, given = _trace(model, settings["forward"], arguments, reader.user)
        return reader.run(traced, given)


def _trace(model, forward, arguments, user):
    """(fx graph module, the values of its placeholders): `user` for the arguments, else parameters and buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(_Network(model, forward), arguments, strict=False)
        except Exception:
            # What export does not take (weights changed in forward, for one), plain tracing may.
            options = {"pre_dispatch": True, "record_module_stack": True, "record_stack_traces": True}
            return make_fx(_Network(model, forward), **options)(*arguments), list(user)
    given, user = [], iter(user)
    for spec in exported.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            given.append(next(user))
        else:
            given.append(exported.state_dict.get(spec.target, exported.constants.get(spec.target)))
    return exported.graph_module, given


def _outputs(graph, output, settings):
    """Set the outputs of a graph, one for each draw; returns how many."""
    codes = _draws(output, settings)
    for draw in codes:
        index, feature = graph.split(draw)
        if not (index == index[0]).all():
            # An exact copy: one product by one, the others by zero.
            copy = np.eye(len(draw), dtype=np.float32)
            at = _At("the output")
            draw = linear_step(at, output, [(draw, 0, 0, (0, 0), copy)], np.zeros(len(draw), np.float32), output.domain)
            index, feature = graph.split(draw)
        graph.outputs.append(Operand(graph.view(index[0]), feature))
    prune(graph)
    return len(codes)


class _At:
    def __init__(self, where):
        self.where = where


def _draws(output, settings):
    """Codes of the parameters of each draw."""
    (channels, height, width), levels = settings["shape"], settings["levels"]
    expected = f"[B, .., H, W] with H={height}, W={width}"
    if {BATCH, ROW, COLUMN} - set(output.dims) or (output.size[ROW], output.size[COLUMN]) != (height, width):
        raise NotIncremental(f"sample: the model must return {expected}; got {output.shape}")
    space = [output.dims.index(name) for name in (ROW, COLUMN)]
    features = [i for i, name in enumerate(output.dims) if name == FEATURE]
    ordered = permuted(output, [output.dims.index(BATCH), *features, *space])
    codes, sizes = ordered.codes.reshape(-1), [n for n in ordered.codes.shape if n > 1]
    head = settings["head"] or _head(sizes, len(codes), channels, levels, output.shape)
    settings["head"] = head
    index = np.arange(len(codes))
    if head == "categorical-levels-first":
        index = index.reshape(levels, channels).T.reshape(-1)
    settings["order"] = [output.dims.index(BATCH), *features, *space], index
    count = {"bernoulli": channels, "mixture": len(codes)}.get(head, channels * levels)
    if len(codes) != count or (head == "bernoulli" and levels != 2):
        raise ValueError(f"compile_program: the output must fit head={head!r} and {levels} levels; got {output.shape}")
    if head == "mixture":
        per = {1: 3, 3: 10}.get(channels)
        if per is None or len(codes) % per:
            raise ValueError(f"compile_program: a mixture must have 3K or 10K features; got {output.shape}")
        return [codes]
    return list(codes[index].reshape(channels, -1))


def _head(sizes, count, channels, levels, shape):
    """The head that the sizes of the output tell."""
    if levels == 2 and count == channels:
        return "bernoulli"
    if count == channels * levels:
        if channels == 1 or (sizes == [channels, levels] and channels != levels):
            return "categorical"
        if sizes == [levels, channels] and channels != levels:
            return "categorical-levels-first"
        raise ValueError(
            "compile_program: head must say how the output is ordered, 'categorical' for [C, L] or "
            f"'categorical-levels-first' for [L, C]; got None with C={channels}, L={levels} and output {shape}"
        )
    raise ValueError(
        f"compile_program: the output must hold a logit for each of {levels} levels and {channels} channels "
        f"(for two levels, one for level 1); got {shape}"
    )
