"""From a model to its pixel program: trace the forward, read the graph, simplify, schedule, lower, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from genfast._native import backends
from genfast.engine.calling import at_work, not_finite
from genfast.engine.compiled import Compiled
from genfast.engine.compiler.entrance import inferred
from genfast.engine.compiler.exit import are_unbounded, bare
from genfast.engine.compiler.fuse import prune, simplify
from genfast.engine.compiler.lower import Lowering
from genfast.engine.compiler.plan import Graph, NotCausal, NotIncremental, Operand
from genfast.engine.compiler.proof import check_causal, prove
from genfast.engine.compiler.reader import GEOMETRIES, Failed, Reader
from genfast.engine.compiler.schedule import extents, schedule
from genfast.engine.compiler.sums import linear_step
from genfast.engine.compiler.trace import Trace, trace
from genfast.engine.compiler.values import BATCH, COLUMN, FEATURE, ROW, Unsupported, Value, permuted, reshaped, windowed
from genfast.engine.conventions import Conventions, conventions_of, refuse_conventions
from genfast.engine.full_forward import FullForward
from genfast.engine.program import MOST_MEMORY, Program
from genfast.engine.protocols import Autoregressive, ImageSpec
from genfast.engine.wrappers import unwraps
from genfast.likelihoods import Likelihood, Reading

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords

# Values of an image whose model is taken as one position: its tables grow with their square.
MOST_OF_A_POINT = 16_384
MOST_TWICE = 5_000  # operations of a forward that is traced by torch where what was recorded could not be read
PLACES = 64  # from which all values of an image are changed, to see whether an output before them moves


@unwraps
@backends.float_mode()
def compile_program(model: nn.Module, **keywords: Unpack[Keywords]) -> Program:
    """The pixel program of a model.

    Args:
        model: an `Autoregressive` model, which states all the rest itself; or any module that returns the parameters of
            all conditionals of its input.
        keywords: of a foreign model, see `genfast.engine.conventions.Conventions`.
    Returns: Program. Its parameters equal the model's output but for rounding; for a model that is not
        `Autoregressive` this is verified, see `prove`.
    Raises: NotIncremental for a model that cannot be run pixel by pixel, with the operation; its subclass NotCausal
        where a conditional depends on a value that is drawn later; ValueError for weights that are not finite, or
        keywords that do not fit.
    """
    if isinstance(model, Autoregressive):
        refuse_conventions(type(model).__name__, "compile_program", keywords=keywords)
        return compile_traced(trace_model(model, model.spec, None), FullForward(model)).program
    conventions = conventions_of("compile_program", model, keywords)
    traced = trace_model(model, conventions.spec, conventions)
    conventions = inferred("compile_program", traced, conventions)
    return compile_traced(traced, FullForward(model, conventions, partial(chosen, traced))).program


@backends.float_mode()
def trace_model(model: nn.Module, spec: ImageSpec, conventions: Conventions | None, may_record: bool = True) -> Trace:
    """The `Trace` of a model. Raises: NotIncremental; ValueError for weights that are not finite."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if isinstance(tensor, nn.Parameter) and str(tensor.dtype) != "torch.float32":
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise NotIncremental(f"sample: {name} must be float32 to run pixel by pixel; got {dtype}")
        if bad := not_finite(tensor):
            raise ValueError(f"sample: {name} must be finite; got {bad} values that are not")
    return trace(model, spec, conventions, may_record)


@backends.float_mode()
def compile_traced(traced: Trace, network: FullForward) -> Compiled:
    """The program of a traced model, in the first geometry in which it has one; a foreign one is verified."""
    # Operations on constants run here: they may draw random numbers, and write to weights.
    with torch.no_grad(), at_work(network.model):
        try:
            return _in_a_geometry(traced, network)
        except NotCausal:
            raise
        except NotIncremental:
            # What is recorded is in smaller operations, not all of which can be read.
            if not 0 < traced.recorded < MOST_TWICE:
                raise
        traced = trace_model(network.original, network.spec, network.conventions, may_record=False)
        return _in_a_geometry(traced, network)


def _in_a_geometry(traced: Trace, network: FullForward) -> Compiled:
    order = None if network.conventions is None else network.conventions.pixel_order
    reasons: list[tuple[int, NotIncremental]] = []
    # A model of the next symbol is run column by column.
    for geometry in ("grid",) if network.conventions is None or network.delay else GEOMETRIES:
        if order is not None and geometry != "point" or geometry == "point" and network.spec.values > MOST_OF_A_POINT:
            continue
        inputs = "images" if network.conventions is None else network.conventions.inputs
        reader: Reader | None = None
        try:
            reader = Reader(traced, network.spec, geometry, inputs, network.scale, network.shift, order)
            compiled = _compiled(reader, network, geometry)
            if network.conventions is not None:
                prove(compiled, network)
            return compiled
        except NotCausal as error:
            if network.conventions is None or _leaks(network):
                raise
            # Positions of its own, such as those of skewed rows, only look as if they came later.
            shown = str(error).partition(" it enters at ")[2] or "the output"
            reason = f"sample: {shown} cannot be run pixel by pixel: its rows or columns are in an order of their own"
            reasons.append((_reached(reader), NotIncremental(reason)))
        except NotIncremental as error:
            reasons.append((_reached(reader), error))
    if not reasons:
        raise NotIncremental("sample: an order of pixels other than rows is run value by value for small images only")
    raise max(reasons, key=lambda reason: reason[0])[1]  # of the geometry that came farthest


def _reached(reader: Reader | None) -> int:
    """How many nodes were read before the first that could not be."""
    return 0 if reader is None else reader.failed or reader.progress


def _leaks(network: FullForward) -> bool:
    """Whether an output moves with a value that is drawn later."""
    try:
        with torch.no_grad(), at_work(network.model):
            check_causal(network, PLACES)
    except NotCausal:
        return True
    return False


@dataclass
class _Shape:
    """The image of a program: that of the model, or its values in another arrangement."""

    likelihood: Likelihood
    spec: ImageSpec
    draws: list[np.ndarray]


def _compiled(reader: Reader, network: FullForward, geometry: str) -> Compiled:
    order = None if network.conventions is None else network.conventions.pixel_order
    graph, output = reader.run()
    entry = None if network.reading is None else network.reading.layout.entry
    are_logits = network.reading is not None and are_unbounded(_entry(output, entry))
    shape = _shape(network, geometry, output)
    _outputs(graph, shape.draws)
    simplify(graph)
    extents(graph)
    places = schedule(graph, shape.likelihood.draws)
    lowered = Lowering(graph, places, shape.likelihood.draws)
    program = Program(
        spec=shape.spec,
        likelihood=shape.likelihood,
        columns=lowered.columns,
        scale=1.0 if reader.by_levels else network.scale,
        shift=0.0 if reader.by_levels else network.shift,
        image=lowered.buffer[graph.steps[0]],
        buffers=lowered.buffers,
        row=lowered.row,
        pixel=lowered.pixel,
        parameters=lowered.parameters(),
        fields=lowered.fields,
    )
    if program.attention_bytes > MOST_MEMORY:
        where = next(step.where for step in graph.steps if step.attention is not None)
        raise NotIncremental(
            f"sample: {where} cannot be run pixel by pixel: the keys and values of an image must take at most "
            f"{MOST_MEMORY} bytes; got {program.attention_bytes} in all attention"
        )
    program.check()
    known = reader.known if lowered.sources else None
    return Compiled(program, network.spec, geometry, order, known, lowered.sources, are_logits)


def _shape(network: FullForward, geometry: str, output: Any) -> _Shape:
    """The codes of the parameters of each draw, and the images in which they are drawn."""
    spec, likelihood = network.spec, network.likelihood
    if network.reading is None:
        value = _only(output)
        features = [i for i, name in enumerate(value.dims) if name == FEATURE]
        # A single row, of a sequence, has no dimension of its own.
        space = [
            value.dims.index(name) for name in (ROW, COLUMN) if name == COLUMN or spec.height > 1 or ROW in value.dims
        ]
        codes = permuted(value, [value.dims.index(BATCH), *features, *space]).codes.reshape(-1)
        return _Shape(likelihood, spec, np.split(codes, np.cumsum(likelihood.counts)[:-1]))
    reading = network.reading
    value = _laid_out(bare(_entry(output, reading.layout.entry), network), reading, geometry)
    if geometry == "point":
        return _point(network, value)
    if reading.delay:
        value = windowed(value, COLUMN, -reading.delay, value.size[COLUMN] - reading.delay)
    codes = value.codes.reshape(-1)[reading.index]
    if geometry == "line":  # the pixels of a line are its columns
        spec = replace(spec, height=1, width=spec.height * spec.width)
    return _Shape(likelihood, spec, np.split(codes, np.cumsum(likelihood.counts)[:-1]))


def _laid_out(value: Value, reading: Reading, geometry: str = "grid") -> Value:
    """An output with the dimensions B, C, L or P, H, W that its layout has. NotIncremental where it has others."""
    layout, sizes = reading.layout, reading.sizes | {"B": value.size[BATCH]}
    shape = tuple(int(np.prod([sizes[letter] for letter in dim])) for dim in layout.dims)
    if value.shape != shape:
        raise NotIncremental(f"sample: the model must return an output of the layout '{layout}'; got {value.shape}")
    try:
        value = permuted(reshaped(value, [sizes[letter] for letter in layout.letters]), layout.order())
    except Unsupported as problem:
        raise NotIncremental(f"sample: the output cannot be read as '{layout}': {problem}") from None
    names = {"B": BATCH} if geometry == "point" else {"B": BATCH, "H": ROW, "W": COLUMN}
    wanted = [names.get(letter, FEATURE) for letter in "BCLPHW" if letter in layout.letters]
    if not value.is_arranged(wanted):
        raise NotIncremental(f"sample: the output cannot be read as '{layout}': rows, columns or features differ")
    return value


def chosen(traced: Trace, network: FullForward, readings: list[Reading]) -> list[Reading]:
    """The readings that agree with the graph, which shows where rows and columns are; all, where it does not."""
    inputs = network.conventions.inputs if network.conventions else "images"
    try:
        with torch.no_grad(), at_work(network.model):
            _, output = Reader(traced, network.spec, "grid", inputs, network.scale, network.shift).run()
    except NotIncremental:
        return readings
    fitting = []
    for reading in readings:
        try:
            _laid_out(_entry(output, reading.layout.entry), reading)
            fitting.append(reading)
        except NotIncremental:
            pass
    return fitting or readings


def _point(network: FullForward, value: Value) -> _Shape:
    """One position whose channels are all values of the image, in their order."""
    spec, likelihood, reading = network.spec, network.likelihood, network.reading
    assert reading is not None and network.conventions is not None
    if likelihood.draws != spec.channels:
        raise NotIncremental("sample: a mixture that couples channels is not run value by value")
    if set(value.dims[1:]) != {FEATURE}:
        raise NotIncremental("sample: the model must return numbers that depend on the image")
    places = spec.height * spec.width
    codes = value.codes.reshape(-1, places)[reading.index].reshape(spec.channels, -1, places)
    of_values = codes.transpose(2, 0, 1).reshape(spec.values, -1)
    order = network.conventions.pixel_order
    draws = list(of_values if order is None else of_values[order])
    point = replace(spec, channels=spec.values, height=1, width=1)
    return _Shape(replace(likelihood, channels=spec.values), point, draws)


def _entry(output: Any, entry: str | int | None) -> Value:
    return _only(output if entry is None else output[entry])


def _only(output: Any) -> Value:
    if isinstance(output, (list, tuple)) and len(output) == 1:
        output = output[0]
    if isinstance(output, Failed):
        raise output.error
    if not isinstance(output, Value):
        kind = "several values" if isinstance(output, (list, tuple, dict)) else "what does not depend on the image"
        raise NotIncremental(f"sample: the model must return one tensor that depends on the image; got {kind}")
    return output


def _outputs(graph: Graph, draws: Sequence[np.ndarray]) -> None:
    """Set the outputs of a graph: one for each draw."""
    for draw in draws:
        index, feature = graph.split(draw)
        if not (index == index[0]).all():
            # A product with the identity copies exactly.
            identity = np.eye(len(draw), dtype=np.float32)
            zeros = np.zeros(len(draw), np.float32)
            image = Value(graph, draw, (FEATURE,), {}, 1)
            draw = linear_step(image, [(draw, 0, 0, (0, 0), identity)], zeros, graph.domain, "the output")
            index, feature = graph.split(draw)
        graph.outputs.append(Operand(graph.view(index[0]), feature))
    prune(graph)
