"""The entrance of a model: levels as integers, embeddings of them, and all that is a function of one value alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast.engine.compiler.handlers import handles
from genfast.engine.compiler.plan import Graph, View, inside, reached
from genfast.engine.compiler.values import FEATURE, Operation, Unsupported, Value, array

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
