"""The steps of a model between its graph and its program: what each feature map is, position by position.

A step is a function of the position (r, c) on its own grid, whose points lie `stride` pixels apart, inside its domain
(first row, end row, first column, end column). A reader sees it through a `View`: shifted, inside a window, and zero
outside that window.
"""

from dataclasses import dataclass, field

import numpy as np


class NotIncremental(ValueError):
    """A model has something that cannot be computed pixel by pixel; the message names it."""


class NotCausal(NotIncremental):
    """A conditional of a model depends on what is drawn after it: no way of sampling from it is right."""


@dataclass(eq=False)
class Step:
    """One feature map of `count` features.

    kind "image": the channels of the image.
    kind "linear": activation(bias + sum over taps of weight.T @ values + operands); weight [features of the tap's
        step, count].
    kind "scan": an LSTM of `count` units; taps, bias and operands give its 4 * count gates (i, f, g, o), to which
        `recurrent`, a list of (row, column, weight [count, 4 * count]), adds what its own hidden states give. The cell
        state before comes from `cell` = (row, column). Outside the domain hidden and cell states are `outside`. `sweep`
        +1 or -1: the column by which it must follow the one at its left or right; 0 for none.
    Other kinds as in `program.MAPS`; `weight` and `bias` are those of affine.

    upsample: 1, or 2 for a linear step whose taps read a grid of twice the stride. The tap of phase (p, q) serves
        the positions (r, c) with r % upsample == p, c % upsample == q, where it reads ((r - p) / upsample,
        (c - q) / upsample).
    """

    kind: str
    count: int
    stride: int
    domain: tuple[int, int, int, int]
    where: str = ""
    upsample: int = 1
    taps: dict = field(default_factory=dict)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    operands: list = field(default_factory=list)
    activation: str = "none"
    recurrent: list = field(default_factory=list)
    cell: tuple[int, int] = (0, 0)
    outside: tuple[np.ndarray, np.ndarray] | None = None
    sweep: int = 0

    @property
    def columns(self):
        """Outputs of the taps."""
        return 4 * self.count if self.kind == "scan" else self.count


@dataclass(frozen=True)
class View:
    """Reads `step` at a position moved by (row, column), counted on the grid of `step`, or zero outside `window`."""

    step: Step
    row: int
    column: int
    window: tuple[int, int, int, int]

    def moved(self, row, column):
        return View(self.step, self.row + row, self.column + column, self.window)


@dataclass(frozen=True)
class Tap:
    """What a linear step reads of another at the positions of a phase."""

    view: View
    phase: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Operand:
    """Features (int64 [n]) of a view."""

    view: View
    features: np.ndarray

    def moved(self, row, column):
        return Operand(self.view.moved(row, column), self.features)

    def taken(self, index):
        return Operand(self.view, self.features[index])


def cut(a, b):
    """The part that two rectangles share; None for nothing."""
    both = max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])
    return both if both[0] < both[1] and both[2] < both[3] else None


def hull(a, b):
    """The smallest rectangle around two, either of which may be None."""
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])


def inside(a, b):
    """Whether rectangle `a` lies in `b`."""
    return b[0] <= a[0] and a[1] <= b[1] and b[2] <= a[2] and a[3] <= b[3]


def reads(step):
    """Every (view, phase) that a step reads."""
    yield from ((tap.view, tap.phase) for tap in step.taps)
    yield from ((operand.view, None) for operand in step.operands)


def reached(step, view, phase, domain=None):
    """The rectangle of positions of `view.step` that `step` reads while it computes its domain; None for nothing."""
    r0, r1, c0, c1 = domain or step.domain
    if step.upsample > 1 and phase is not None:
        u, (p, q) = step.upsample, phase
        rows = -((p - r0) // u), (r1 - 1 - p) // u + 1
        columns = -((q - c0) // u), (c1 - 1 - q) // u + 1
    else:
        s = step.stride // view.step.stride
        rows, columns = (r0 * s, (r1 - 1) * s + 1), (c0 * s, (c1 - 1) * s + 1)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return None
    return rows[0] + view.row, rows[1] + view.row, columns[0] + view.column, columns[1] + view.column


def offset(step, view, phase):
    """How far, in pixels, the position that is read lies from the reader's own: (rows, columns)."""
    if step.upsample > 1 and phase is not None:
        u = step.upsample
        return (u * view.row - phase[0]) * step.stride, (u * view.column - phase[1]) * step.stride
    return view.row * view.step.stride, view.column * view.step.stride


class Graph:
    """Steps in the order of computation, and `outputs`: one `Operand` list for each draw."""

    def __init__(self):
        self.steps = []
        self.outputs = []
        self._views, self._index = [], {}

    SHIFT = 24

    def code(self, view):
        """The number by which feature 0 of a view goes among the codes of a value."""
        key = (id(view.step), view.row, view.column, view.window)
        if key not in self._index:
            self._index[key] = len(self._views)
            self._views.append(view)
        return self._index[key] << self.SHIFT

    def view(self, index):
        return self._views[index]

    def add(self, step):
        """Append a step; returns the codes of its features."""
        self.steps.append(step)
        return self.code(View(step, 0, 0, step.domain)) + np.arange(step.count, dtype=np.int64)

    def split(self, codes):
        """(view index, feature) of each code."""
        return codes >> self.SHIFT, codes & ((1 << self.SHIFT) - 1)

    def moved(self, codes, change):
        """Codes after `change` (view -> view) of every view among them."""
        index, feature = self.split(codes)
        result = np.empty_like(codes)
        for i in np.unique(index):
            result[index == i] = self.code(change(self._views[i]))
        return result + feature

    def elementwise(self, kind, codes, stride, domain, where, weight=None, bias=None):
        """Steps that apply `kind` to codes (a list of int64 [n]): one for each set of views. Returns codes [n].

        weight, bias: those of affine, [n] and [n] or [classes, n].
        """
        split = [self.split(c) for c in codes]
        groups = np.stack([index for index, _ in split], 1) if split else np.zeros((bias.shape[-1], 0), np.int64)
        result = np.empty(len(groups), np.int64)
        kinds, first, member = np.unique(groups, axis=0, return_index=True, return_inverse=True)
        for g in np.argsort(first):
            chosen = np.flatnonzero(member.reshape(-1) == g)
            operands = [Operand(self._views[i], f[chosen]) for i, (_, f) in zip(kinds[g], split)]
            step = Step(kind, len(chosen), stride, domain, where, operands=operands)
            step.weight = None if weight is None else weight[chosen]
            step.bias = None if bias is None else bias[..., chosen]
            result[chosen] = self.add(step)
        return result

    def taps(self, entries, columns):
        """Taps of (codes [n], row, column, phase, weight [n, columns]), with weights for all features of a step."""
        taps = {}
        for codes, row, column, phase, weight in entries:
            index, feature = self.split(codes)
            for i in np.unique(index):
                chosen = index == i
                view = self._views[i].moved(row, column)
                # Views are compared by value, steps by identity, so that equal taps add up.
                into = taps.setdefault(Tap(view, phase), np.zeros((view.step.count, columns), np.float32))
                if len(np.unique(feature[chosen])) == chosen.sum():
                    into[feature[chosen]] += weight[chosen]
                else:
                    np.add.at(into, feature[chosen], weight[chosen])
        return {tap: weight for tap, weight in taps.items() if weight.any()}
