"""The intermediate representation between the traced graph of a model and its program: steps, one per feature map.

A step is a function of the position (r, c) on its own grid, whose points are `stride` pixels apart, inside its domain
(first row, end row, first column, end column). Other steps read it through a `View`: shifted, and zero outside of a
window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genfast.engine.program import Attention

if TYPE_CHECKING:
    from genfast.engine.compiler.known import Source

Rectangle = tuple[int, int, int, int]  # first row, end row, first column, end column
Phase = tuple[int, int]
UNITS = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}  # of recurrent layers, with their gates


class NotIncremental(ValueError):
    """A model cannot be computed pixel by pixel; the message names the operation."""


class NotCausal(NotIncremental):
    """A conditional of a model depends on a value that is drawn later: the model has no valid sampling order."""


@dataclass(eq=False)
class Step:
    """One feature map of `count` features.

    kind "image": the channels of the image.
    kind "linear": activation(bias + sum over taps of weight.T @ values + operands); weight [features of the tap's
        step, count].
    kind "scan": a recurrent layer of `count` units, its `unit` one of `UNITS`; taps, bias and operands give its gates,
        to which `recurrent`, a list of (row, column, weight [count, gates * count]), adds what its own hidden states
        give. The state before comes from `cell` = (row, column). Outside the domain hidden and cell states are
        `outside`. `sweep`: +1 if a column needs the one at its left, -1 the one at its right, 0 neither.
        "lstm": gates i, f, g, o. "gru": r, z and n, as of torch; the last gate adds r times what the hidden states and
        `weight`, its bias [count], give. "tanh" and "relu": one gate, of which the hidden state is this function.
    kind "lookup": the operand is one channel of levels for every feature; `weight` [count, levels]: the value of each.
    kind "field": values that are known before drawing, `bias` [K, rows, columns, count]: K is 1, or one for each label;
        rows and columns are 1 or those of the domain that the step had at first, `grid`. With a `source`, bias is an
        example, and the values are computed for each image; `weight` [count] says which features of the source.
    kind "attention": of query, key and value, its operands, which are features of any number; `attention` and `table`
        as of `Instruction`. Keys and values are read through views that are moved by `behind` columns, the nearest that
        is read, and so are all before.
    Other kinds as in `program.MAPS`. `weight` and `bias` are of linear, scan, affine and constant; else None.

    upsample: 1, or 2 for a linear step whose taps read a grid of twice the stride. The tap of phase (p, q) serves
        the positions (r, c) with r % upsample == p, c % upsample == q, where it reads ((r - p) / upsample,
        (c - q) / upsample).
    """

    kind: str
    count: int
    stride: int
    domain: Rectangle
    where: str = ""
    upsample: int = 1
    taps: dict[Tap, np.ndarray] = field(default_factory=dict)
    weight: np.ndarray | Any = None
    bias: np.ndarray | Any = None
    operands: list[Operand] = field(default_factory=list)
    activation: str = "none"
    recurrent: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    cell: tuple[int, int] = (0, 0)
    outside: tuple[np.ndarray, np.ndarray] | Any = None
    sweep: int = 0
    source: Source | None = None
    grid: Rectangle | Any = None
    unit: str = "lstm"
    attention: Attention | None = None
    table: np.ndarray | None = None

    @property
    def gates(self) -> int:
        """Number of outputs of the taps for each feature."""
        return UNITS[self.unit] if self.kind == "scan" else 1

    @property
    def columns(self) -> int:
        """Number of outputs of the taps."""
        return self.gates * self.count


@dataclass(frozen=True)
class View:
    """Reads `step` at a position moved by (row, column) on the grid of `step`; zero outside `window`."""

    step: Step
    row: int
    column: int
    window: Rectangle

    def moved(self, row: int, column: int) -> View:
        """The view from a position moved by (row, column)."""
        return View(self.step, self.row + row, self.column + column, self.window)


@dataclass(frozen=True)
class Tap:
    """A read of a linear step, at the positions of a phase."""

    view: View
    phase: Phase = (0, 0)


@dataclass(frozen=True, eq=False)
class Operand:
    """The features (int64 [n]) of a view that a step reads."""

    view: View
    features: np.ndarray

    def moved(self, row: int, column: int) -> Operand:
        """The same features of the moved view."""
        return Operand(self.view.moved(row, column), self.features)

    def taken(self, index: np.ndarray) -> Operand:
        """The features at these indices."""
        return Operand(self.view, self.features[index])


def cut(a: Rectangle, b: Rectangle) -> Rectangle | None:
    """The intersection of two rectangles; None if it is empty."""
    both = max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])
    return both if both[0] < both[1] and both[2] < both[3] else None


def hull(a: Rectangle | None, b: Rectangle | None) -> Rectangle | None:
    """The smallest rectangle that contains two, either of which may be None."""
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])


def inside(a: Rectangle, b: Rectangle) -> bool:
    """Whether rectangle `a` lies in `b`."""
    return b[0] <= a[0] and a[1] <= b[1] and b[2] <= a[2] and a[3] <= b[3]


def reads(step: Step) -> Iterator[tuple[View, Phase | None]]:
    """Every (view, phase) that a step reads; the phase of an operand is None."""
    yield from ((tap.view, tap.phase) for tap in step.taps)
    yield from ((operand.view, None) for operand in step.operands)


def reached(step: Step, view: View, phase: Phase | None, domain: Rectangle | None = None) -> Rectangle | None:
    """The positions of `view.step` that `step` reads over its domain: a rectangle, or None."""
    r0, r1, c0, c1 = domain or step.domain
    if step.attention is not None and view in (operand.view for operand in step.operands[1:]):
        # All that lie before: whole rows, but of a single one.
        end = step.attention.columns if r1 > 1 else c1 - step.attention.behind
        return (0, r1, 0, end) if r0 < r1 and c0 < c1 and end > 0 else None
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


def offset(step: Step, view: View, phase: Phase | None) -> tuple[int, int]:
    """The offset in pixels, (rows, columns), of the position that is read from the reader's own."""
    if step.upsample > 1 and phase is not None:
        u = step.upsample
        return (u * view.row - phase[0]) * step.stride, (u * view.column - phase[1]) * step.stride
    return view.row * view.step.stride, view.column * view.step.stride


# Codes [n], row, column, phase and weight [n, outputs] of what a linear step reads.
Entry = tuple[np.ndarray, int, int, Phase, np.ndarray]


def uses(step: Step, operand: Operand) -> np.ndarray | None:
    """The weight [features of the step that is read, count] of an operand; None: each feature is of one output."""
    if step.attention is None:
        return None
    weight = np.zeros((operand.view.step.count, step.count), np.float32)
    weight[operand.features] = 1
    return weight


@dataclass(frozen=True)
class Logit:
    """What goes into an entry of a softmax.

    Attributes:
        head: "probabilities" or, of its logarithm, "log-probabilities".
        code: of the logit.
        group, levels: the first entry of the same softmax, and how many it has.
    """

    head: str
    code: int
    group: int
    levels: int


class Graph:
    """Steps in the order of computation, and `outputs`: the operand with the parameters of each draw.

    A feature is named by its code, an integer: the index of a view, and the feature in it. `logits`: of each entry of a
    softmax what goes into it.
    """

    SHIFT = 24  # bits of a code for the feature

    def __init__(self, domain: Rectangle) -> None:
        self.domain = domain
        self.steps: list[Step] = []
        self.outputs: list[Operand] = []
        self.logits: dict[int, Logit] = {}
        self._views: list[View] = []
        self._index: dict[tuple[int, int, int, Rectangle], int] = {}

    def code(self, view: View) -> int:
        """The code of feature 0 of a view."""
        key = (id(view.step), view.row, view.column, view.window)
        if key not in self._index:
            self._index[key] = len(self._views)
            self._views.append(view)
        return self._index[key] << self.SHIFT

    def view(self, index: int) -> View:
        """The view of an index that `split` returned."""
        return self._views[index]

    def add(self, step: Step) -> np.ndarray:
        """Append a step; returns the codes of its features."""
        self.steps.append(step)
        return self.code(View(step, 0, 0, step.domain)) + np.arange(step.count, dtype=np.int64)

    def split(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(view index, feature) of each code."""
        return codes >> self.SHIFT, codes & ((1 << self.SHIFT) - 1)

    def moved(self, codes: np.ndarray, change: Callable[[View], View]) -> np.ndarray:
        """Codes after `change` (view -> view) of every view among them."""
        index, feature = self.split(codes)
        result = np.empty_like(codes)
        for i in np.unique(index):
            result[index == i] = self.code(change(self._views[i]))
        return result + feature

    def elementwise(
        self,
        kind: str,
        codes: Sequence[np.ndarray],
        stride: int,
        domain: Rectangle,
        where: str,
        weight: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> np.ndarray:
        """Steps that apply `kind` to codes (a list of int64 [n]): one for each set of views. Returns codes [n].

        weight, bias: those of affine, [n] and [n] or [classes, n].
        """
        split = [self.split(c) for c in codes]
        if split:
            groups = np.stack([index for index, _ in split], 1)
        else:
            assert bias is not None, "a constant has a bias"
            groups = np.zeros((bias.shape[-1], 0), np.int64)
        result = np.empty(len(groups), np.int64)
        kinds, first, member = np.unique(groups, axis=0, return_index=True, return_inverse=True)
        for g in np.argsort(first):
            members = np.flatnonzero(member.reshape(-1) == g)
            operands = [Operand(self._views[i], f[members]) for i, (_, f) in zip(kinds[g], split)]
            step = Step(kind, len(members), stride, domain, where, operands=operands)
            step.weight = None if weight is None else weight[members]
            step.bias = None if bias is None else bias[..., members]
            result[members] = self.add(step)
        return result

    def taps(self, entries: Iterable[Entry], columns: int) -> dict[Tap, np.ndarray]:
        """Taps of (codes [n], row, column, phase, weight [n, columns]), with weights for all features of a step."""
        taps: dict[Tap, np.ndarray] = {}
        for codes, row, column, phase, weight in entries:
            index, feature = self.split(codes)
            for i in np.unique(index):
                of_view = index == i
                view = self._views[i].moved(row, column)
                # Views are compared by value, steps by identity, so that equal taps add up.
                into = taps.setdefault(Tap(view, phase), np.zeros((view.step.count, columns), np.float32))
                if len(np.unique(feature[of_view])) == of_view.sum():
                    into[feature[of_view]] += weight[of_view]
                else:
                    np.add.at(into, feature[of_view], weight[of_view])
        return {tap: weight for tap, weight in taps.items() if weight.any()}
