"""Products that sum over features, with names for dimensions: einsum, and the matrix products that it stands for."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from genfast.engine.compiler.arithmetic import add, mul, scaled
from genfast.engine.compiler.handlers import depends, handles
from genfast.engine.compiler.pairs import plus, scores, times, weighted
from genfast.engine.compiler.statistics import total
from genfast.engine.compiler.sums import linear_step, matrix
from genfast.engine.compiler.values import FEATURE, Operation, Pairs, Unsupported, Value, array

LETTERS = string.ascii_letters
MOST_WEIGHTS = 1 << 28  # of the matrix that one product becomes: the same for each pixel, where these are features


def contracted(op: Operation, x: Value, names: str, weight: np.ndarray, labels: str, result: str) -> Value:
    """einsum(f"{names},{labels}->{result}") of a value and a constant."""
    for at, (label, size) in reversed(list(enumerate(zip(labels, weight.shape)))):
        dim = names.find(label)
        if dim < 0 or (x.dims[dim] == FEATURE and x.shape[dim] == size):
            continue
        # Along batch, rows and columns, and where it is broadcast, a constant must not change.
        if not (weight == weight.take([0], at)).all() or (x.dims[dim] == FEATURE and size > 1):
            raise Unsupported("a product with weights that change over batch, rows or columns")
        weight, labels = weight.take(0, at), labels[:at] + labels[at + 1 :]
    spatial = [label for label, dim in zip(names, x.dims) if dim != FEATURE]
    if set(spatial) - set(result):
        raise Unsupported("a sum over batch, rows or columns, which includes later pixels")
    inputs = [label for label in names if label not in spatial]
    outputs = [label for label in result if label not in spatial]
    sizes = dict(zip(names, x.codes.shape)) | dict(zip(labels, weight.shape))
    if math.prod(sizes[label] for label in (*inputs, *outputs)) > MOST_WEIGHTS:
        raise Unsupported("a product over the features of so many pixels")
    every = _table(weight, labels, inputs, outputs, sizes)
    codes = x.codes.reshape([sizes[label] for label in inputs]).reshape(-1)
    zeros = np.zeros(every.shape[1], np.float32)
    y = linear_step(x, [(codes, 0, 0, (0, 0), every)], zeros, x.domain, op.where)
    shape = [1 if label in spatial else sizes[label] for label in result]
    dims = tuple(x.dims[names.index(label)] if label in spatial else FEATURE for label in result)
    return x.like(y.reshape(shape), dims)


def _table(weight: np.ndarray, labels: str, inputs: list[str], outputs: list[str], sizes: dict[str, int]) -> np.ndarray:
    """The weights [inputs, outputs] of a product, where the dimensions `inputs` become `outputs`."""
    fresh = dict(zip(outputs, (c for c in LETTERS if c not in [*inputs, *labels])))
    operands, names = [weight], ["".join(label if label in inputs else fresh.get(label, label) for label in labels)]
    for label in outputs:
        if label in inputs:
            operands.append(np.eye(sizes[label], dtype=np.float32))
            names.append(label + fresh[label])
        elif label not in labels:
            raise Unsupported("an output that no operand has")
    for label in inputs:
        if not any(label in name for name in names):
            operands.append(np.ones(sizes[label], np.float32))
            names.append(label)
    whole = "".join(inputs) + "".join(fresh[label] for label in outputs)
    rows = int(np.prod([sizes[label] for label in inputs], dtype=np.int64))
    return np.einsum(f"{','.join(names)}->{whole}", *operands).astype(np.float32).reshape(rows, -1)


def multiplied(op: Operation, a: Any, first: str, b: Any, second: str, result: str) -> Any:
    """einsum(f"{first},{second}->{result}"), where one or both of a and b depend on the image."""
    for tensor, labels in ((a, first), (b, second)):
        if len(set(labels)) < len(labels) or len(labels) != len(tensor.shape):
            raise Unsupported("a diagonal, or dimensions that are not named")
        if op.node(tensor) is not None:
            raise Unsupported("a product with something that depends on a label or a condition")
    if isinstance(b, Pairs):
        return weighted(op, b, second, a, first, result)
    if isinstance(a, Pairs):
        return weighted(op, a, first, b, second, result)
    if depends(a) and depends(b):
        paired = scores(op, a, first, b, second, result)
        return paired or _summed(op, a, first, b, second, result)
    if depends(a):
        return contracted(op, a, first, array(b), second, result)
    return contracted(op, b, second, array(a), first, result)


def _summed(op: Operation, a: Value, first: str, b: Value, second: str, result: str) -> Value:
    """The product of two values in all their dimensions, summed over those that the result lacks."""
    gone = [label for label in dict.fromkeys(first + second) if label not in result]
    names = [*result, *gone]
    y = mul(op, *(_arranged(x, labels, names) for x, labels in ((a, first), (b, second))))
    return total(op, y, [names.index(label) for label in gone]) if gone else y


def _arranged(x: Value, labels: str, names: Sequence[str]) -> Value:
    """x with its dimensions in the order of `names`; those that it lacks are features of size 1."""
    order = [labels.index(name) for name in names if name in labels]
    missing = tuple(i for i, name in enumerate(names) if name not in labels)
    dims = tuple(x.dims[labels.index(name)] if name in labels else FEATURE for name in names)
    return x.like(np.expand_dims(x.codes.transpose(order), missing), dims)


@handles("aten::einsum")
def einsum(op: Operation, equation: str, operands: Sequence[Any], *rest: Any) -> Any:
    given, _, result = equation.replace(" ", "").partition("->")
    names = given.split(",")
    if len(names) != len(operands) or len(operands) > 2:
        raise Unsupported("an einsum of more than two operands")
    names, result = _spelled_out(names, [len(t.shape) for t in operands], result if "->" in equation else None)
    if len(operands) == 1:
        if isinstance(operands[0], Pairs):
            raise Unsupported("an einsum of scores of attention alone")
        (x,), gone = operands, [label for label in names[0] if label not in result]
        whole = _arranged(x, names[0], [*result, *gone])
        return total(op, whole, range(len(result), len(names[0]))) if gone else whole
    return multiplied(op, operands[0], names[0], operands[1], names[1], result)


def _spelled_out(names: list[str], ranks: list[int], result: str | None) -> tuple[list[str], str]:
    """Labels without dots; the result that an equation without an arrow has."""
    free = [c for c in LETTERS if c not in "".join(names)]
    more = max((rank - len(n.replace("...", "")) for n, rank in zip(names, ranks) if "..." in n), default=0)
    dots = "".join(free[:more])
    if result is None:
        once = [c for c in sorted("".join(names).replace(".", "")) if "".join(names).count(c) == 1]
        result = ("..." if dots else "") + "".join(once)
    full = []
    for name, rank in zip(names, ranks):
        count = rank - len(name.replace("...", ""))
        full.append(name.replace("...", dots[more - count :] if count > 0 else ""))
    return full, result.replace("...", dots)


@handles("aten::matmul", "aten::mm", "aten::bmm", "aten::mv")
def matmul(op: Operation, a: Any, b: Any) -> Any:
    ranks = len(a.shape), len(b.shape)
    if isinstance(a, Value) and not depends(b) and ranks[1] == 2 and op.node(b) is None and a.dims[-1] == FEATURE:
        return matrix(op, a, array(b), None)
    if min(ranks) < 1:
        raise Unsupported("a product of numbers")
    batch = LETTERS[: max(*ranks, 2) - 2]
    first = "y" if ranks[0] == 1 else batch[len(batch) - ranks[0] + 2 :] + "xy"
    second = "y" if ranks[1] == 1 else batch[len(batch) - ranks[1] + 2 :] + "yz"
    result = batch + "x" * (ranks[0] > 1) + "z" * (ranks[1] > 1)
    return multiplied(op, a, first, b, second, result)


@handles("aten::outer", "aten::ger")
def outer(op: Operation, a: Any, b: Any) -> Value:
    return multiplied(op, a, "x", b, "y", "xy")


@handles("aten::tensordot")
def tensordot(op: Operation, a: Any, b: Any, dims: Sequence[int], others: Sequence[int], *rest: Any) -> Value:
    first = list(LETTERS[: len(a.shape)])
    second = list(LETTERS[len(first) : len(first) + len(b.shape)])
    for d, e in zip(dims, others):
        second[e] = first[d]
    kept = [label for label in [*first, *second] if (label in first) != (label in second)]
    return multiplied(op, a, "".join(first), b, "".join(second), "".join(kept))


@handles("aten::baddbmm")
def baddbmm(op: Operation, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Any:
    if not depends([a, b]):
        raise Unsupported("a product of constants")
    product = matmul(op, a, b)
    if isinstance(product, Pairs):
        return plus(op, times(op, product, alpha), bias * beta)
    return add(op, scaled(op, product, alpha), scaled(op, bias, beta) if depends(bias) else array(bias) * beta)
