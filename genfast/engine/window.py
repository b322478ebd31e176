"""Sequences in parts: a program of images of one row goes on where it stopped, in memory that does not grow.

Where the instructions of a program are the same in every column from some column on, as those of recurrent layers and
causal convolutions are, a window of a few columns is enough for a sequence of any length: when it is full, the columns
that later ones read are moved to its beginning. Every symbol is computed by the same instructions as in the whole
program, in the same order: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast.engine import cpp
from genfast.engine.program import Buffer, Drawn, Instruction, Program, Read
from genfast.engine.request import SampleRequest

LEAST = 256  # columns of a window beside those that are kept: a call takes some microseconds
MOST_SYMBOLS = 2**32  # whose random numbers differ


def steady(program: Program) -> int | str:
    """How many columns back instructions read, where those of all columns from there on are the same; else why not."""
    kept = program.prepared
    return kept["steady"] if "steady" in kept else kept.setdefault("steady", _steady(program))


def _steady(program: Program) -> int | str:
    spec, reach = program.spec, 0
    if spec.height != 1 or spec.channels != 1 or program.columns != spec.width:
        return "it has rows, or columns beside those of the sequence"
    if any(buffer.stride != 1 for buffer in program.buffers):
        return "it has strides"
    if any(it.sweep or any(read.column for read in (*it.reads, *it.adds)) for it in program.row):
        return "it scans the whole sequence first"
    if any(it.kind == "attention" for part in (program.row, *program.pixel) for it in part):
        return "it attends to all symbols so far"
    if _ends_early(program):
        return "its last symbols are computed in another way"
    for it in (it for part in (program.row, *program.pixel) for it in part):
        columns = 1 if it.kind != "field" else it.grid[1] if it.table is None else it.table.shape[2]
        reads = [*it.reads, *it.adds]
        if columns > 1 and it.table is None:
            return "what it is conditioned on differs from symbol to symbol"
        if any(_end(read, program.buffers) > 0 for read in reads):
            return "it reads what comes later"
        reach = max(reach, it.domain[2], *(-read.column for read in reads), 0)
        if columns > 1:
            reach = max(reach, it.domain[2] + _settles(it.table))
    if reach + 1 >= spec.width:
        return f"its output depends on the position up to the last of {spec.width} symbols, as learned positions do"
    return reach


def _ends_early(program: Program) -> bool:
    """Whether a column is read after the domain of what computes it: what nothing reads need not be computed."""
    early: dict[int, int] = {}
    every = [it for part in (program.row, *program.pixel) for it in part]
    for it in every:
        for place in ((it.buffer, 0), it.cell, it.visible):
            if place:
                early[place[0]] = max(early.get(place[0], 0), program.spec.width - it.domain[3])
    readers = [(max(0, program.spec.width - it.domain[3]), read) for it in every for read in (*it.reads, *it.adds)]
    readers += [(0, read) for read in program.parameters]
    return any(early.get(read.buffer, 0) > end - read.column for end, read in readers)


def _end(read: Read, buffers: list[Buffer]) -> int:
    """The last column of a read: it may span several."""
    return read.column + (read.feature + read.count - 1) // buffers[read.buffer].features


def _settles(table: np.ndarray) -> int:
    """The first column from which on all columns of a table are the same."""
    differs = (table != table[:, :, -1:]).any((0, 1, 3))
    return int(differs.nonzero()[0][-1]) + 1 if differs.any() else 0


def narrowed(program: Program, width: int) -> Program:
    """A steady program for sequences of `width` symbols, of more or of fewer than its own."""

    def cut(it: Instruction) -> Instruction:
        domain = (*it.domain[:3], width)
        if it.table is None or it.table.shape[2] == 1:
            return replace(it, domain=domain)
        columns = np.minimum(np.arange(width - it.domain[2]), it.table.shape[2] - 1)
        return replace(it, domain=domain, table=it.table[:, :, columns])

    return replace(
        program,
        spec=replace(program.spec, width=width),
        columns=width,
        buffers=[replace(buffer, columns=width) for buffer in program.buffers],
        row=[cut(it) for it in program.row],
        pixel=[[cut(it) for it in part] for part in program.pixel],
    )


class Window:
    """Draws the symbols of sequences one part after the other, in C++.

    Args:
        program: of one row. One that is not steady has a window of its whole length.
        request: of sequences, with its fields; given and known are those of the first symbols, [n, 1, 1, P].
        wide: the most symbols of a part, for a steady program.
    """

    def __init__(self, program: Program, request: SampleRequest, wide: int = LEAST) -> None:
        back = steady(program)
        self.kept = program.spec.width if isinstance(back, str) else back
        # Parts as long as what is kept: moving it takes no more time than drawing.
        width = self.kept + max(wide, self.kept, LEAST)
        if not isinstance(back, str) and width != program.spec.width:
            key = f"window {width}"
            program = program.prepared.get(key) or program.prepared.setdefault(key, narrowed(program, width))
        elif isinstance(back, str):
            width = program.spec.width
        self.program, self.request, self.width = program, request, width
        self.tables = cpp.tables_of(program)
        self.memory = np.empty((request.n, self.tables.image_size), np.float32)
        self.column = self.element = 0

    @property
    def done(self) -> int:
        """Symbols that were drawn."""
        return self.element + self.column

    def parts(self, count: int) -> Iterator[Drawn]:
        """The next `count` symbols, in one or more parts."""
        while count:
            if self.column == self.width:
                self._move()
            part = min(count, self.width - self.column)
            yield self._next(part)
            count -= part

    def _next(self, count: int) -> Drawn:
        first, end = self.column, self.column + count
        given, known = (self._placed(value, end) for value in (self.request.given, self.request.known))
        part = cpp.Part(self.memory, first, end, self.element)
        row = cpp.run(self.program, replace(self.request, given=given, known=known), part=part)
        self.column = end
        return _each(row, lambda one: one[..., first:end].clone())

    def _placed(self, value: Tensor | None, end: int) -> Tensor | None:
        """What is given of the columns of this part, in a row of the window; None where nothing is."""
        first = self.element + self.column
        if value is None or first >= value.shape[-1]:
            return None
        placed = torch.zeros(*value.shape[:-1], self.width, dtype=value.dtype, device="cpu")
        some = value[..., first : self.element + end]
        placed[..., self.column : self.column + some.shape[-1]] = some
        return placed

    def _move(self) -> None:
        """Move the last columns to the beginning."""
        by = self.width - self.kept
        for offset, features, step, _, rows, left, size, _ in self.tables.arrays[2].tolist():
            if step == 0:  # of which a single position is kept
                continue
            for row in range(offset, offset + rows * size, size):
                columns = self.memory[:, row : row + size].reshape(len(self.memory), -1, features)
                columns[:, : left + self.kept] = columns[:, by : by + left + self.kept].copy()
                self.memory[:, row : row + size] = columns.reshape(len(self.memory), -1)
        self.column, self.element = self.kept, self.element + by


def drawn(program: Program, request: SampleRequest, device: torch.device | None = None) -> Drawn:
    """All symbols of the sequences of a request, on the CPU, through a window where that takes less memory."""
    length = program.spec.width
    if isinstance(steady(program), str) or not request.n or request.evidence is not None:
        return cpp.run(program, request)
    window = Window(program, request)
    if window.width >= length:
        return cpp.run(program, request)
    whole: Drawn | None = None
    for part in window.parts(length):
        done = window.done
        if whole is None:
            whole = _each(part, lambda one: one.new_empty(*one.shape[:-1], length))
        for to, one in zip(_maps(whole), _maps(part)):
            if one is not None:
                to[..., done - one.shape[-1] : done] = one
    assert whole is not None
    return whole


def _maps(one: Drawn) -> tuple[Any, ...]:
    return one.images, one.log_probs, one.log_evidence, one.parameters


def _each(one: Drawn, change: Callable[[Tensor], Tensor]) -> Drawn:
    images, *others = _maps(one)
    return Drawn(change(images), *(None if other is None else change(other) for other in others))
