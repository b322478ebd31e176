"""The graph of a traced model, read operation by operation."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from genfast.engine.compiler.attention import OF_PAIRS
from genfast.engine.compiler.entrance import looked_up
from genfast.engine.compiler.handlers import depends
from genfast.engine.compiler.known import Known
from genfast.engine.compiler.memory import written
from genfast.engine.compiler.nodes import base, operation, writes
from genfast.engine.compiler.plan import Graph, NotIncremental, Step
from genfast.engine.compiler.scans import HANDLERS
from genfast.engine.compiler.trace import Argument, Trace
from genfast.engine.compiler.values import (
    BATCH,
    COLUMN,
    FEATURE,
    LINE,
    ROW,
    Pairs,
    Unsupported,
    Value,
    Varies,
    reshaped,
)
from genfast.engine.conventions import ARE_FLAT, OF_FLOATS
from genfast.engine.protocols import ImageSpec

# How positions are taken: the pixels of the image; all pixels in a row, one after the other, for models of sequences;
# or a single position, whose channels are all values of the image, for models that mix them, such as MADE.
GEOMETRIES = ("grid", "line", "point")
# Operations that need whole numbers: the image then enters as levels.
_OF_INTEGERS = (
    *("embedding", "one_hot", "round", "floor", "ceil", "trunc", "long", "int", "bucketize"),
    *("floor_divide", "remainder", "fmod"),
)


@dataclass(frozen=True)
class Failed:
    """What could not be read; an error only if the model's output depends on it."""

    error: NotIncremental


class Reader:
    """Interprets an fx graph: what depends on the image becomes steps of a `Graph`, everything else is computed.

    It is also the `Operation` that handlers are given: `name` and `where` are those of the present one.

    Args:
        trace: of the model.
        spec: of its images.
        geometry: of `GEOMETRIES`.
        inputs: as of `Conventions`.
        scale, shift: a level v enters the model as v * scale + shift.
        order: the values in the order in which they are drawn, for "point"; None: raster order.

    Attributes:
        by_levels: whether the image of the graph holds levels, not inputs.
        progress: how many nodes were read.
        failed: the number of the first node that could not be read.
    """

    def __init__(
        self,
        trace: Trace,
        spec: ImageSpec,
        geometry: str,
        inputs: str = "images",
        scale: float = 1.0,
        shift: float = 0.0,
        order: np.ndarray | None = None,
    ) -> None:
        self.trace, self.spec, self.has_order = trace, spec, order is not None
        channels, height, width = spec.shape
        self.by_levels = inputs not in OF_FLOATS or _needs_levels(trace.module)
        rows, columns = {"grid": (height, width), "line": (1, height * width), "point": (1, 1)}[geometry]
        self.graph = Graph((0, rows, 0, columns))
        features = spec.values if geometry == "point" else channels
        codes = self.graph.add(Step("image", features, 1, self.graph.domain, "the image"))
        size = {BATCH: trace.batch, ROW: height, COLUMN: width}
        if geometry == "line":
            size[LINE] = height * width
        if geometry == "point":
            size = {BATCH: trace.batch, ROW: 1, COLUMN: 1}
            place = np.empty(spec.values, np.int64)
            place[np.arange(spec.values) if order is None else order] = np.arange(spec.values)
            codes = codes[place].reshape(1, height, width, channels).transpose(0, 3, 1, 2)
            image = Value(self.graph, codes, (BATCH, FEATURE, FEATURE, FEATURE), size, 1)
        else:
            image = Value(self.graph, codes.reshape(1, -1, 1, 1), (BATCH, FEATURE, ROW, COLUMN), size, 1)
        self.where = self.name = "the image"
        self.progress = self.failed = 0
        levels = np.arange(spec.levels, dtype=np.float32)
        entered = levels * np.float32(scale) + np.float32(shift)
        if self.by_levels and inputs in OF_FLOATS:
            image = looked_up(self, image, entered)
        self.image_values = levels if self.by_levels else entered
        if inputs == "codes":
            image = image.like(image.codes[:, 0], (image.dims[0], *image.dims[2:]))
        if inputs in ARE_FLAT:
            try:
                image = reshaped(image, (trace.batch, -1))
            except Unsupported as problem:
                raise NotIncremental(f"sample: flat inputs of several channels are no {geometry}: {problem}") from None
        self.image = image
        self.known = Known(trace.batch)
        self._nodes: dict[int, fx.Node] = {}  # by the id of a tensor that depends on labels or conditions
        self._kept: list[torch.Tensor] = []

    def entries(self, tensor: Any) -> list[Any] | None:
        """What a constant is for the labels, in groups along the batch; None if it depends on no label.

        Raises: `Varies` if it is another for each image.
        """
        node = self._nodes.get(id(tensor))
        if node is None:
            return None
        if self.known.per_image:
            raise Varies("a constant that is another for each image")
        return self.known.for_labels(node, self.spec.classes)

    def node(self, tensor: Any) -> fx.Node | None:
        """The node of a constant that depends on labels or conditions; None for others."""
        return self._nodes.get(id(tensor))

    def run(self) -> tuple[Graph, Any]:
        """The graph, and what the model returns: a `Value`, or a tuple, list or dict of them."""
        values, given = {}, iter(self.trace.given)
        for number, node in enumerate(self.trace.module.graph.nodes):
            self.progress = number
            if node.op == "placeholder":
                values[node] = self._placeholder(node, next(given))
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(node.target)(self.trace.module)
                self.known.constant(node, values[node])
            elif node.target is torch._C._set_grad_enabled:
                continue  # nothing here has a gradient
            elif node.op == "output":
                output = fx.node.map_arg(node.args[0], values.get)
                spec = self.trace.structure
                return self.graph, output if spec is None else pytree.tree_unflatten(list(output), spec)
            else:
                try:
                    values[node] = self._call(node, values)
                except NotIncremental as error:
                    if writes(node):
                        raise
                    values[node] = Failed(error)
                    self.failed = self.failed or self.progress
        raise AssertionError("a graph without an output")

    def _placeholder(self, node: fx.Node, value: Any) -> Any:
        if not isinstance(value, Argument):
            self.known.constant(node, value)
            return value
        if value.kind == "image":
            return self.image
        self.known.argument(node, value)
        self._note(node, value.value)
        return value.value

    def _constant(self, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
        self.known.constant(node, value)
        return value

    def _note(self, node: fx.Node, value: Any) -> None:
        """Note the tensors of a node that depends on labels or conditions."""
        if isinstance(value, torch.Tensor):
            self._nodes[id(value)] = node
            # An id is unique only as long as its tensor lives.
            self._kept.append(value)

    def _call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args: Any = fx.node.map_arg(node.args, values.get)
        kwargs: Any = fx.node.map_arg(node.kwargs, values.get)
        target: Any = node.target
        everything = [*args, *kwargs.values()]
        if str(target) == "aten.where.self" and (picked := self._picked(*args)) is not None:
            return picked
        if failed := next((entry for entry in _flat(everything) if isinstance(entry, Failed)), None):
            if writes(node):
                self._overwrite(node, values, failed)
            return failed
        if target is operator.getitem and depends(args[0]):
            # An operation may also return what it saves for its gradient, which no handler computes.
            return args[0][args[1]] if args[1] < len(args[0]) else None
        if not any(map(depends, everything)):
            dependent = self.known.add(node)
            result = target(*args, **kwargs)
            if not dependent:
                self.known.constant(node, result)
                return result
            # A view of its own: an operation may return its argument, which is another node.
            result = result.view_as(result) if isinstance(result, torch.Tensor) else result
            for other in dependent:
                self._note(other, result if other is node else values[other])
            return result
        schema = getattr(target, "_schema", None)
        self.name = schema.name.partition("::")[2] if schema else str(target)
        self.where = _where(node, schema)
        result = self._handle(node, schema, args, kwargs, values)
        if isinstance(result, torch.Tensor):  # such as a comparison that holds for all levels
            self.known.constant(node, result)
        return result

    def _picked(self, condition: Any, a: Any, b: Any) -> Any:
        """The one of two values that a condition picks everywhere: the other may be one that cannot be read."""
        if not isinstance(condition, torch.Tensor) or self.node(condition) is not None or not depends([a, b]):
            return None
        picked = a if condition.all() else b if not condition.any() else None
        return picked if isinstance(picked, Value) and picked.shape == tuple(condition.shape) else None

    def _handle(
        self, node: fx.Node, schema: Any, args: Sequence[Any], kwargs: dict[str, Any], values: dict[fx.Node, Any]
    ) -> Any:
        name = schema.name if schema else ""
        namespace, _, kind = name.partition("::")
        if kind in ("_assert_tensor_metadata", "_has_compatible_shallow_copy_type"):
            return None
        x = next(entry for entry in _flat([*args, *kwargs.values()]) if isinstance(entry, (Value, Pairs)))
        if kind in ("new_zeros", "new_ones", "new_full", "new_empty"):
            return self._constant(node, getattr(torch.empty(0, dtype=torch.float32, device="cpu"), kind)(*args[1:]))
        if kind in ("zeros_like", "ones_like", "full_like", "empty_like"):
            like = torch.empty(x.shape, dtype=torch.float32, device="cpu")
            return self._constant(node, getattr(torch, kind)(like, *args[1:]))
        in_place = kind.endswith("_") and not kind.startswith("_")
        of_pairs = any(isinstance(entry, Pairs) for entry in _flat([*args, *kwargs.values()]))
        handler = (OF_PAIRS if of_pairs else HANDLERS).get(name.removesuffix("_") if in_place else name)
        if handler is None and of_pairs:
            reason = "it is of scores of attention, and no mask, scaling, softmax or product with values"
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel: {reason}")
        if handler is None:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel")
        self.name = kind.removesuffix("_") if in_place else kind
        try:
            result = handler(self, *_bound(schema, args, kwargs))
        except Unsupported as problem:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel: {problem}") from None
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, NotIncremental):
                raise
            # The model works: what a handler stumbles over must not keep anyone from sampling, but it is said.
            fault = f"{type(error).__name__}: {error}"
            raise NotIncremental(
                f"sample: {self.where} cannot be read, which is a fault of genfast ({fault})"
            ) from error
        if in_place:
            self._overwrite(node, values, result)
        return result

    def _overwrite(self, node: fx.Node, values: dict[fx.Node, Any], result: Any) -> None:
        """After an in-place operation, later users of the tensor, of what it is a view of, and of all views of that
        read the result. What cannot be read so fails if there is such a user."""
        where = self.where
        target: Any = node.args[0]
        here: fx.Node = target
        values[here] = result
        changed = {here}
        while (parent := base(here, values)) is not None:
            compute = partial(written, self, here, values[parent], values[here])
            values[parent] = self._after(where, compute, values[here])
            changed.add(parent)
            here = parent
        for view in list(values):
            of = None if view in changed else base(view, values)
            if of is not None and of in changed:
                values[view] = self._after(where, partial(self._viewed, view, values), values[of])
                changed.add(view)

    def _after(self, where: str, compute: Callable[[], Any], source: Any) -> Any:
        """What `compute` returns; `Failed` where it cannot, or where the source of it failed."""
        if isinstance(source, Failed):
            return source
        try:
            return compute()
        except Unsupported as problem:
            return Failed(NotIncremental(f"sample: {where} cannot be run pixel by pixel: {problem}"))
        except NotIncremental as error:
            return Failed(error)

    def _viewed(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """A view of what has changed since."""
        name = operation(node)
        if name in ("contiguous", "reshape", "flatten", "reshape_as"):
            raise Unsupported(f"it changes what {name} returned, which may share memory with something else, in place")
        if writes(node):
            return values[node.args[0]]  # type: ignore[index]
        args: Any = fx.node.map_arg(node.args, values.get)
        kwargs: Any = fx.node.map_arg(node.kwargs, values.get)
        if node.target is operator.getitem:
            return args[0][args[1]]
        return self._handle(node, getattr(node.target, "_schema", None), args, kwargs, values)


def _needs_levels(module: fx.GraphModule) -> bool:
    """Whether a forward turns numbers into integers somewhere; that of anything but the image does no harm."""
    for node in module.graph.nodes:
        name = operation(node).strip("_")
        kinds = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, torch.dtype)]
        converts = name in ("to", "to_copy") and any(not kind.is_floating_point for kind in kinds)
        if name in _OF_INTEGERS or converts or node.kwargs.get("rounding_mode"):
            return True
    return False


def _bound(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments of an operation in the order of its schema."""
    bound = list(args)
    for argument in schema.arguments[len(args) :]:
        if argument.name in kwargs:
            bound.append(kwargs[argument.name])
        elif argument.has_default_value():
            bound.append(argument.default_value)
    return bound


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _where(node: fx.Node, schema: Any) -> str:
    """Where a node is in the model, such as `aten.relu at features.3 (model.py:31: x = self.pool(x))`."""
    text = schema.name.replace("::", ".") if schema else str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = next((path for path, _ in reversed(stack.values()) if path), "")
    path = path.replace("model.", "", 1) if path.startswith("model.") else "" if path == "model" else path
    text += f" at {path}" if path else ""
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)', node.meta.get("stack_trace") or "")
    frames = [f for f in frames if "/torch/" not in f[0] and not f[0].endswith("genfast/engine/compiler/trace.py")]
    if frames:
        file, line, source = frames[-1]
        text += f" ({file.rpartition('/')[2]}:{line}: {source.strip()})"
    return text
