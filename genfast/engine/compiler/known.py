"""What is known before anything is drawn: the part of a traced graph that depends on labels and conditions alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from genfast._native import backends
from genfast.engine.compiler.nodes import base, writes
from genfast.engine.compiler.trace import Argument


@dataclass(frozen=True)
class Source:
    """Where values come from: the result of a node, arranged as [K, R, C, features] with K entries of the batch."""

    node: fx.Node
    arranged: Callable[[Tensor], np.ndarray]


@dataclass
class Known:
    """The nodes that depend on labels or conditions, in their order, to be computed again for others.

    Attributes:
        batch: of the trace; every computation is of as many images.
        per_image: whether there is a condition; else all depends on the label alone.
    """

    batch: int
    per_image: bool = False
    _nodes: list[fx.Node] = field(default_factory=list)
    _values: dict[fx.Node, Any] = field(default_factory=dict)  # of constants
    _arguments: dict[fx.Node, str | None] = field(default_factory=dict)  # the name in the condition; None: labels
    _fresh: dict[fx.Node, Tensor] = field(default_factory=dict)  # what tensors that are written to held before
    _of_labels: list[dict[fx.Node, Any]] = field(default_factory=list)  # for each group of labels
    _dependent: set[fx.Node] = field(default_factory=set)
    _device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def argument(self, node: fx.Node, argument: Argument) -> None:
        """Note a placeholder for labels or for an entry of the condition."""
        self._arguments[node] = argument.name if argument.kind == "condition" else None
        self._device = argument.value.device
        self.per_image = self.per_image or argument.kind == "condition"

    def constant(self, node: fx.Node, value: Any) -> None:
        """Note a value that depends on nothing."""
        self._values[node] = value

    def add(self, node: fx.Node) -> list[fx.Node]:
        """Note a node that has not run yet. Returns what depends on labels or conditions because of it: nothing, the
        node, or, where it writes into a constant, also that and its views."""
        if not any(map(self.is_known, node.all_input_nodes)):
            return []
        more = self._written(node.args[0]) if writes(node) else []  # type: ignore[arg-type]
        self._nodes.append(node)
        self._dependent.add(node)
        return [*more, node]

    def _written(self, node: fx.Node) -> list[fx.Node]:
        """Note that the memory of a constant is written to: every computation makes it anew. Returns its nodes."""
        while (whole := base(node, self._values)) is not None:
            node = whole
        if self.is_known(node):
            return []
        family = {node: None}
        for other in self._values:
            if base(other, self._values) in family:
                family[other] = None
        if node.op != "call_function":
            self._fresh[node] = self._values[node].clone()
        order = {one: at for at, one in enumerate(node.graph.nodes)}
        self._nodes += [one for one in family if one.op == "call_function"]
        self._nodes.sort(key=order.__getitem__)
        self._dependent.update(family)
        self._of_labels.clear()
        return list(family)

    def is_known(self, node: Any) -> bool:
        """Whether a node depends on labels or conditions."""
        return node in self._arguments or node in self._dependent

    def for_labels(self, node: fx.Node, classes: int) -> list[Any]:
        """The values of a node for all labels, in groups of `batch`; the last is filled up with label 0."""
        if not self._of_labels:
            for first in range(0, classes, self.batch):
                labels = torch.arange(first, first + self.batch, dtype=torch.int64, device=self._device)
                self._of_labels.append(self._given({None: torch.where(labels < classes, labels, 0)}))
        for env in self._of_labels:
            self._compute(env)
        return [env[node] for env in self._of_labels]

    @backends.float_mode()
    def fields(
        self,
        sources: Sequence[tuple[Source, Callable[[np.ndarray], np.ndarray]]],
        n: int,
        labels: Tensor | None,
        condition: Mapping[str, Tensor],
    ) -> np.ndarray:
        """Float32 [n, T]: what the sources give for each image, one after the other, as their functions choose of it.

        Every image is computed alone, so its bits do not depend on the others.
        """
        rows: list[np.ndarray] = []
        same = all(len(value) == 1 or value.stride(0) == 0 for value in condition.values())
        for b in range(n):
            if b and same and (labels is None or labels[b] == labels[b - 1]):
                rows.append(rows[-1])
                continue
            values = [(name, value) for name, value in ((None, labels), *condition.items()) if value is not None]
            given = {name: value[b : b + 1].expand(self.batch, *value.shape[1:]) for name, value in values}
            env = self._given(given)
            self._compute(env)
            parts = [choose(source.arranged(env[source.node])[:1]) for source, choose in sources]
            rows.append(np.concatenate([part.reshape(-1) for part in parts]))
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 0), np.float32)

    def _given(self, arguments: Mapping[str | None, Tensor]) -> dict[fx.Node, Any]:
        given = {node: arguments[name].clone() for node, name in self._arguments.items()}
        return given | {node: value.clone() for node, value in self._fresh.items()}

    def _compute(self, env: dict[fx.Node, Any]) -> None:
        """Compute the nodes that are not yet in `env`, which has what `_given` returns."""

        def value(node: fx.Node) -> Any:
            return env[node] if node in env else self._values[node]

        with torch.no_grad():
            for node in self._nodes[len(env) - len(self._arguments) - len(self._fresh) :]:
                args: Any = fx.node.map_arg(node.args, value)
                kwargs: Any = fx.node.map_arg(node.kwargs, value)
                target: Any = node.target
                env[node] = target(*args, **kwargs)
