"""A user's own function or layer beside that of genfast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genfast import testing
from genfast.benchmarks import machine, matching, work
from genfast.benchmarks.rows import OURS, Row
from genfast.benchmarks.runner import PASSES, Case, Prepared, measure


@dataclass(frozen=True)
class Compared:
    """What `compare` measured.

    Attributes:
        rows: of the forward pass, and of it with the backward pass where something requires a gradient. The first of
            the `times` of a row is "genfast", or the last that was given.
        busy: how many cores others kept busy meanwhile; None where nothing tells.
    """

    rows: tuple[Row, ...]
    busy: float | None

    def __str__(self) -> str:
        lines = []
        for row in self.rows:
            for name, timing in row.times.items():
                quartiles = f"({timing.low_ms:.3g}-{timing.high_ms:.3g})"
                times = f"{timing.median_ms / row.ours.median_ms:.2f}x"
                lines.append(f"{row.direction:17} {name:16} {timing.median_ms:9.3g} ms {quartiles:18} {times}")
            verdict = "the same results" if row.match else "DIFFERENT RESULTS"
            lines.append(f"{'':17} {verdict}, the largest difference {row.difference:.1e} of the largest value")
        if self.busy is not None and self.busy > machine.AT_REST:
            lines.append(f"others kept {self.busy:.1f} cores busy: these are not the times of a machine at rest")
        return "\n".join(lines)


def compare(
    contenders: Mapping[str, Callable[..., Any]],
    args: Sequence[Any] = (),
    *,
    seconds: float = 2.0,
    passes: int = PASSES,
) -> Compared:
    """Time functions or modules beside each other at the same arguments, and whether they compute the same.

    They take turns, so that what else a machine does meets all alike; each turn begins with a call that is not timed.
    The times are of as many threads as torch has.

    Args:
        contenders: name -> what is called with `args` and returns a tensor, or a tuple of some.
        args: the arguments. With a tensor among them, or a parameter of a module, that requires a gradient, the
            backward pass is measured too.
        seconds: about how long, in all, for each direction.
        passes: in how many parts.
    Returns: `Compared`; as text a table in ms with quartiles, and in times of "genfast", or of the last.
    Raises: TypeError for what cannot be called; ValueError for fewer than two.

    Example: `genfast.benchmarks.compare({"mine": nn.ReLU(), "genfast": genfast.nn.BiasAct(8, "relu")},
        [torch.randn(4, 8, 6, 6)])`
    """
    contenders = dict(contenders)
    if len(contenders) < 2:
        raise ValueError(f"compare: contenders must be at least two; got {len(contenders)}")
    for name, function in contenders.items():
        if not callable(function):
            raise TypeError(
                f"compare: contenders must be functions or modules; got {type(function).__name__} as {name!r}"
            )
    first = OURS if OURS in contenders else list(contenders)[-1]
    ordered = {first: contenders.pop(first), **contenders}
    directions = ["forward"]
    if any(_leaves(function, args) for function in ordered.values()):
        directions.append("forward+backward")
    cases = [_case(ordered, args, direction) for direction in directions]
    neighbours = machine.Neighbours()
    rows = measure(cases, seconds=seconds, passes=passes)
    return Compared(tuple(rows), neighbours.cores())


def _case(contenders: Mapping[str, Callable[..., Any]], args: Sequence[Any], direction: str) -> Case:
    backward = direction != "forward"
    runs = {name: _run(function, args, backward) for name, function in contenders.items()}
    ours = next(iter(contenders.values()))
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    shape = ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)
    dtype = str(tensors[0].dtype).removeprefix("torch.") if tensors else ""

    def prepare() -> Prepared:
        made = Prepared(dict(runs), check=partial(_check, contenders, args, backward))
        if backward:
            made.kept = partial(work.kept_bytes, partial(ours, *args), [args, _leaves(ours, args)])
        return made

    return Case("compare", " and ".join(contenders), shape, dtype, direction, prepare)


def _leaves(function: Callable[..., Any], args: Sequence[Any]) -> list[Tensor]:
    own = list(function.parameters()) if isinstance(function, nn.Module) else []
    return [t for t in (*args, *own) if isinstance(t, Tensor) and t.requires_grad]


def _run(function: Callable[..., Any], args: Sequence[Any], backward: bool) -> Callable[[], Any]:
    if not backward:
        return torch.no_grad()(partial(function, *args))
    leaves = _leaves(function, args)

    def run() -> Any:
        outputs = [output for output in testing.outputs_of(function(*args)) if output.requires_grad]
        return torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs], allow_unused=True)

    return run


def _check(contenders: Mapping[str, Callable[..., Any]], args: Sequence[Any], backward: bool) -> matching.Match:
    """Each against the first: outputs, and with the backward pass the gradients of the arguments."""
    found = [_results(function, args, backward) for function in contenders.values()]
    dtype = next((t.dtype for t in found[0].values() if t.is_floating_point()), torch.float32)
    matches = [matching.match(other, found[0], dtype) for other in found[1:]]
    return matching.Match(all(m.matches for m in matches), max(m.difference for m in matches))


def _results(function: Callable[..., Any], args: Sequence[Any], backward: bool) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not backward:
            with torch.no_grad():
                return matching.named(testing.outputs_of(function(*args)))
        given = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
        outputs = testing.outputs_of(function(*args))
        smooth = [output for output in outputs if output.requires_grad]
        gradients = torch.autograd.grad(smooth, given, [torch.ones_like(o) for o in smooth]) if given else ()
    return matching.named([*outputs, *gradients])
