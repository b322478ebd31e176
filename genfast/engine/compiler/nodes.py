"""Nodes of a traced graph: their names, and whose memory they share."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import fx

# They return their argument, and so do operations in place.
ITSELF = ("detach", "alias", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


def operation(node: fx.Node) -> str:
    """The name of a node's operation, without its namespace."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else ""


def written_by(function: Any, args: Sequence[Any]) -> Iterator[Any]:
    """The arguments that a call of an operation changes."""
    for argument, value in zip(function._schema.arguments, args):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield value


def writes(node: fx.Node) -> bool:
    """Whether an operation changes one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema and any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments))


def base(node: fx.Node, values: Mapping[fx.Node, Any]) -> fx.Node | None:
    """The node whose memory a node shares, or may share: it is a view of it."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    parent = node.args[0]
    if node.target is operator.getitem or writes(node) or operation(node) in ITSELF:
        return parent
    if operation(node) == "to":
        return parent if values.get(node) is values.get(parent) else None
    schema = getattr(node.target, "_schema", None)
    views = bool(schema and any(a.alias_info is not None for a in schema.arguments))
    return parent if views else None
