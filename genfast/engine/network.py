"""A network as instructions over whole feature maps, for the C++ kernel csrc/engine/network.cpp.

Unlike torch's forward its bits depend neither on the batch, the threads nor the CPU: what two machines must compute
alike, as both ends of a code do, is computed so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast._native import backends
from genfast.engine.program import ACTIVATIONS

KINDS = ("convolve", "activate", "add", "gather")
LINE = 16  # floats of a cache line
PANEL = 64  # biases are padded to the widest panel of weights
_ARGUMENTS = ("network", "constants", "input", "labels", "output", "batch")
backends.check_signature("network_forward", _ARGUMENTS)


@dataclass(eq=False)
class Map:
    """A feature map, in memory [rows, columns, features], with a border of zeros: (top, bottom, left, right)."""

    rows: int
    columns: int
    features: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def size(self) -> int:
        """Values without the border."""
        return self.rows * self.columns * self.features

    @property
    def row(self) -> int:
        """Floats from row to row."""
        return (self.border[2] + self.columns + self.border[3]) * self.features

    @property
    def floats(self) -> int:
        """Floats with the border, in whole cache lines."""
        return -(-(self.border[0] + self.rows + self.border[1]) * self.row // LINE) * LINE

    @property
    def geometry(self) -> tuple[int, ...]:
        """What two maps must share to use the same memory, one after the other: the border stays zero."""
        return self.rows, self.columns, self.features, *self.border

    def places(self) -> np.ndarray:
        """The place of every value from the beginning of the border, int64 [size]."""
        rows, columns = self.border[0] + np.arange(self.rows), self.border[2] + np.arange(self.columns)
        places = rows[:, None, None] * self.row + columns[:, None] * self.features + np.arange(self.features)
        return places.ravel()


@dataclass(eq=False)
class Step:
    """Computes the map `target` from `source`.

    kind "convolve": `activation(bias + window of source times weight + added)`, weight [height, width, features of
        source, features of target], bias [1 or classes, features of target]; the window of position (i, j) begins at
        row `stride[0] * i - offset[0]`, column `stride[1] * j - offset[1]`.
    kind "activate", "add": `activation(source)`, `activation(source + added)`, value by value.
    kind "gather": value k of target is value `order[k]` of source.
    """

    kind: str
    source: Map
    target: Map
    added: Map | None = None
    activation: str = "none"
    weight: np.ndarray | Any = None
    bias: np.ndarray | Any = None
    stride: tuple[int, int] = (1, 1)
    offset: tuple[int, int] = (0, 0)
    order: np.ndarray | Any = None

    @property
    def read(self) -> list[Map]:
        """The maps that it reads."""
        return [self.source] if self.added is None else [self.source, self.added]


@dataclass(eq=False)
class Network:
    """Steps from the map `input` to the map `output`, in order.

    Attributes:
        classes: number of labels; 0: it takes none.
    """

    steps: list[Step]
    input: Map
    output: Map
    classes: int = 0
    table: np.ndarray = field(init=False, repr=False)
    constants: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._fuse()
        self._borders()
        self._write()

    @property
    def addresses(self) -> tuple[int, int]:
        """Of the two tables that the kernels read."""
        return self.table.ctypes.data, self.constants.ctypes.data

    def digest(self) -> bytes:
        """SHA-256 of all that the result depends on."""
        return hashlib.sha256(self.table.astype("<i8").tobytes() + self.constants.astype("<f4").tobytes()).digest()

    def run(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The output, float32 [B, rows, columns, features], of the input, float32 of the same layout."""
        x = x.to(torch.float32).contiguous()
        to = self.output
        y = torch.empty(len(x), to.rows, to.columns, to.features, dtype=torch.float32, device="cpu")
        given = 0 if labels is None else labels.contiguous().data_ptr()
        if len(x):
            backends.cpp.network_forward("float32", *self.addresses, x.data_ptr(), given, y.data_ptr(), len(x))
        return y

    def _readers(self, of: Map) -> int:
        return sum(one is of for step in self.steps for one in step.read) + (of is self.output)

    def _fuse(self) -> None:
        """Additions and activations at the end of what computes their operand, where nothing else reads that."""
        kept: list[Step] = []
        for step in self.steps:
            before = self._producer(kept, step)
            if before is None:
                kept.append(step)
                continue
            if step.kind == "add":
                before.added = step.added if before.target is step.source else step.source
            before.activation, before.target = step.activation, step.target
        self.steps = kept

    def _producer(self, kept: Sequence[Step], step: Step) -> Step | None:
        """The step that can do another's work as well."""
        if step.kind not in ("activate", "add"):
            return None
        producers = [one for one in kept if any(one.target is read for read in step.read)]
        last = producers[-1] if producers else None
        if last is None or last.kind == "gather" or last.activation != "none" or self._readers(last.target) > 1:
            return None
        return last if step.kind == "activate" or (last.kind == "convolve" and last.added is None) else None

    def _borders(self) -> None:
        for step in self.steps:
            if step.kind != "convolve":
                continue
            source, border = step.source, []
            sizes = zip(step.offset, step.stride, step.weight.shape, (step.target.rows, step.target.columns))
            for (before, stride, window, count), size in zip(sizes, (source.rows, source.columns)):
                border += [before, (count - 1) * stride + window - before - size]
            source.border = tuple(map(max, source.border, border))
        if any(self.output.border) or not self.steps or self.output is self.input:
            copy = Map(self.output.rows, self.output.columns, self.output.features)
            self.steps.append(Step("gather", self.output, copy, order=np.arange(copy.size)))
            self.output = copy

    def _memory(self) -> tuple[dict[Map, int], int]:
        """Where each map begins, and the floats of an image. Maps that are no longer read give up their memory."""
        last = {read: n for n, step in enumerate(self.steps) for read in step.read}
        begins, end = {self.input: 0}, self.input.floats
        free: dict[tuple[int, ...], list[int]] = {}
        for n, step in enumerate(self.steps):
            places = free.setdefault(step.target.geometry, [])
            begins[step.target] = places.pop() if places else end
            end = max(end, begins[step.target] + step.target.floats)
            for read in {*step.read}:
                if last[read] == n:
                    free.setdefault(read.geometry, []).append(begins[read])
        # An odd number of cache lines from image to image: an even one would use only a part of the cache's sets.
        return begins, (end // LINE | 1) * LINE

    def _write(self) -> None:
        begins, image_size = self._memory()
        constants: list[np.ndarray] = []
        instructions: list[list[int]] = []
        runs: list[np.ndarray] = []
        places = {one: begin + one.places() for one, begin in begins.items()}

        def row(of: Map | None) -> list[int]:
            if of is None:
                return [0] * 5
            return [int(places[of][0]), of.rows, of.columns, of.features, of.row]

        def constant(values: np.ndarray) -> int:
            at = sum(part.size for part in constants)
            padded = np.zeros(-(-values.size // LINE) * LINE, np.float32)
            padded[: values.size] = values.ravel()
            constants.append(padded)
            return at

        for step in self.steps:
            window, weights, gathered = [0] * 6, [0] * 3, [0] * 2
            if step.kind == "convolve":
                if len(step.bias) not in (1, self.classes):
                    raise ValueError(f"network: a bias must be of 1 or {self.classes} labels; got {len(step.bias)}")
                bias = np.pad(step.bias, ((0, 0), (0, -step.bias.shape[1] % PANEL)))
                window = [*step.weight.shape[:2], *step.stride, *step.offset]
                weights = [constant(step.weight), constant(bias), bias.shape[1] if len(bias) > 1 else 0]
            elif step.kind == "gather":
                found = _runs(places[step.source][step.order], places[step.target])
                gathered = [sum(len(part) for part in runs), len(found)]
                runs.append(found)
            maps = [*row(step.source), *row(step.added), *row(step.target)]
            numbers = [KINDS.index(step.kind), ACTIVATIONS.index(step.activation)]
            instructions.append([*numbers, *maps, *window, *weights, *gathered])
        header = [len(instructions), image_size, *row(self.input), *row(self.output)]
        first = len(header) + sum(len(instruction) for instruction in instructions)
        for instruction in instructions:
            instruction[-2] = first + 3 * instruction[-2]
        parts = [header, *instructions, *(found.ravel() for found in runs)]
        self.table = np.concatenate([np.array(part, dtype=np.int64) for part in parts])
        self.constants = np.concatenate([*constants, np.zeros(LINE, np.float32)])


def _runs(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(from, to, length) of all that lies together on both sides, int64 [runs, 3]."""
    starts = np.flatnonzero(np.r_[True, (np.diff(source) != 1) | (np.diff(target) != 1)])
    lengths = np.diff(np.r_[starts, len(source)])
    return np.stack((source[starts], target[starts], lengths), 1)
