"""The entrance of a model: levels as integers, embeddings of them, and all that is a function of one value alone."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from genfast.engine.compiler.handlers import handles
from genfast.engine.compiler.plan import Graph, View, inside, reached
from genfast.engine.compiler.trace import Argument, Trace
from genfast.engine.compiler.values import FEATURE, Operation, Unsupported, Value, array
from genfast.engine.conventions import Conventions

MOST_ONE_HOT = 4096


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
    levels = np.arange(op.spec.levels, dtype=np.float32)
    pairs = [_of_level(x, code, levels) for code in x.codes.reshape(-1)]
    return np.array([code for code, _ in pairs], np.int64), np.stack([values for _, values in pairs])


def _of_level(x: Value, code: int, levels: np.ndarray) -> tuple[int, np.ndarray]:
    graph = x.graph
    (index,), (feature,) = graph.split(np.array([code]))
    view = graph.view(int(index))
    step = view.step
    if step.kind == "image":
        return int(code), levels
    if len(step.operands) != 1 or step.taps:
        raise Unsupported("whole numbers of what is more than a function of one value of the image")
    reach = reached(step, step.operands[0].view, None, x.domain)
    if (view.row, view.column) != (0, 0) or not inside(x.domain, view.window) or not reach:
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
    if step.kind == "copy":
        return inner, values
    raise Unsupported(f"whole numbers of what {step.kind} gives")


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


@handles("aten::embedding")
def embedding(op: Operation, weight: Any, x: Value, *rest: Any) -> Value:
    if not isinstance(weight, Tensor):
        raise Unsupported("an embedding whose weight depends on the image")
    codes, values = of_level(op, x)
    table = array(weight)
    index = np.rint(values).astype(np.int64)
    if index.min() < 0 or index.max() >= len(table):
        raise Unsupported(f"an embedding of {len(table)} entries for levels up to {index.max()}")
    size = table.shape[1]
    weights = table[index].transpose(0, 2, 1).reshape(-1, index.shape[1])  # [entries * size, levels]
    y = x.graph.elementwise("lookup", [np.repeat(codes, size)], x.stride, x.domain, op.where, weights)
    return x.like(y.reshape(*x.codes.shape, size), (*x.dims, FEATURE))


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
    if conventions.input_range is not None or conventions.inputs in ("levels", "codes"):
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
    while len(users := [user for user in node.users if user.target not in _CHECKS]) == 1:
        user = users[0]
        schema = getattr(user.target, "_schema", None)
        name = schema.name.partition("::")[2].strip("_") if schema else ""
        if name in _NUMBERS:
            step = _number(user, node, constants, trace)
            if step is None or 1 < max(len(scale), len(shift)) != max(map(len, step)) > 1:
                break
            scale, shift, changed = scale * step[0], shift * step[0] + step[1], True
        elif name not in (*_SAME, "to", "to_copy"):
            break
        node = user
    return (scale, shift) if changed else None


def _number(
    user: fx.Node, node: fx.Node, constants: dict[fx.Node, Any], trace: Trace
) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, shift) of one operation with a constant; None for another."""
    name = user.target._schema.name.partition("::")[2].strip("_")  # type: ignore[union-attr]
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
