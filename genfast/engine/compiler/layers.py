"""Lowers a forward of convolutions and dense layers to a `Network`: what it does to whole feature maps, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from genfast.engine.calling import PROBES
from genfast.engine.compiler.nodes import ITSELF, operation
from genfast.engine.compiler.recorder import Unrecordable, record
from genfast.engine.network import Map, Network, Step

TOLERANCE = 1e-3  # of the proof, relative to the largest output: a wrong lowering is off by as much as that is large
_ACTIVATIONS = ("relu", "elu", "tanh", "sigmoid")
_SAME = (*ITSELF, "clone", "contiguous", "_to_copy")


@dataclass
class Value:
    """A tensor of the forward: element i of an image is value `order[i]` of a map; the shape of order is its shape."""

    map: Map
    order: np.ndarray


@dataclass
class Labelled:
    """What the forward looks up by label: float32 [classes, ...]."""

    values: np.ndarray


def lower(network: Callable[..., Tensor], shape: tuple[int, ...], classes: int = 0) -> Network:
    """The `Network` of a module, or of a method of one, that takes float [B, *shape] and labels, int64 [B] or None.

    Images and feature maps, (C, H, W), are maps of H rows, W columns and C features; vectors, (F,), are maps of one
    row and column. Its output is compared with that of the module.

    Raises: ValueError for a module of other layers.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(PROBES, *shape, generator=generator, dtype=torch.float32, device="cpu")
    labels = torch.arange(PROBES, dtype=torch.int64, device="cpu") % classes if classes else None
    with torch.no_grad():
        try:
            module, _ = record(network, [x, labels])
        except Unrecordable as error:
            raise ValueError(f"network: forward must not depend on values; got {error}") from error
        expected = network(x, labels)
    lowered, wanted = _Lowering(module).run(shape, classes)
    got = lowered.run(_maps(x), labels).flatten(1)
    at = torch.from_numpy(wanted.ravel())
    difference = (got[:, at] - expected.flatten(1)).abs().max()
    if not difference <= TOLERANCE * expected.abs().max().clamp(min=1):
        raise ValueError(f"network: expected the output of its forward; got one that differs by {difference:g}")
    return lowered


def _maps(x: Tensor) -> Tensor:
    return x.movedim(1, -1) if x.dim() == 4 else x[:, None, None]


def _standard(shape: tuple[int, ...]) -> tuple[Map, np.ndarray]:
    """The map of a shape (C, H, W) or (F,), and where its elements are there."""
    if len(shape) == 1:
        return Map(1, 1, shape[0]), np.arange(shape[0])
    if len(shape) != 3:
        raise ValueError(f"network: a tensor must have shape [B, F] or [B, C, H, W]; got [B, {shape}]")
    channels, height, width = shape
    order = np.arange(height * width * channels).reshape(height, width, channels).transpose(2, 0, 1)
    return Map(height, width, channels), order


class _Lowering:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.steps: list[Step] = []
        self.values: dict[fx.Node, Any] = {}
        self.gathered: dict[tuple[Map, bytes], Value] = {}
        # Operations that only rearrange: of an array that begins with the batch (of labels, with the classes).
        self.rearranges: dict[str, Callable[..., np.ndarray]] = {
            "view": lambda a, sizes: a.reshape(len(a), *sizes[1:]),
            "reshape": lambda a, sizes: a.reshape(len(a), *sizes[1:]),
            "_unsafe_view": lambda a, sizes: a.reshape(len(a), *sizes[1:]),
            "unsqueeze": lambda a, dim: np.expand_dims(a, dim),
            "squeeze": lambda a, dim: a.squeeze(dim),
            "permute": lambda a, dims: a.transpose(dims),
            "transpose": lambda a, one, other: a.swapaxes(one, other),
            "slice": _sliced,
            "pixel_shuffle": _shuffled,
        }

    def run(self, shape: tuple[int, ...], classes: int) -> tuple[Network, np.ndarray]:
        """(network, where the elements of the output are)."""
        inputs = iter([Value(*_standard(shape)), "labels"])
        output: Any = None
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(inputs)
            elif node.op == "get_attr":
                self.values[node] = self.module.get_buffer(node.target)
            elif node.op == "output":
                output = self.values[node.args[0][0]]
            else:
                self.values[node] = self.lowered(node)
        if not isinstance(output, Value):
            raise ValueError("network: output must depend on the input; got a constant")
        first = next(value for value in self.values.values() if isinstance(value, Value))
        output = self.standard(output)
        return Network(self.steps, first.map, output.map, classes), output.order

    def lowered(self, node: fx.Node) -> Any:
        """The value of an operation."""
        name = operation(node).removesuffix("_")
        args: list[Any] = [self.values.get(arg, arg) if isinstance(arg, fx.Node) else arg for arg in node.args]
        known = all(not isinstance(arg, fx.Node) or arg in self.values for arg in node.args)
        if known and name in _SAME:
            return args[0]
        if known and name in self.rearranges and not node.kwargs:
            return self.rearranged(node, name, args)
        if name in _ACTIVATIONS and isinstance(args[0], Value) and set(args[1:]) <= {1}:
            return self.elementwise("activate", args[0], activation=name)
        if name == "add" and not node.kwargs and len(args) == 2:
            return self.added(node, *args)
        if name == "embedding" and args[1] is not None and isinstance(args[0], Tensor):
            return Labelled(_numbers(args[0]))
        if name == "convolution" and isinstance(args[1], Tensor):
            return self.convolution(*args)
        if name == "addmm" and not node.kwargs and isinstance(args[0], Tensor) and isinstance(args[2], Tensor):
            return self.dense(args[1], args[2], args[0])
        if name == "mm" and isinstance(args[1], Tensor):
            return self.dense(args[0], args[1], None)
        known_layers = "convolutions, dense layers, labels, sums, pixel shuffles, relu, elu, tanh and sigmoid"
        raise ValueError(f"network: layers must be {known_layers}; got {node.target}")

    def rearranged(self, node: fx.Node, name: str, args: list[Any]) -> Any:
        value = args[0]
        if isinstance(value, Labelled):
            return Labelled(self.rearranges[name](value.values, *args[1:]))
        if not isinstance(value, Value):
            raise ValueError(f"network: {name} must be of what the network computes; got {type(value).__name__}")
        if name == "pixel_shuffle" and len(node.all_input_nodes[0].users) == 1:
            value = self.shuffled_features(value, args[1])
        return Value(value.map, self.rearranges[name](value.order[None], *args[1:])[0])

    def shuffled_features(self, value: Value, factor: int) -> Value:
        """The same with the features of its convolution in another order: what a pixel shuffle moves lies together."""
        step = self.producer(value.map)
        _, order = _standard(value.order.shape)
        if step is None or step.bias.shape[1] != len(order) or not np.array_equal(order, value.order):
            return value
        features = np.arange(len(order)).reshape(-1, factor, factor).transpose(1, 2, 0).ravel()
        step.weight, step.bias = step.weight[..., features], step.bias[:, features]
        return Value(value.map, value.order[np.argsort(features)])

    def producer(self, of: Map) -> Step | None:
        """The convolution that computes a map, which nothing reads yet."""
        if any(one is of for step in self.steps for one in step.read):
            return None
        return next((step for step in self.steps if step.target is of and step.kind == "convolve"), None)

    def elementwise(self, kind: str, value: Value, added: Map | None = None, activation: str = "none") -> Value:
        value = self.standard(value) if value.order.ndim == 3 else value
        target = Map(value.map.rows, value.map.columns, value.map.features)
        self.steps.append(Step(kind, value.map, target, added, activation))
        return Value(target, value.order)

    def added(self, node: fx.Node, one: Any, other: Any) -> Value:
        if isinstance(other, Value) and not isinstance(one, Value):
            one, other = other, one
        if isinstance(other, Tensor) and isinstance(one, Value):
            other = Labelled(_numbers(other).reshape(*(1,) * (one.order.ndim + 1 - other.dim()), *other.shape))
        if not isinstance(one, Value) or not isinstance(other, (Value, Labelled)):
            raise ValueError(f"network: sums must be of feature maps, labels and constants; got {node.target}")
        if isinstance(other, Labelled):
            return self.biased(one, other.values)
        if one.order.shape != other.order.shape:
            raise ValueError(f"network: summands must have one shape; got {one.order.shape} and {other.order.shape}")
        one, other = self.standard(one), self.standard(other)
        return self.elementwise("add", one, added=other.map)

    def biased(self, value: Value, table: np.ndarray) -> Value:
        """A sum with something for each label, [classes, ...], or a constant, [1, ...]: the bias of the convolution."""
        step = self.producer(value.map)
        full = np.broadcast_to(table, (len(table), *value.order.shape)).reshape(len(table), -1)
        if step is not None and full.shape[1] == value.map.size:
            at_places = np.empty_like(full)
            at_places[:, value.order.ravel()] = full
            at_places = at_places.reshape(len(full), -1, value.map.features)
            if (at_places == at_places[:, :1]).all():
                step.bias = step.bias + at_places[:, 0]
                return value
        raise ValueError("network: what is added for a label must be the same at every place, after a convolution")

    def standard(self, value: Value) -> Value:
        """The same as a map of its own shape, in its usual order."""
        target, order = _standard(value.order.shape)
        same = (value.map.rows, value.map.columns, value.map.features) == (target.rows, target.columns, target.features)
        if same and np.array_equal(order, value.order):
            return value
        key = value.map, value.order.tobytes()
        if key not in self.gathered:
            gathered = np.empty(target.size, np.int64)
            gathered[order.ravel()] = value.order.ravel()
            self.steps.append(Step("gather", value.map, target, order=gathered))
            self.gathered[key] = Value(target, order)
        return self.gathered[key]

    def dense(self, value: Any, weight: Tensor, bias: Tensor | None) -> Value:
        """A convolution with a window as large as the map, whose values are in another order than the weight's rows."""
        if not isinstance(value, Value) or value.order.ndim != 1:
            raise ValueError("network: dense layers must be of vectors that the network computes")
        if len(value.order) != value.map.size:
            value = self.standard(value)
        matrix, of = _numbers(weight), value.map
        at_places = np.empty_like(matrix)
        at_places[value.order] = matrix
        target, order = _standard((matrix.shape[1],))
        window = at_places.reshape(of.rows, of.columns, of.features, -1)
        self.steps.append(Step("convolve", of, target, weight=window, bias=_bias(bias, matrix.shape[1])))
        return Value(target, order)

    def convolution(
        self,
        value: Any,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
    ) -> Value:
        if not isinstance(value, Value) or weight.dim() != 4 or groups != 1 or set(dilation) != {1}:
            expected = "of two dimensions, one group and no dilation"
            got = f"{weight.dim() - 2} dimensions, {groups} groups, dilation {dilation}"
            raise ValueError(f"network: convolutions must be {expected}; got {got}")
        value, numbers = self.standard(value), _numbers(weight)
        sizes = value.map.rows, value.map.columns
        if transposed:
            return self.transposed(value, numbers, bias, stride, padding, output_padding)
        window = numbers.transpose(2, 3, 1, 0)
        rows, columns = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(sizes, padding, window.shape, stride))
        target, order = _standard((len(numbers), rows, columns))
        step = Step("convolve", value.map, target, weight=window, bias=_bias(bias, len(numbers)))
        step.stride, step.offset = (stride[0], stride[1]), (padding[0], padding[1])
        self.steps.append(step)
        return Value(target, order)

    def transposed(
        self,
        value: Value,
        numbers: np.ndarray,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        output_padding: list[int],
    ) -> Value:
        """A transposed convolution as one whose features are the stride x stride places that an input place has in the
        output: place s q + r takes tap r + p - s d of input q + d."""
        features, (height, width) = numbers.shape[1], stride
        taps = [_taps(*one) for one in zip(numbers.shape[2:], stride, padding)]
        window = np.zeros((*(len(t) for _, t in taps), len(numbers), height, width, features), numbers.dtype)
        for y, row in enumerate(taps[0][1]):
            for x, column in enumerate(taps[1][1]):
                for a, tap in enumerate(row):
                    for b, other in enumerate(column):
                        if tap is not None and other is not None:
                            window[y, x, :, a, b] = numbers[:, :, tap, other]
        sizes = [
            (n - 1) * s - 2 * p + k + more
            for n, s, p, k, more in zip(
                (value.map.rows, value.map.columns), stride, padding, numbers.shape[2:], output_padding
            )
        ]
        rows, columns = (-(-n // s) for n, s in zip(sizes, stride))
        target = Map(rows, columns, height * width * features)
        repeated = np.tile(_bias(bias, features), height * width)
        step = Step("convolve", value.map, target, weight=window.reshape(*window.shape[:3], -1), bias=repeated)
        step.offset = -taps[0][0], -taps[1][0]
        self.steps.append(step)
        order = np.arange(target.size).reshape(rows, columns, height, width, features).transpose(4, 0, 2, 1, 3)
        return Value(target, order.reshape(features, rows * height, columns * width)[:, : sizes[0], : sizes[1]])


def _taps(size: int, stride: int, padding: int) -> tuple[int, list[list[int | None]]]:
    """(the first input d that a place takes, for each input the taps of the `stride` places, None for none)."""
    found = {}
    for tap in range(size):
        d, r = divmod(padding - tap, stride)
        found[d + (r > 0), (stride - r) % stride] = tap
    first, last = min(d for d, _ in found), max(d for d, _ in found)
    return first, [[found.get((d, r)) for r in range(stride)] for d in range(first, last + 1)]


def _sliced(a: np.ndarray, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> np.ndarray:
    places = [slice(None)] * a.ndim
    places[dim] = slice(start, end, step)
    return a[tuple(places)]


def _shuffled(a: np.ndarray, factor: int) -> np.ndarray:
    n, features, height, width = a.shape
    split = a.reshape(n, features // factor**2, factor, factor, height, width).transpose(0, 1, 4, 2, 5, 3)
    return split.reshape(n, features // factor**2, height * factor, width * factor)


def _numbers(of: Tensor) -> np.ndarray:
    return of.detach().cpu().to(torch.float32).numpy()


def _bias(bias: Tensor | None, features: int) -> np.ndarray:
    return np.zeros((1, features), np.float32) if bias is None else _numbers(bias)[None]
