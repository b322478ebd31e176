"""Where and when the steps of a graph are computed: their domains, lags and stages.

Time is (row, column, stage): what depends on the first k draws of the pixel (i, j) can be computed at (i, j, k). A step
is computed with a lag: position (r, c) when the engine is at position (r + lag row, c + lag column) of the same grid,
either at the start of that row ("above": it depends only on the rows before), or at that pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from genfast.engine.compiler.plan import (
    Graph,
    NotCausal,
    NotIncremental,
    Operand,
    Phase,
    Rectangle,
    Step,
    Tap,
    View,
    cut,
    hull,
    inside,
    offset,
    reached,
    reads,
    uses,
)

# A time is one integer, row * ROW + column * COLUMN + stage, which keeps the order of (row, column, stage).
ROW, COLUMN = 1 << 40, 1 << 20
EMPTY = (0, 0, 0, 0)  # a domain without positions
NEVER = -(1 << 60)  # the time of what depends on no pixel


@dataclass
class Place:
    """When a step is computed.

    Attributes:
        above: at the start of a row; else pixel by pixel.
        row, column: the lag.
        stages: int64 [features], after how many draws of the pixel each feature can be computed.
    """

    above: bool
    row: int
    column: int
    stages: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


Places = dict[Step, Place]


def extents(graph: Graph) -> None:
    """Shrink the domain of every step to what is read of it, and copy steps that are read through different windows."""
    while True:
        _shrink(graph)
        copies = _cuts(graph)
        if not copies:
            return
        for step, window in copies:
            _insert_copy(graph, step, window)


def _shrink(graph: Graph) -> None:
    need: dict[Step, Rectangle | None] = dict.fromkeys(graph.steps)
    zeros: dict[Step, list[Step]] = {}
    for operand in graph.outputs:
        need[operand.view.step] = hull(need[operand.view.step], cut(graph.domain, operand.view.window))
    for step in reversed(graph.steps):
        if (read := need[step]) is None:
            continue
        if step.kind == "scan":
            # A scan needs all positions before: the rows above, and those on the side where it starts.
            _, r1, c0, c1 = read
            left = 0 if step.sweep >= 0 else c0
            right = step.domain[3] if step.sweep <= 0 else c1
            step.domain = 0, r1, left, right
        elif step.kind != "image":
            step.domain = cut(read, step.domain) or EMPTY
        _drop_unseen(step, zeros)
        for view, phase in reads(step):
            seen = _seen(step, view, phase)
            need[view.step] = hull(need.get(view.step), seen and cut(seen, view.step.domain))
    kept = []
    for step in graph.steps:
        if need[step] is not None or step.kind == "image":
            kept += [*zeros.get(step, ()), step]
    graph.steps = kept


def _seen(step: Step, view: View, phase: Phase | None) -> Rectangle | None:
    """The positions inside its window that a step reads through a view: a rectangle, or None."""
    rectangle = reached(step, view, phase)
    return rectangle and cut(rectangle, view.window)


def _drop_unseen(step: Step, zeros: dict[Step, list[Step]]) -> None:
    """Drop what a step reads only outside its window; an operand that the kind needs becomes a map of zeros."""
    step.taps = {tap: weight for tap, weight in step.taps.items() if _seen(step, tap.view, tap.phase)}
    for i, operand in reversed(list(enumerate(step.operands))):
        if _seen(step, operand.view, None):
            continue
        if step.kind in ("linear", "scan"):
            del step.operands[i]
            continue
        n = len(operand.features)
        zero = Step("constant", n, step.stride, step.domain, step.where, bias=np.zeros(n, np.float32))
        step.operands[i] = Operand(View(zero, 0, 0, step.domain), np.arange(n))
        zeros.setdefault(step, []).append(zero)


def _cuts(graph: Graph) -> list[tuple[Step, Rectangle]]:
    """(step, window) of every view whose reader would see values of the step outside the window."""
    cuts: list[tuple[Step, Rectangle]] = []
    for step in graph.steps:
        for view, phase in reads(step):
            rectangle = reached(step, view, phase)
            seen = rectangle and cut(rectangle, view.step.domain)
            if seen and not inside(seen, view.window) and (view.step, view.window) not in cuts:
                cuts.append((view.step, view.window))
    return cuts


def _insert_copy(graph: Graph, step: Step, window: Rectangle) -> None:
    copy = Step("copy", step.count, step.stride, cut(window, step.domain) or EMPTY, step.where)
    copy.operands = [Operand(View(step, 0, 0, step.domain), np.arange(step.count))]

    def other(view: View) -> View:
        same = view.step is step and view.window == window
        return View(copy, view.row, view.column, window) if same else view

    for reader in graph.steps:
        reader.taps = {Tap(other(tap.view), tap.phase): weight for tap, weight in reader.taps.items()}
        reader.operands = [Operand(other(o.view), o.features) for o in reader.operands]
    graph.steps.insert(graph.steps.index(step) + 1, copy)


def schedule(graph: Graph, draws: int) -> Places:
    """The `Place` of every step, for an image whose channel c is drawn by draw min(c, draws - 1).

    Raises: NotCausal if an output depends on a pixel or channel that is drawn later.
    """
    earliest = _earliest(graph, draws)
    for k, operand in enumerate(graph.outputs):
        _check_causal(k, operand, earliest)
    places = _places(graph, earliest)
    attended = {operand.view.step for step in graph.steps if step.attention for operand in step.operands}
    for step in graph.steps:
        places[step].stages = _stages(step, places, draws)
        if step in attended:  # read as a whole
            places[step].stages[:] = places[step].stages.max()
    for k, operand in enumerate(graph.outputs):
        places[operand.view.step].stages[:] = k
    return places


def _earliest(graph: Graph, draws: int) -> dict[Step, np.ndarray]:
    """For every feature of every step the latest time that it depends on, relative to its own position."""
    earliest = {}
    for step in graph.steps:
        if step.kind == "image":
            earliest[step] = np.minimum(np.arange(step.count), draws - 1) + 1
            continue
        times = np.full(step.columns, NEVER, np.int64)
        for view, phase, features, weight in _uses(step):
            rows, columns = offset(step, view, phase)
            source = earliest[view.step] + rows * ROW + columns * COLUMN
            times = np.maximum(times, _latest(source, features, weight))
        if step.kind == "scan":
            times = times.reshape(step.gates, -1).max(0)
            width = (step.domain[3] - step.domain[2]) * step.stride
            # Units read one another, at the side or above; a scan from the right reads its whole row.
            move = {1: 0, -1: width * COLUMN, 0: COLUMN * step.stride - ROW * step.stride}[step.sweep]
            times = np.maximum(times, times.max() + move) if step.sweep <= 0 else times
        earliest[step] = times
    return earliest


def _uses(step: Step) -> Iterator[tuple[View, Phase | None, np.ndarray | None, np.ndarray | None]]:
    """(view, phase, features or None, weight or None) of everything that a step reads."""
    yield from ((tap.view, tap.phase, None, weight) for tap, weight in step.taps.items())
    for operand in step.operands:
        weight = uses(step, operand)
        yield operand.view, None, operand.features if weight is None else None, weight


def _latest(source: np.ndarray, features: np.ndarray | None, weight: np.ndarray | None) -> np.ndarray:
    """The maximum of `source` [inputs] over what each output depends on."""
    if weight is None:
        return source[features]
    order = np.argsort(-source, kind="stable")
    uses = weight[order] != 0
    return np.where(uses.any(0), source[order][uses.argmax(0)], NEVER)


def _check_causal(k: int, operand: Operand, earliest: dict[Step, np.ndarray]) -> None:
    times = earliest[operand.view.step][operand.features]
    worst = int(times.argmax())
    time = int(times[worst])
    if time <= k:
        return
    row, column, stage = parted(time)
    where = f"the pixel {row:+d} rows and {column:+d} columns away"
    if (row, column) == (0, 0):
        where = f"channel {stage - 1} of its own pixel"
    layer = _leak(operand.view.step, int(operand.features[worst]), k, earliest)
    raise NotCausal(
        f"sample: the model must be causal; got output {worst} of the conditional of draw {k}, "
        f"which depends on {where}, drawn later; it enters at {layer}"
    )


def _leak(step: Step, feature: int, k: int, earliest: dict[Step, np.ndarray]) -> str:
    """The layer where what is drawn later enters: the one nearest to the image that depends on it."""
    layer = step.where
    while step.kind != "image":
        layer = step.where or layer
        best: tuple[int, Step, int] | None = None
        for view, phase, features, weight in _uses(step):
            rows, columns = offset(step, view, phase)
            source = earliest[view.step] + rows * ROW + columns * COLUMN
            used = [int(features[feature])] if features is not None else []
            if weight is not None:
                column = weight[:, feature :: step.count].any(1) if step.kind == "scan" else weight[:, feature] != 0
                used = np.flatnonzero(column).tolist()
            for at in used:
                if best is None or source[at] > best[0]:
                    best = int(source[at]), view.step, at
        # A layer that looks ahead makes times late that were not so before. Some features of a layer may rightly be
        # late, those of later channels: where others are not, it is their reader that mixes them.
        if best is None or best[1].kind == "image":
            return layer
        times = earliest[best[1]]
        if (times[times > NEVER // 2] <= k).any():
            return layer
        step, feature = best[1], best[2]
    return layer


def parted(time: int) -> tuple[int, int, int]:
    """(row, column, stage) of a time."""
    stage = time & (COLUMN - 1)
    rest = (time - stage) // COLUMN
    row = (rest + COLUMN // 2) // COLUMN
    return row, rest - row * COLUMN, stage


def _places(graph: Graph, earliest: dict[Step, np.ndarray]) -> Places:
    """The place of every step, from the outputs back: as late as its readers allow, but not later than without lag."""
    places: Places = {}
    bound = dict.fromkeys(graph.steps, ROW << 10)
    for operand in graph.outputs:
        bound[operand.view.step] = COLUMN - 1
    outputs = {operand.view.step for operand in graph.outputs}
    for step in reversed(graph.steps):
        # A copy for a draw that depends on nothing is not needed early; what it copies might have to be, with it.
        late = step in outputs and step.kind == "copy"
        place = Place(False, 0, 0) if late else _place(step, _time(step, earliest), bound[step])
        places[step] = place
        for view, phase in reads(step):
            rows, columns = offset(step, view, phase)
            row, column = place.row * step.stride - rows, place.column * step.stride - columns
            column = -(COLUMN // 4) if place.above else column
            bound[view.step] = min(bound[view.step], row * ROW + column * COLUMN + COLUMN - 1)
    return places


def _time(step: Step, earliest: dict[Step, np.ndarray]) -> int:
    """The time that a step depends on: where it depends on no pixel, that of all features of the steps it reads."""
    time = int(earliest[step].max())
    if time >= NEVER // 2:
        return time
    offsets = [(view, offset(step, view, phase)) for view, phase in reads(step)]
    times = [int(earliest[view.step].max()) + row * ROW + column * COLUMN for view, (row, column) in offsets]
    return max(times, default=time)


def _place(step: Step, earliest: int, bound: int) -> Place:
    s = step.stride
    if step.kind == "image":
        return Place(False, 0, 0)
    last, last_column, _ = parted(bound)
    if earliest < NEVER // 2:
        return Place(True, min(0, last // s), 0)
    row, column, _ = parted(earliest)
    first = row // s + 1
    if first <= last // s:
        return Place(True, min(max(0, first), last // s), 0)
    high = last_column // s if last == row else COLUMN
    low = -(-column // s)
    if row % s or last < row or low > high:
        raise NotIncremental(f"sample: {step.where} cannot be run pixel by pixel: what it reads comes too late")
    if 0 < low <= high < COLUMN:
        return Place(False, row // s, high)  # earlier, what it reads might be needed before the first column
    return Place(False, row // s, min(max(0, low), high))


def stored(step: Step, view: View, phase: Phase | None, places: Places) -> tuple[int, int, int, int]:
    """Where a step finds what it reads: (row, column, row remainder, column remainder).

    Row and column are relative to the engine's position on the grid of `view.step`. The step reads there at positions
    with these remainders modulo `step.upsample`.
    """
    own, other = places[step], places[view.step]
    u, (p, q) = (1, (0, 0)) if phase is None else (step.upsample, phase)
    if u == 1:
        ratio = step.stride // view.step.stride
        return view.row + other.row - own.row * ratio, view.column + other.column - own.column * ratio, 0, 0
    r, c = (p + own.row) % u, (q + own.column) % u
    row, column = (r - own.row - p) // u, (c - own.column - q) // u
    return row + view.row + other.row, column + view.column + other.column, r, c


def _stages(step: Step, places: Places, draws: int) -> np.ndarray:
    """How many draws of the present pixel each feature depends on."""
    if step.kind == "image":
        return np.minimum(np.arange(step.count), draws - 1) + 1
    stages = np.zeros(step.columns, np.int64)
    for view, phase, features, weight in _uses(step):
        row, column, *_ = stored(step, view, phase, places)
        source = places[view.step]
        late = (row, column) > (0, 0) if not (source.above or places[step].above) else row >= (not source.above)
        if late and (row > 0 or not source.above):
            raise AssertionError(f"{step.where}: reads ahead by ({row}, {column})")
        if not source.above and (row, column) == (0, 0):
            stages = np.maximum(stages, np.maximum(_latest(source.stages, features, weight), 0))
    return stages.reshape(step.gates, -1).max(0) if step.kind == "scan" else stages
