"""Simplification of a graph: dead code is dropped, and steps that one instruction can compute are fused."""

from __future__ import annotations

from typing import Any

import numpy as np

from genfast.engine.compiler.plan import Graph, Operand, Step, Tap, View, inside, reached, reads

# For every step its readers: steps, and the numbers of outputs.
Readers = dict[Step, set["Step | int"]]
MOST_READERS = 16  # of a step that is split for them: a model of the whole image as one position has one for each value
ACTIVATIONS = ("relu", "elu", "tanh", "sigmoid")


def simplify(graph: Graph) -> None:
    """Rewrite the steps of a graph in place; its outputs keep their values."""
    prune(graph)
    _share(graph)
    _gates(graph)
    _split(graph)
    _fuse(graph)
    prune(graph)
    _isolate_outputs(graph)
    _isolate_attended(graph)


def prune(graph: Graph) -> None:
    """Dead-code elimination: drop features, taps and steps on which no output depends."""
    for step in graph.steps:
        if step.kind == "affine" and not step.weight.any():
            step.kind, step.weight, step.operands = "constant", None, []
    live = {step: np.zeros(step.count, bool) for step in graph.steps}
    for operand in graph.outputs:
        live[operand.view.step][operand.features] = True
    for step in reversed(graph.steps):
        if step.kind in ("image", "scan", "attention"):
            live[step][:] = step.kind == "image" or live[step].any()
        kept = _columns(step, live)
        for tap, weight in step.taps.items():
            live[tap.view.step] |= weight[:, kept].any(1)
        for operand in step.operands:
            live[operand.view.step][_read(step, operand, kept)] = True
    place = {step: np.cumsum(mask) - 1 for step, mask in live.items()}
    graph.steps = [step for step in graph.steps if live[step].any()]
    for step in graph.steps:
        kept = _columns(step, live)
        taps = {tap: weight[live[tap.view.step]][:, kept] for tap, weight in step.taps.items()}
        step.taps = {tap: weight for tap, weight in taps.items() if weight.any()}
        step.operands = [Operand(o.view, place[o.view.step][_read(step, o, kept)]) for o in step.operands]
        step.weight = None if step.weight is None else step.weight[live[step]]
        step.bias = None if step.bias is None else step.bias[..., kept]
        step.count = int(live[step].sum())
    graph.outputs = [Operand(o.view, place[o.view.step][o.features]) for o in graph.outputs]


def _read(step: Step, operand: Operand, kept: np.ndarray) -> np.ndarray:
    """What the outputs `kept` of a step read of an operand; attention reads all."""
    return operand.features[kept] if step.attention is None else operand.features


def _share(graph: Graph) -> None:
    """Common-subexpression elimination of elementwise steps."""
    known: dict[Any, Step] = {}
    same: dict[Step, Step] = {}

    def shared(view: View) -> View:
        return View(same[view.step], view.row, view.column, view.window) if view.step in same else view

    for step in graph.steps:
        step.taps = {Tap(shared(tap.view), tap.phase): weight for tap, weight in step.taps.items()}
        step.operands = [Operand(shared(o.view), o.features) for o in step.operands]
        if step.kind in ("image", "linear", "scan", "attention"):
            continue
        numbers = [None if a is None else (a.shape, a.tobytes()) for a in (step.weight, step.bias)]
        operands = [(o.view, o.features.tobytes()) for o in step.operands]
        source = None if step.source is None else id(step.source)
        first = known.setdefault((step.kind, step.stride, step.domain, source, *numbers, *operands), step)
        if first is not step:
            same[step] = first
    graph.steps = [step for step in graph.steps if step not in same]
    graph.outputs = [Operand(shared(o.view), o.features) for o in graph.outputs]


def _columns(step: Step, live: dict[Step, np.ndarray]) -> np.ndarray:
    return np.tile(live[step], step.gates)


def _readers(graph: Graph) -> Readers:
    """For every step the set of its readers: steps, and the numbers of outputs."""
    readers: Readers = {step: set() for step in graph.steps}
    for step in graph.steps:
        for view, _ in reads(step):
            readers[view.step].add(step)
    for k, operand in enumerate(graph.outputs):
        readers[operand.view.step].add(k)
    return readers


def _whole(step: Step, operand: Operand) -> bool:
    """Whether `step`, elementwise, never reads outside the operand's window."""
    rectangle = reached(step, operand.view, None)
    return rectangle is not None and inside(rectangle, operand.view.window)


def _gates(graph: Graph) -> None:
    """Fuse tanh(a) * sigmoid(b) to one step."""
    readers = _readers(graph)
    for step in graph.steps:
        if step.kind != "mul":
            continue
        inner = [operand.view.step for operand in step.operands]
        if [s.kind for s in inner] == ["sigmoid", "tanh"]:
            step.operands.reverse()
            inner.reverse()
        alone = all(readers[s] == {step} and _whole(step, o) for s, o in zip(inner, step.operands))
        if [s.kind for s in inner] == ["tanh", "sigmoid"] and alone:
            step.kind = "gate"
            step.operands = [
                s.operands[0].taken(o.features).moved(o.view.row, o.view.column) for s, o in zip(inner, step.operands)
            ]
            readers = _readers(graph)
    prune(graph)


def _split(graph: Graph) -> None:
    """Split linear steps whose features have different readers, so that each part can be fused with its reader."""
    readers = _readers(graph)
    steps: list[Step] = []
    for step in graph.steps:
        several = step.kind == "linear" and 1 < len(readers[step]) <= MOST_READERS
        parts = _parts(step, readers[step], graph) if several else []
        if len(parts) < 2:
            steps.append(step)
            continue
        pieces = [_part(step, mask) for mask in parts]
        for reader in readers[step]:
            _redirect(graph, reader, step, pieces, parts)
        steps += pieces
        for view, _ in reads(step):
            readers[view.step] = (readers[view.step] - {step}) | set(pieces)
    graph.steps = steps


def _parts(step: Step, readers: set[Step | int], graph: Graph) -> list[np.ndarray]:
    """A partition of the features of a step, as masks: features with a common reader stay together."""
    parts: list[np.ndarray] = []
    for reader in readers:
        mask = np.zeros(step.count, bool)
        for tap, weight in getattr(reader, "taps", {}).items():
            if tap.view.step is step:
                mask |= weight.any(1)
        for operand in [graph.outputs[reader]] if isinstance(reader, int) else reader.operands:
            if operand.view.step is step:
                mask[operand.features] = True
        for other in [p for p in parts if (p & mask).any()]:
            mask |= other
        parts = [p for p in parts if not (p & mask).any()] + [mask]
    return sorted(parts, key=np.argmax)


def _part(step: Step, mask: np.ndarray) -> Step:
    taps = {tap: weight[:, mask] for tap, weight in step.taps.items()}
    part = Step("linear", int(mask.sum()), step.stride, step.domain, step.where, step.upsample)
    part.taps = {tap: weight for tap, weight in taps.items() if weight.any()}
    part.bias, part.activation = step.bias[..., mask], step.activation
    part.operands = [o.taken(np.flatnonzero(mask)) for o in step.operands]
    return part


def _redirect(graph: Graph, reader: Step | int, step: Step, pieces: list[Step], parts: list[np.ndarray]) -> None:
    """Make a reader of a step read its `pieces` instead."""
    places = [np.cumsum(mask) - 1 for mask in parts]

    def other(operand: Operand) -> Operand:
        if operand.view.step is not step:
            return operand
        i = next(i for i, mask in enumerate(parts) if mask[operand.features[0]])
        view = View(pieces[i], operand.view.row, operand.view.column, operand.view.window)
        return Operand(view, places[i][operand.features])

    if isinstance(reader, int):
        graph.outputs[reader] = other(graph.outputs[reader])
        return
    reader.operands = [other(operand) for operand in reader.operands]
    taps: dict[Tap, np.ndarray] = {}
    for tap, weight in reader.taps.items():
        if tap.view.step is not step:
            taps[tap] = weight
            continue
        for part, mask in zip(pieces, parts):
            if weight[mask].any():
                view = View(part, tap.view.row, tap.view.column, tap.view.window)
                taps[Tap(view, tap.phase)] = weight[mask]
    reader.taps = taps


def _fuse(graph: Graph) -> None:
    """Fuse linear steps with the elementwise steps that read them."""
    readers = _readers(graph)
    gone = set()
    for step in graph.steps:
        for operand in list(step.operands):
            inner = operand.view.step
            if operand in step.operands and _absorbs(step, operand, readers):
                _absorb(step, operand)
                gone.add(inner)
                for view, _ in reads(step):
                    readers[view.step].discard(inner)
                    readers[view.step].add(step)
    graph.steps = [step for step in graph.steps if step not in gone]


def _absorbs(step: Step, operand: Operand, readers: Readers) -> bool:
    """Whether `step` can absorb the linear step of its operand, which must have no other reader."""
    inner = operand.view.step
    if inner.kind != "linear" or inner.activation != "none" or readers[inner] != {step}:
        return False
    if sum(o.view.step is inner for o in step.operands) > 1 or any(t.view.step is inner for t in step.taps):
        return False
    if len(np.unique(operand.features)) != inner.count or len(operand.features) != inner.count:
        return False
    if not _whole(step, operand):
        return False
    if step.kind == "affine":
        return not inner.operands or bool((step.weight == 1).all())
    if step.kind in ("linear", "scan"):
        plain = step.activation == "none" and step.upsample == inner.upsample
        return plain and (step.kind == "linear" or inner.upsample == 1)
    return step.kind == "add" or step.kind in ACTIVATIONS


def _absorb(step: Step, operand: Operand) -> None:
    inner, features = operand.view.step, operand.features
    row, column, u = operand.view.row, operand.view.column, inner.upsample
    scale = step.weight if step.kind == "affine" else np.ones(len(features), np.float32)
    if step.kind not in ("linear", "scan"):
        bias = step.bias if step.kind == "affine" else np.zeros(len(features), np.float32)
        step.activation = step.kind if step.kind in ACTIVATIONS else "none"
        if step.kind != "add":
            step.where = inner.where  # an error is then of the layer, not of what follows it
        step.kind, step.weight, step.bias, step.taps = "linear", None, bias, {}
        step.upsample = u
    step.operands = [o for o in step.operands if o is not operand]
    step.operands += [o.taken(features).moved(row, column) for o in inner.operands]
    step.bias = (step.bias + inner.bias[..., features] * scale).astype(np.float32)
    for tap, weight in inner.taps.items():
        if u > 1:
            p, q = (tap.phase[0] - row) % u, (tap.phase[1] - column) % u
            tap = Tap(tap.view.moved((row - tap.phase[0] + p) // u, (column - tap.phase[1] + q) // u), (p, q))
        else:
            factor = inner.stride // tap.view.step.stride
            tap = Tap(tap.view.moved(row * factor, column * factor), tap.phase)
        weight = weight[:, features] * scale
        step.taps[tap] = step.taps[tap] + weight if tap in step.taps else weight


def _isolate_outputs(graph: Graph) -> None:
    """Give every output its own step, with the features in the order of the parameters."""
    readers = _readers(graph)
    for k, operand in enumerate(graph.outputs):
        view, features = operand.view, operand.features
        own = readers[view.step] == {k} and view.step.kind not in ("image", "scan")
        whole = (view.row, view.column) == (0, 0) and len(np.unique(features)) == view.step.count == len(features)
        if not own or not whole:
            domain = graph.domain
            step = Step("copy", len(features), 1, domain, view.step.where, operands=[operand])
            graph.steps.append(step)
            graph.outputs[k] = Operand(View(step, 0, 0, domain), np.arange(len(features)))


def _isolate_attended(graph: Graph) -> None:
    """Give every operand of attention its own step, with the features in its order."""
    wanted = {operand.view.step: operand.features for operand in graph.outputs}
    for step in [step for step in graph.steps if step.attention is not None]:
        for at, operand in enumerate(step.operands):
            view, features = operand.view, operand.features
            fits = view.step.kind not in ("image", "scan", "attention") and view.window == view.step.domain
            whole = fits and len(np.unique(features)) == len(features) == view.step.count
            if whole and np.array_equal(wanted.setdefault(view.step, features), features):
                continue
            copy = Step("copy", len(features), step.stride, view.window, step.where)
            copy.operands = [Operand(View(view.step, 0, 0, view.window), features)]
            graph.steps.insert(graph.steps.index(step), copy)
            step.operands[at] = Operand(View(copy, view.row, view.column, view.window), np.arange(len(features)))
            wanted[copy] = step.operands[at].features
