"""The graph of a traced model, read operation by operation."""

import operator
import re

import torch

from genfast.engine.compiler.handlers import depends
from genfast.engine.compiler.plan import Graph, NotIncremental, Step
from genfast.engine.compiler.scans import HANDLERS
from genfast.engine.compiler.values import BATCH, COLUMN, FEATURE, ROW, Refused, Value


class Reader:
    """Goes through an fx graph: what depends on the image becomes steps of a `Graph`, all else is computed."""

    def __init__(self, shape, arguments):
        channels, height, width = shape
        self.graph = Graph()
        self.graph.domain = (0, height, 0, width)
        codes = self.graph.add(Step("image", channels, 1, self.graph.domain, "the image"))
        size = {BATCH: len(arguments[0]), ROW: height, COLUMN: width}
        image = Value(self.graph, codes.reshape(1, -1, 1, 1), (BATCH, FEATURE, ROW, COLUMN), size, 1)
        self.user = image, *arguments[1:]
        self.labelled, self.kept = set(), []
        self._label(arguments[1:])
        self.where = self.name = ""

    def by_label(self, tensor):
        """Whether a constant holds an entry for each label."""
        return id(tensor) in self.labelled

    def run(self, traced, given):
        values, given = {}, iter(given)
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(node.target)(traced)
            elif node.op == "output":
                return self.graph, self._one(torch.fx.node.map_arg(node.args[0], values.get))
            else:
                values[node] = self._call(node, values)
        raise AssertionError("a graph without an output")

    def _label(self, value):
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, torch.Tensor):
                self.labelled.add(id(tensor))
                # An id is unique only as long as its tensor lives.
                self.kept.append(tensor)

    def _one(self, output):
        if isinstance(output, (list, tuple)) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Value):
            kind = "several values" if isinstance(output, (list, tuple)) else "what does not depend on the image"
            raise NotIncremental(f"sample: the model must return one tensor that depends on the image; got {kind}")
        return output

    def _call(self, node, values):
        args = torch.fx.node.map_arg(node.args, values.get)
        kwargs = torch.fx.node.map_arg(node.kwargs, values.get)
        if node.target is operator.getitem:
            # What an op saves for its gradient beside the result is not made here.
            return args[0][args[1]] if args[1] < len(args[0]) else None
        everything = [*args, *kwargs.values()]
        if not any(map(depends, everything)):
            result = node.target(*args, **kwargs)
            if any(self.by_label(entry) for entry in _flat(everything)):
                self._label(result)
            return result
        schema = getattr(node.target, "_schema", None)
        self.name = schema.name.partition("::")[2] if schema else str(node.target)
        self.where = _where(node, schema)
        return self._handle(node, schema, args, kwargs, values)

    def _handle(self, node, schema, args, kwargs, values):
        name = schema.name if schema else ""
        namespace, _, operation = name.partition("::")
        if operation in ("_assert_tensor_metadata", "_has_compatible_shallow_copy_type"):
            return None
        x = next(entry for entry in _flat([*args, *kwargs.values()]) if isinstance(entry, Value))
        if operation in ("new_zeros", "new_ones", "new_full", "new_empty"):
            return getattr(torch.empty(0), operation)(*args[1:])
        if operation in ("zeros_like", "ones_like", "full_like"):
            return getattr(torch, operation)(torch.empty(x.shape), *args[1:])
        in_place = operation.endswith("_") and not operation.startswith("_")
        handler = HANDLERS.get(name.removesuffix("_") if in_place else name)
        if handler is None:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel")
        self.name = operation.removesuffix("_") if in_place else operation
        try:
            result = handler(self, *_bound(schema, args, kwargs))
        except Refused as problem:
            raise NotIncremental(f"sample: {self.where} cannot be run pixel by pixel: {problem}") from None
        if in_place:
            self._overwrite(node, values, result)
        return result

    def _overwrite(self, node, values, result):
        """After an operation in place every later user of the tensor sees the result."""
        target = node.args[0]
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


def _views(node, values):
    """Other nodes that may share memory with a node: its view chain upwards and downwards."""
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


def _is_view(node):
    schema = getattr(node.target, "_schema", None)
    if node.target is operator.getitem:
        return True
    return bool(schema and any(a.alias_info is not None and not a.alias_info.is_write for a in schema.arguments))


def _bound(schema, args, kwargs):
    """All arguments of an operation in the order of its schema."""
    bound = list(args)
    for argument in schema.arguments[len(args) :]:
        if argument.name in kwargs:
            bound.append(kwargs[argument.name])
        elif argument.has_default_value():
            bound.append(argument.default_value)
    return bound


def _flat(values):
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _where(node, schema):
    """`aten.relu at features.3 (model.py:31: x = self.pool(x))`, as far as it is known."""
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
