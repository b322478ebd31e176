"""Where and when the steps of a graph are computed: their extents, their places in time, their levels.

Time is (row, column, level): what depends on the first k channels of the pixel at (i, j) can be computed at (i, j, k).
A step is computed with a lag: position (r, c) when the engine is at position (r + lag row, c + lag column) of the same
grid, either at the start of that row ("above": it depends on the rows before alone) or at that pixel.
"""

from dataclasses import dataclass

import numpy as np

from genfast.engine.compiler.plan import (
    NotCausal,
    NotIncremental,
    Operand,
    Step,
    Tap,
    View,
    cut,
    hull,
    inside,
    offset,
    reached,
    reads,
)

# A time is one integer, row * ROW + column * COLUMN + level, which keeps the order of (row, column, level).
ROW, COLUMN = 1 << 40, 1 << 20
NEVER = -(1 << 60)  # for what depends on no pixel


@dataclass
class Place:
    """When a step is computed: with a lag, at the start of a row or pixel by pixel; levels int64 [features]."""

    above: bool
    row: int
    column: int
    levels: np.ndarray


def extents(graph):
    """Shrink the domain of every step to what is read of it, and copy what readers must see cut in different ways."""
    while True:
        _shrink(graph)
        copies = _cuts(graph)
        if not copies:
            return
        for step, window in copies:
            _insert_copy(graph, step, window)


def _shrink(graph):
    need, zeros = dict.fromkeys(graph.steps), {}
    for operand in graph.outputs:
        need[operand.view.step] = hull(need[operand.view.step], cut(graph.domain, operand.view.window))
    for step in reversed(graph.steps):
        if need[step] is None:
            continue
        if step.kind == "scan":
            # A scan needs all that comes before: the rows above, and what lies on the side where it comes from.
            _, r1, c0, c1 = need[step]
            left = 0 if step.sweep >= 0 else c0
            right = step.domain[3] if step.sweep <= 0 else c1
            step.domain = 0, r1, left, right
        elif step.kind != "image":
            step.domain = cut(need[step], step.domain)
        _drop_unseen(step, zeros)
        for view, phase in reads(step):
            seen = _seen(step, view, phase)
            need[view.step] = hull(need.get(view.step), seen and cut(seen, view.step.domain))
    kept = []
    for step in graph.steps:
        if need[step] is not None or step.kind == "image":
            kept += [*zeros.get(step, ()), step]
    graph.steps = kept


def _seen(step, view, phase):
    """The positions that a step reads by a view and does not find to be zero; None for none."""
    rectangle = reached(step, view, phase)
    return rectangle and cut(rectangle, view.window)


def _drop_unseen(step, zeros):
    """Drop what a step reads only outside of its window; an operand that it needs becomes a map of zeros."""
    step.taps = {tap: weight for tap, weight in step.taps.items() if _seen(step, tap.view, tap.phase)}
    for i, operand in reversed(list(enumerate(step.operands))):
        if _seen(step, operand.view, None):
            continue
        if step.kind in ("linear", "scan"):
            del step.operands[i]
            continue
        zero = Step("constant", step.count, step.stride, step.domain, step.where, bias=np.zeros(step.count, np.float32))
        step.operands[i] = Operand(View(zero, 0, 0, step.domain), np.arange(step.count))
        zeros.setdefault(step, []).append(zero)


def _cuts(graph):
    """(step, window) of every view through which a reader would see values that lie outside its window."""
    found = []
    for step in graph.steps:
        for view, phase in reads(step):
            rectangle = reached(step, view, phase)
            seen = rectangle and cut(rectangle, view.step.domain)
            if seen and not inside(seen, view.window) and (view.step, view.window) not in found:
                found.append((view.step, view.window))
    return found


def _insert_copy(graph, step, window):
    domain = cut(window, step.domain)
    if domain is None:
        domain = (0, 0, 0, 0)
    copy = Step("copy", step.count, step.stride, domain, step.where)
    copy.operands = [Operand(View(step, 0, 0, step.domain), np.arange(step.count))]

    def other(view):
        same = view.step is step and view.window == window
        return View(copy, view.row, view.column, window) if same else view

    for reader in graph.steps:
        reader.taps = {Tap(other(tap.view), tap.phase): weight for tap, weight in reader.taps.items()}
        reader.operands = [Operand(other(o.view), o.features) for o in reader.operands]
    graph.steps.insert(graph.steps.index(step) + 1, copy)


def schedule(graph, draws):
    """The `Place` of every step, for an image whose channel c is drawn by draw min(c, draws - 1).

    Raises: NotCausal if an output depends on a pixel or channel that is drawn later.
    """
    earliest = _earliest(graph, draws)
    for k, operand in enumerate(graph.outputs):
        _check_causal(k, earliest[operand.view.step][operand.features])
    places = _places(graph, earliest)
    for step in graph.steps:
        places[step].levels = _levels(step, places, draws)
    for k, operand in enumerate(graph.outputs):
        places[operand.view.step].levels[:] = k
    return places


def _earliest(graph, draws):
    """For every feature of every step the last time that it depends on, relative to its own position."""
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
            times = times.reshape(4, -1).max(0)
            width = (step.domain[3] - step.domain[2]) * step.stride
            # Units read one another beside or above; a scan from the right reads the whole of its row.
            move = {1: 0, -1: width * COLUMN, 0: COLUMN * step.stride - ROW * step.stride}[step.sweep]
            times = np.maximum(times, times.max() + move) if step.sweep <= 0 else times
        earliest[step] = times
    return earliest


def _uses(step):
    """(view, phase, features or None, weight or None) of everything that a step reads."""
    yield from ((tap.view, tap.phase, None, weight) for tap, weight in step.taps.items())
    yield from ((operand.view, None, operand.features, None) for operand in step.operands)


def _latest(source, features, weight):
    """The maximum of `source` [inputs] over what each output depends on."""
    if weight is None:
        return source[features]
    result = np.full(weight.shape[1], NEVER, np.int64)
    for value in np.unique(source):
        result[weight[source == value].any(0)] = value
    return result


def _check_causal(k, times):
    worst = int(times.argmax())
    time = int(times[worst])
    if time <= k:
        return
    row, column, level = parted(time)
    where = f"the pixel {row:+d} rows and {column:+d} columns away"
    if (row, column) == (0, 0):
        where = f"channel {level - 1} of its own pixel"
    raise NotCausal(
        f"sample: the model must be causal; got output {worst} of the conditional of draw {k}, "
        f"which depends on {where}, drawn later"
    )


def parted(time):
    """(row, column, level) of a time."""
    level = time & (COLUMN - 1)
    rest = (time - level) // COLUMN
    row = (rest + COLUMN // 2) // COLUMN
    return row, rest - row * COLUMN, level


def _places(graph, earliest):
    """The class and lag of every step, from the outputs back: as late as its readers allow, but at most without lag."""
    places, bound = {}, dict.fromkeys(graph.steps, ROW << 10)
    for operand in graph.outputs:
        bound[operand.view.step] = COLUMN - 1
    for step in reversed(graph.steps):
        place = places[step] = _place(step, int(earliest[step].max()), bound[step])
        for view, phase in reads(step):
            rows, columns = offset(step, view, phase)
            row, column = place.row * step.stride - rows, place.column * step.stride - columns
            column = -(COLUMN // 4) if place.above else column
            bound[view.step] = min(bound[view.step], row * ROW + column * COLUMN + COLUMN - 1)
    return places


def _place(step, earliest, bound):
    s = step.stride
    if step.kind == "image":
        return Place(False, 0, 0, None)
    last, last_column, _ = parted(bound)
    if earliest < NEVER // 2:
        return Place(True, min(0, last // s), 0, None)
    row, column, _ = parted(earliest)
    first = row // s + 1
    if first <= last // s:
        return Place(True, min(max(0, first), last // s), 0, None)
    high = last_column // s if last == row else COLUMN
    low = -(-column // s)
    if row % s or last < row or low > high:
        raise NotIncremental(f"sample: {step.where} cannot be run pixel by pixel: what it reads comes too late")
    return Place(False, row // s, min(max(0, low), high), None)


def stored(step, view, phase, places):
    """Where a step finds what it reads: (row, column) relative to the engine's position on the grid of `view.step`,
    and the remainders (row, column) modulo `step.upsample` of the positions at which it does."""
    own, other = places[step], places[view.step]
    found = []
    for lag, moved, start, p in (
        (own.row, view.row, other.row, phase and phase[0]),
        (own.column, view.column, other.column, phase and phase[1]),
    ):
        if step.upsample > 1 and phase is not None:
            remainder = (p + lag) % step.upsample
            found.append(((remainder - lag - p) // step.upsample + moved + start, remainder))
        else:
            found.append((moved + start - lag * (step.stride // view.step.stride), 0))
    (row, r), (column, c) = found
    return row, column, r, c


def _levels(step, places, draws):
    """How many draws of the present pixel each feature depends on."""
    if step.kind == "image":
        return np.minimum(np.arange(step.count), draws - 1) + 1
    levels = np.zeros(step.columns, np.int64)
    for view, phase, features, weight in _uses(step):
        row, column, *_ = stored(step, view, phase, places)
        source = places[view.step]
        late = (row, column) > (0, 0) if not (source.above or places[step].above) else row >= (not source.above)
        if late and (row > 0 or not source.above):
            raise AssertionError(f"{step.where}: reads ahead by ({row}, {column})")
        if not source.above and (row, column) == (0, 0):
            levels = np.maximum(levels, np.maximum(_latest(source.levels, features, weight), 0))
    return levels.reshape(4, -1).max(0) if step.kind == "scan" else levels
