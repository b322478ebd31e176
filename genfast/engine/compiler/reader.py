"""The graph of a traced model, read operation by operation."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from genfast.engine.compiler.handlers import depends
from genfast.engine.compiler.plan import Graph, NotIncremental, Step
from genfast.engine.compiler.scans import HANDLERS
from genfast.engine.compiler.values import BATCH, COLUMN, FEATURE, ROW, Unsupported, Value


class Reader:
    """Interprets an fx graph: what depends on the image becomes steps of a `Graph`, everything else is computed.

    It is also the `Operation` that handlers are given: `name` and `where` are those of the present one.
    """

    def __init__(self, shape: tuple[int, int, int], arguments: Sequence[Any]) -> None:
        channels, height, width = shape
        self.graph = Graph((0, height, 0, width))
        codes = self.graph.add(Step("image", channels, 1, self.graph.domain, "the image"))
        size = {BATCH: len(arguments[0]), ROW: height, COLUMN: width}
        image = Value(self.graph, codes.reshape(1, -1, 1, 1), (BATCH, FEATURE, ROW, COLUMN), size, 1)
        self.user = image, *arguments[1:]
        self.labelled: set[int] = set()
        self.kept: list[torch.Tensor] = []
        self._label(arguments[1:])
        self.where = self.name = ""

    def by_label(self, tensor: Any) -> bool:
        """Whether a constant holds an entry for each label."""
        return id(tensor) in self.labelled

    def run(self, traced: fx.GraphModule, given: Iterable[Any]) -> tuple[Graph, Value]:
        """The graph of a traced module, and the value that it returns; `given`: the values of its placeholders."""
        values, given = {}, iter(given)
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(node.target)(traced)
            elif node.op == "output":
                return self.graph, self._one(fx.node.map_arg(node.args[0], values.get))
            else:
                values[node] = self._call(node, values)
        raise AssertionError("a graph without an output")

    def _label(self, value: Any) -> None:
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, torch.Tensor):
                self.labelled.add(id(tensor))
                # An id is unique only as long as its tensor lives.
                self.kept.append(tensor)

    def _one(self, output: Any) -> Value:
        if isinstance(output, (list, tuple)) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Value):
            kind = "several values" if isinstance(output, (list, tuple)) else "what does not depend on the image"
            raise NotIncremental(f"sample: the model must return one tensor that depends on the image; got {kind}")
        return output

    def _call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args: Any = fx.node.map_arg(node.args, values.get)
        kwargs: Any = fx.node.map_arg(node.kwargs, values.get)
        target: Any = node.target
        if target is operator.getitem:
            # An operation may also return what it saves for its gradient, which no handler computes.
            return args[0][args[1]] if args[1] < len(args[0]) else None
        everything = [*args, *kwargs.values()]
        if not any(map(depends, everything)):
            result = target(*args, **kwargs)
            if any(self.by_label(entry) for entry in _flat(everything)):
                self._label(result)
            return result
        schema = getattr(target, "_schema", None)
        self.name = schema.name.partition("::")[2] if schema else str(target)
        self.where = _where(node, schema)
        return self._handle(node, schema, args, kwargs, values)

    def _handle(
        self, node: fx.Node, schema: Any, args: Sequence[Any], kwargs: dict[str, Any], values: dict[fx.Node, Any]
    ) -> Any:
        name = schema.name if schema else ""
        namespace, _, operation = name.partition("::")
        if operation in ("_assert_tensor_metadata", "_has_compatible_shallow_copy_type"):
            return None
        x = next(entry for entry in _flat([*args, *kwargs.values()]) if isinstance(entry, Value))
        if operation in ("new_zeros", "new_ones", "new_full", "new_empty"):
            return getattr(torch.empty(0, dtype=torch.float32, device="cpu"), operation)(*args[1:])
        if operation in ("zeros_like", "ones_like", "full_like"):
            return getattr(torch, operation)(torch.empty(x.shape, dtype=torch.float32, device="cpu"), *args[1:])
        in_place = operation.endswith("_") and not operation.startswith("_")
        handler = HANDLERS.get(name.removesuffix("_") if in_place else name)
        if handler is None:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel")
        self.name = operation.removesuffix("_") if in_place else operation
        try:
            result = handler(self, *_bound(schema, args, kwargs))
        except Unsupported as problem:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel: {problem}") from None
        if in_place:
            self._overwrite(node, values, result)
        return result

    def _overwrite(self, node: fx.Node, values: dict[fx.Node, Any], result: Any) -> None:
        """After an in-place operation, later users of the tensor read the result."""
        target: Any = node.args[0]
        later = set()
        following = node
        while following.op != "output":
            following = following.next
            later.add(following)
        alike = [n for n, v in values.items() if n is not target and v is values[target]]
        views = [n for n in (*alike, *_views(target, values)) if later & set(n.users)]
        if views:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel: it changes {views[0]} in place")
        values[target] = result


def _views(node: fx.Node, values: dict[fx.Node, Any]) -> set[fx.Node]:
    """Other nodes that may share memory with a node: the views of it, and what it is a view of."""
    related, queue = set(), [node]
    while queue:
        here = queue.pop()
        parents = [n for n in here.all_input_nodes if isinstance(values.get(n), Value)] if _is_view(here) else []
        children = [n for n in here.users if n in values and _is_view(n)]
        for other in (*parents, *children):
            if other not in related and other is not node:
                related.add(other)
                queue.append(other)
    return related


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if node.target is operator.getitem:
        return True
    return bool(schema and any(a.alias_info is not None and not a.alias_info.is_write for a in schema.arguments))


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
    frames = [f for f in frames if "/torch/" not in f[0] and not f[0].endswith("genfast/engine/compiler/compile.py")]
    if frames:
        file, line, source = frames[-1]
        text += f" ({file.rpartition('/')[2]}:{line}: {source.strip()})"
    return text
