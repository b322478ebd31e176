"""The entrance of a model: levels as integers, embeddings of them, and all that is a function of one value alone."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from genfast.engine.compiler.handlers import depends, handles
from genfast.engine.compiler.nodes import operation
from genfast.engine.compiler.plan import Graph, Operand, Rectangle, Step, View, cut, inside, reached
from genfast.engine.compiler.trace import Argument, Trace
from genfast.engine.compiler.values import (
    COLUMN,
    FEATURE,
    LINE,
    ROW,
    Operation,
    Unsupported,
    Value,
    array,
    field_codes,
)
from genfast.engine.conventions import OF_FLOATS, Conventions

MOST_ONE_HOT = 4096
_OF_TWO = {"min": np.minimum, "max": np.maximum, "add": np.add, "mul": np.multiply}


def looked_up(op: Operation, x: Value, tables: np.ndarray) -> Value:
    """A function of each entry of levels: `tables` float32 [levels], or [entries, levels] for one of each."""
    codes = x.codes.reshape(-1)
    weight = np.broadcast_to(tables.astype(np.float32), (len(codes), tables.shape[-1]))
    y = x.graph.elementwise("lookup", [codes], x.stride, x.domain, op.where, weight)
    return x.like(y.reshape(x.codes.shape))


def of_level(op: Operation, x: Value) -> tuple[np.ndarray, np.ndarray]:
    """Each entry of x as a function of one level: the codes of the levels [n], and the values float32 [n, levels].

    Raises: Unsupported where an entry depends on more than one value of the image.
    """
    pairs = [_of_level(x, code, op.image_values) for code in x.codes.reshape(-1)]
    return np.array([code for code, _ in pairs], np.int64), np.stack([values for _, values in pairs])


def settled(op: Operation, compare: Any, a: Any, b: Any) -> Tensor | None:
    """The result of a comparison that is the same for all levels, such as of a level with -1; None for others."""
    x, other = (a, b) if depends(a) else (b, a)
    if depends(other) or op.node(other) is not None or array(other).size != 1:
        return None
    try:
        _, values = of_level(op, x)
    except Unsupported:
        return None
    number = array(other).reshape(-1)[0]
    results = compare(values, number) if x is a else compare(number, values)
    if not (results == results.flat[0]).all():
        return None
    return torch.full(x.shape, bool(results.flat[0]), dtype=torch.bool, device="cpu")


def _of_level(x: Value, code: int, levels: np.ndarray) -> tuple[int, np.ndarray]:
    graph = x.graph
    (index,), (feature,) = graph.split(np.array([code]))
    view = graph.view(int(index))
    step = view.step
    if step.kind == "image":
        return int(code), levels
    if step.kind in _OF_TWO:
        parts = [_part(x, operand, int(feature), levels) for operand in step.operands]
        codes = {one for one, _ in parts if one is not None}
        if len(codes) == 1 and _stays(x, view, step):
            return codes.pop(), _OF_TWO[step.kind](*(values for _, values in parts))
    if len(step.operands) != 1 or step.taps:
        raise Unsupported("whole numbers of what is more than a function of one value of the image")
    if not _stays(x, view, step):
        raise Unsupported("whole numbers of a map that was moved or padded before")
    operand = step.operands[0]
    inner, values = _of_level(x, _code(graph, operand.view, int(operand.features[feature])), levels)
    if step.kind == "lookup":
        return inner, step.weight[feature]
    if step.kind == "affine":
        bias = step.bias[..., feature]
        if np.ndim(bias):
            raise Unsupported("whole numbers of what depends on the label")
        # As PyTorch computes: a product, then a sum.
        return inner, (values * np.float32(step.weight[feature])) + np.float32(bias)
    if step.kind in ("copy", "relu"):
        return inner, values if step.kind == "copy" else np.maximum(values, 0)
    raise Unsupported(f"whole numbers of what {step.kind} gives")


def _stays(x: Value, view: View, step: Step) -> bool:
    """Whether a view shows the position of its reader, everywhere."""
    reach = all(reached(step, operand.view, None, x.domain) for operand in step.operands)
    return (view.row, view.column) == (0, 0) and inside(x.domain, view.window) and reach


def _part(x: Value, operand: Operand, feature: int, levels: np.ndarray) -> tuple[int | None, np.ndarray]:
    """`_of_level` of an operand; (None, the number) of a constant that is the same for all labels."""
    step, at = operand.view.step, int(operand.features[feature])
    if step.kind == "constant" and np.ndim(step.bias) == 1:
        return None, np.full_like(levels, step.bias[at])
    return _of_level(x, _code(x.graph, operand.view, at), levels)


def _code(graph: Graph, view: View, feature: int) -> int:
    return graph.code(view) + feature


def applied(op: Operation, x: Value, function: Any) -> Value:
    """A function of whole numbers, as torch computes it of every level."""
    codes, values = of_level(op, x)
    table = function(torch.from_numpy(np.ascontiguousarray(values))).to(torch.float32).numpy()
    return looked_up(op, x.like(codes.reshape(x.codes.shape)), table)


@handles("aten::round", "aten::floor", "aten::ceil", "aten::trunc", "aten::fix")
def rounded(op: Operation, x: Value, *, decimals: int = 0) -> Value:
    return applied(op, x, getattr(torch, op.name))


@handles("aten::long", "aten::int")
def whole(op: Operation, x: Value) -> Value:
    return applied(op, x, torch.trunc)


@handles("aten::floor_divide", "aten::remainder", "aten::fmod")
def of_whole_numbers(op: Operation, x: Any, other: Any) -> Value:
    return by_whole_number(op, x, other, getattr(torch, op.name))


def by_whole_number(op: Operation, x: Any, other: Any, function: Any) -> Value:
    """A function of whole numbers and one constant."""
    if not depends(x) or depends(other) or array(other).size != 1:
        raise Unsupported("whole numbers by others than one constant")
    number = float(array(other).reshape(-1)[0])
    return applied(op, x, lambda values: function(values, number))


@handles("aten::embedding")
def embedding(op: Operation, weight: Any, x: Value, *rest: Any) -> Value:
    if not isinstance(weight, Tensor):
        raise Unsupported("an embedding whose weight depends on the image")
    table, moved = array(weight), _moved(op, x)
    codes, values = of_level(op, x if moved is None else moved.source)
    index = _rows(table, values)
    size = table.shape[1]
    weights = table[index].transpose(0, 2, 1).reshape(-1, index.shape[1])  # [entries * size, levels]
    domain = (x if moved is None else moved.source).domain
    y = x.graph.elementwise("lookup", [np.repeat(codes, size)], x.stride, domain, op.where, weights)
    if moved is not None:
        y = _again(op, x, moved, y, table)
    return x.like(y.reshape(*x.codes.shape, size), (*x.dims, FEATURE))


def _rows(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    index = np.rint(values).astype(np.int64)
    if index.min() < 0 or index.max() >= len(table):
        raise Unsupported(f"an embedding of {len(table)} entries for levels up to {index.max()}")
    return index


@dataclass
class _Moved:
    """Whole numbers that were moved, with constants where they came from outside, such as a start token.

    Attributes:
        source: before they were moved.
        row, column: by which position of the source is read.
        inside: bool [R, C], where the numbers are those of the source.
        around: float32 [R, C, n], the constants elsewhere.
    """

    source: Value
    row: int
    column: int
    inside: np.ndarray
    around: np.ndarray


def _moved(op: Operation, x: Value) -> _Moved | None:
    """How the entries of x were moved; None where they were not."""
    graph, codes = x.graph, x.codes.reshape(-1)
    found = [_origin(graph, int(code), x.domain) for code in codes]
    base, row, column, within, _ = found[0]
    if (row, column) == (0, 0) and within.all() and all(origin[0] == code for origin, code in zip(found, codes)):
        return None
    if any(origin[1:3] != (row, column) or (origin[3] != within).any() for origin in found):
        raise Unsupported("whole numbers that were moved in different ways")
    around = np.stack([origin[4] for origin in found], -1)
    if around[within].any():
        raise Unsupported("a sum of whole numbers and constants")
    domain = graph.view(base >> Graph.SHIFT).step.domain
    sizes = {LINE: domain[3]} if LINE in x.size else {ROW: domain[1], COLUMN: domain[3]}
    inner = np.array([origin[0] for origin in found], np.int64).reshape(x.codes.shape)
    return _Moved(x.like(inner, size=x.size | sizes), row, column, within, around)


def _origin(graph: Graph, code: int, domain: Rectangle) -> tuple[int, int, int, np.ndarray, np.ndarray]:
    """(code before it was moved, row, column, where it is read [R, C], constants elsewhere [R, C]) over a domain."""
    (index,), (feature,) = graph.split(np.array([code]))
    view = graph.view(int(index))
    step, shape = view.step, (view.step.domain[1] - view.step.domain[0], view.step.domain[3] - view.step.domain[2])
    inner, row, column = _code(graph, View(step, 0, 0, step.domain), int(feature)), 0, 0
    within, around = np.ones(shape, bool), np.zeros(shape, np.float32)
    fields = [o for o in step.operands if o.view.step.kind == "field" and o.view.step.source is None]
    if step.kind == "add" and len(fields) == 1 and len(fields[0].view.step.bias) == 1:
        (other,) = (o for o in step.operands if o is not fields[0])
        inner = _code(graph, other.view, int(other.features[feature]))
        inner, row, column, within, around = _origin(graph, inner, step.domain)
        around = around + fields[0].view.step.bias[0, :, :, fields[0].features[feature]]
    r0, r1, c0, c1 = domain
    seen = cut(view.window, step.domain) or (0, 0, 0, 0)
    kept = cut((r0 + view.row, r1 + view.row, c0 + view.column, c1 + view.column), seen) or (0, 0, 0, 0)
    here, there = _slices(kept, r0 + view.row, c0 + view.column), _slices(kept, step.domain[0], step.domain[2])
    whole, outside = np.zeros((r1 - r0, c1 - c0), bool), np.zeros((r1 - r0, c1 - c0), np.float32)
    whole[here], outside[here] = within[there], around[there]
    return inner, row + view.row, column + view.column, whole, outside


def _slices(rectangle: Rectangle, row: int, column: int) -> tuple[slice, slice]:
    """A rectangle in an array whose first entry is at (row, column)."""
    r0, r1, c0, c1 = rectangle
    return slice(r0 - row, r1 - row), slice(c0 - column, c1 - column)


def _again(op: Operation, x: Value, moved: _Moved, codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Codes [n * size] of an embedding of the source, moved as the whole numbers were, with that of the constants."""
    rows, columns = (np.flatnonzero(moved.inside.any(axis)) for axis in (1, 0))
    window = (0, 0, 0, 0)
    if len(rows):
        r, c = moved.row + x.domain[0], moved.column + x.domain[2]
        window = int(rows[0] + r), int(rows[-1] + r + 1), int(columns[0] + c), int(columns[-1] + c + 1)
    codes = x.graph.moved(codes, lambda v: View(v.step, moved.row, moved.column, cut(window, v.window) or (0, 0, 0, 0)))
    outside = table[_rows(table, moved.around)] * ~moved.inside[:, :, None, None]
    values = outside.reshape(1, *moved.inside.shape, -1).astype(np.float32)
    return x.graph.elementwise("add", [codes, field_codes(op, x, values)], x.stride, x.domain, op.where)


@handles("aten::one_hot")
def one_hot(op: Operation, x: Value, classes: int = -1) -> Value:
    if not 0 < classes <= MOST_ONE_HOT:
        raise Unsupported(f"one_hot without a number of classes, or of more than {MOST_ONE_HOT}")
    return embedding(op, torch.eye(classes, dtype=torch.float32, device="cpu"), x)


# Ranges in which images enter a model, and which are left after what a model does with them first.
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5))
_SAME = ("clone", "contiguous", "detach", "alias", "view", "reshape", "flatten", "unsqueeze", "squeeze", "permute")
_CHECKS = (torch.ops.aten._assert_tensor_metadata.default, torch.ops.aten._has_compatible_shallow_copy_type.default)
_NUMBERS = ("add", "sub", "mul", "div", "rsub", "true_divide")


def inferred(call: str, trace: Trace | None, conventions: Conventions) -> Conventions:
    """The conventions with the range of the inputs, inferred from what forward does with them first if it is not given.

    Raises: ValueError where it does not show: a model that takes its inputs as they are takes any range.
    """
    if conventions.input_range is not None or conventions.inputs not in OF_FLOATS:
        return conventions
    found = None if trace is None else shown(trace, conventions)
    if found is None:
        raise ValueError(
            f"{call}: input_range must be given, the inputs of the lowest and the highest level, such as (0, 1) or "
            "(-1, 1): forward does not show it; got None"
        )
    return replace(conventions, input_range=found)


def shown(trace: Trace, conventions: Conventions) -> tuple[float, float] | None:
    """The range of the inputs that forward shows by what it does with them first; None where it shows none."""
    steps = _first_steps(trace)
    found = [] if steps is None else _fitting(*steps, float(conventions.spec.levels - 1))
    return found[0] if len(found) == 1 else None


def _fitting(scale: np.ndarray, shift: np.ndarray, top: float) -> list[tuple[float, float]]:
    """The ranges that `scale * x + shift` brings to a usual one."""
    if not scale.all():
        return []
    # A factor alone shows a range only between levels and 0..1: `2 * x` may have any reason.
    ranges = list(dict.fromkeys((*(_RANGES if shift.any() else _RANGES[:1]), (0.0, top))))
    found = []
    for low, high in ranges:
        ends = scale * low + shift, scale * high + shift
        close = [all(bool(np.allclose(end, at, atol=5e-3 * max(1, at))) for end, at in zip(ends, to)) for to in ranges]
        if any(close):
            found.append((low, high))
    zero = -shift / scale
    if not found and ((scale >= 1) & (scale < 20) & (zero > 0) & (zero < 1)).all():
        return [(0.0, 1.0)]  # a mean is taken off, and a deviation divided by, as of numbers in 0..1
    return found


def _first_steps(trace: Trace) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, shift) of what forward does with its input before anything else; None if it does nothing."""
    nodes, given = list(trace.module.graph.nodes), iter(trace.given)
    constants = {node: next(given) for node in nodes if node.op == "placeholder"}
    node = next(n for n, value in constants.items() if isinstance(value, Argument) and value.kind == "image")
    scale, shift, changed = np.ones(1), np.zeros(1), False
    while len(users := [user for user in node.users if not _asks_shape(user, node)]) == 1:
        user = users[0]
        name = operation(user).strip("_")
        if name in _NUMBERS:
            step = _number(user, node, constants, trace)
            if step is None or 1 < max(len(scale), len(shift)) != max(map(len, step)) > 1:
                break
            scale, shift, changed = scale * step[0], shift * step[0] + step[1], True
        elif name not in (*_SAME, "to", "to_copy"):
            break
        node = user
    return (scale, shift) if changed else None


def _asks_shape(user: fx.Node, node: fx.Node) -> bool:
    """Whether an operation takes no more than the shape or the dtype of a node."""
    name = operation(user).strip("_")
    if name.startswith("new_") or name.endswith("_like") or user.target in _CHECKS:
        return True
    return name in ("view_as", "reshape_as", "expand_as", "type_as") and user.args[0] is not node


def _number(
    user: fx.Node, node: fx.Node, constants: dict[fx.Node, Any], trace: Trace
) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, shift) of one operation with a constant; None for another."""
    name = operation(user).strip("_")
    other = next((a for a in user.args[:2] if a is not node), None)
    if isinstance(other, fx.Node):
        other = operator.attrgetter(str(other.target))(trace.module) if other.op == "get_attr" else constants.get(other)
    if not isinstance(other, (int, float, Tensor)) or user.kwargs.get("alpha", 1) != 1:
        return None
    if user.kwargs.get("rounding_mode") is not None:
        return None
    value = np.asarray(other if not isinstance(other, Tensor) else other.detach().cpu(), np.float64).reshape(-1)
    one, zero = np.ones(1), np.zeros(1)
    first = user.args[0] is node
    if name == "add":
        return one, value
    if name in ("sub", "rsub"):
        return (one, -value) if first == (name == "sub") else (-one, value)
    if name == "mul":
        return value, zero
    return (1 / value, zero) if first else None
