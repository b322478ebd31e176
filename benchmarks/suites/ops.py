"""The ops on the shapes of their SPECs, beside the same in plain PyTorch, done well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from genfast import ops, testing
from genfast.benchmarks import cases as op_cases
from genfast.benchmarks import matching, rivals, work
from genfast.benchmarks.rows import COMPILED, EAGER, OURS
from genfast.benchmarks.runner import Case, Prepared
from genfast.reference import SPECS

# Names of the rivals -> contenders of a row.
EAGERS = (rivals.EAGER, "torch.multinomial", "torch.bernoulli")
COMPILEDS = (rivals.COMPILED, rivals.COMPILED_STEP)
# The scans, which have instructions for pairs of bfloat16.
LOW = ("diagonal_lstm", "row_lstm")
# What a quick run takes at most: of images, and of rows that are none.
FEW_IMAGES, FEW_ROWS = 4, 1024
# Measures of so many rows that the reference would take minutes for all of them. Each counts by itself: some are
# compared and counted.
ROW_BY_ROW, SOME_ROWS = ("kernel_sum", "nearest_neighbors"), 500


def cases(quick: bool, against: Sequence[str]) -> list[Case]:
    """A case for each op, shape, layout, dtype and direction; `quick`: the smallest shape, with its gradient."""
    made = []
    for op in op_cases.measured_ops():
        shapes: Mapping[str, Mapping[str, int]] = op_cases.shapes(op)
        layouts: Mapping[str, Any] = op_cases.LAYOUTS.get(op, {"": None})
        modes: Sequence[str] = op_cases.modes(op)
        dtypes = [torch.float32, torch.bfloat16] if op in LOW else [torch.float32]
        if quick:
            smallest = min((_small(sizes) for sizes in shapes.values()), key=_volume)
            shapes = {" ".join(f"{letter}={size}" for letter, size in smallest.items()): smallest}
            layouts = dict([next(iter(layouts.items()))])
            modes, dtypes = modes[-1:], dtypes[:1]
        for shape, sizes in shapes.items():
            for added, arrange in layouts.items():
                for dtype in dtypes:
                    for mode in modes:
                        prepare = partial(_prepare, op, sizes, arrange, dtype, mode, tuple(against))
                        made.append(Case("ops", op, f"{shape}{added}", _short(dtype), mode, prepare))
    return made


def _small(sizes: Mapping[str, int]) -> dict[str, int]:
    most = {"B": FEW_IMAGES if "H" in sizes else FEW_ROWS, "M": FEW_ROWS, "K": FEW_ROWS}
    return {letter: min(size, most.get(letter, size)) for letter, size in sizes.items()}


def _volume(sizes: Mapping[str, int]) -> int:
    return math.prod(max(1, size) for size in sizes.values())


def _prepare(
    op: str,
    sizes: Mapping[str, int],
    arrange: Callable[[Tensor], Tensor] | None,
    dtype: torch.dtype,
    mode: str,
    against: Sequence[str],
) -> Prepared:
    inputs = op_cases.spec_of(op).inputs(sizes, dtype=dtype)
    if arrange:
        inputs = testing.each_tensor(arrange, inputs)
    functions = _functions(op, inputs)
    runs = {}
    for name in (OURS, *against):
        if name in functions:
            function, leaves = functions[name]
            runs[name] = op_cases.run_in("forward" if mode == "draw" else mode, function, tuple(leaves))
    missing = {name: "none in use" for name in against if name not in runs}
    one = _ONE.get(op, partial(getattr(ops, op)))
    some, share = _some(op, inputs)
    check = partial(_check, one, some, mode, dtype)
    prepared = Prepared(runs, missing=missing, images=sizes.get("B", 0) if op != "spectral_norm" else 0, check=check)
    leaves = functions[OURS][1] if mode == "forward+backward" else []
    prepared.work = partial(_work, one, inputs, some, share, leaves)
    if leaves:
        prepared.kept = partial(work.kept_bytes, partial(one, **inputs), [inputs])
    return prepared


def _normalized(weight: Tensor, u: Tensor, v: Tensor, *, backend: str = "auto", **_: Any) -> Any:
    """The power method and the normalisation, which are measured together."""
    left, right = ops.power_iteration(weight, u, v, backend=backend)
    return ops.spectral_norm(weight, left.to(u.dtype), right.to(v.dtype), backend=backend)


_ONE: dict[str, Callable[..., Any]] = {"spectral_norm": _normalized}


def _functions(op: str, inputs: dict[str, Any]) -> dict[str, tuple[Callable[..., Any], Sequence[Tensor]]]:
    """Contender -> the call, and what it has gradients of."""
    if op == "spectral_norm":
        found: Mapping[str, Any] = op_cases.normalizations(inputs, "auto")
    else:
        leaves = op_cases.leaves_of(op, inputs) if op in SPECS else []
        found = {name: (partial(function, **inputs), leaves) for name, function in _contenders(op).items()}
    names = {rivals.OURS: OURS, **dict.fromkeys(EAGERS, EAGER), **dict.fromkeys(COMPILEDS, COMPILED)}
    return {names[name]: pair for name, pair in found.items() if name in names}


@cache
def _contenders(op: str) -> dict[str, Callable[..., Any]]:
    """Kept over the passes: torch.compile then finds its code."""
    return rivals.contenders(op, "auto")


def _some(op: str, inputs: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """As many of the rows as the reference does in a moment, and how many times as many there are."""
    if op not in ROW_BY_ROW:
        return inputs, 1.0
    lead, rows = next(iter(inputs.items()))
    return {**inputs, lead: rows[:SOME_ROWS]}, len(rows) / len(rows[:SOME_ROWS])


def _check(one: Callable[..., Any], inputs: dict[str, Any], mode: str, dtype: torch.dtype) -> matching.Match:
    """Against the reference in float64, gradients too."""
    doubled = testing.doubled(inputs)
    if mode == "forward+backward":
        got, expected = testing.evaluate(one, inputs), testing.evaluate(one, doubled, backend="reference")
    else:
        with torch.no_grad():
            got = matching.named(testing.outputs_of(one(**inputs)))
            expected = matching.named(testing.outputs_of(one(**doubled, backend="reference")))
    return matching.match(got, expected, dtype)


def _work(
    one: Callable[..., Any], inputs: dict[str, Any], some: dict[str, Any], share: float, leaves: Sequence[Tensor]
) -> tuple[int, int]:
    """Of the reference: FLOPs of a call, with the gradients of the leaves if there are any, and bytes."""
    reference = partial(one, **some, backend="reference")
    run = op_cases.run_in("forward+backward" if leaves else "forward", reference, tuple(leaves))
    with torch.no_grad():
        result = one(**inputs)
    return int(share * work.flops(run)), work.moved_bytes([inputs], result, leaves)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
