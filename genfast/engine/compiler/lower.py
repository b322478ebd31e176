"""Scheduled steps, lowered to the buffers and instructions of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from genfast.engine.compiler.known import Source
from genfast.engine.compiler.plan import (
    Graph,
    NotIncremental,
    Operand,
    Phase,
    Rectangle,
    Step,
    View,
    inside,
    reached,
    reads,
)
from genfast.engine.compiler.schedule import Places, stored
from genfast.engine.program import Attention, Buffer, Instruction, Read

# (buffer, row, column) -> weights [features of the buffer, outputs].
Spans = dict[tuple[int, int, int], np.ndarray]
GAP = 16  # longest run of values with weight zero that a read includes, instead of being split in two
RUNS = 4  # most instructions into which one is split; beyond, operands are added by a product with the identity


class Lowering:
    """Buffers and instructions of a graph.

    Every step has a buffer; a scan has two more, for its gates and its cells. The features of a buffer are ordered by
    stage, so those that are known at a stage of the present pixel come first.
    """

    def __init__(self, graph: Graph, places: Places, draws: int) -> None:
        self.graph, self.places = graph, places
        self.height, self.width = graph.domain[1], graph.domain[3]
        self.columns = self.width
        self.buffers: list[Buffer] = []
        self.row: list[Instruction] = []
        self.pixel: list[list[Instruction]] = [[] for _ in range(draws + 1)]
        self.buffer: dict[Step, int] = {}
        self.visible: dict[Step, int] = {}
        # What is computed of each image before it is drawn, and how many numbers that is.
        self.sources: list[tuple[Source, Callable[[np.ndarray], np.ndarray]]] = []
        self.fields = 0
        # Of each step: the feature at each place of its buffer, and the place of each feature.
        self.order: dict[Step, np.ndarray] = {}
        self.position: dict[Step, np.ndarray] = {}
        for step in graph.steps:
            self._check(step)
        attended = (operand for step in graph.steps if step.attention is not None for operand in step.operands)
        wanted = {operand.view.step: operand.features for operand in (*graph.outputs, *attended)}
        for step in graph.steps:
            order = wanted.get(step)
            self.order[step] = np.argsort(places[step].stages, kind="stable") if order is None else order
            self.position[step] = np.argsort(self.order[step])
            self.buffer[step] = self._add_buffer(step, step.count, step.outside and step.outside[0][self.order[step]])
        for step in graph.steps:
            if step.kind != "image":
                (self._scan if step.kind == "scan" else self._step)(step)
        self._measure()

    def _check(self, step: Step) -> None:
        place, (_, _, c0, c1) = self.places[step], step.domain
        if step.domain[0] + place.row < 0 or c0 + place.column < 0:
            raise NotIncremental(
                f"sample: {step.where} cannot be run pixel by pixel: it is needed before the first row or column"
            )
        self.columns = max(self.columns, (c1 - 1 + place.column) * step.stride + 1)

    def _add_buffer(self, step: Step, features: int, fill: np.ndarray | None = None) -> int:
        fill = None if fill is None or not fill.any() else fill.astype(np.float32)
        self.buffers.append(Buffer(features, 0, step.stride, fill=fill))
        return len(self.buffers) - 1

    def _domain(self, step: Step) -> Rectangle:
        place, (r0, r1, c0, c1) = self.places[step], step.domain
        rows = -(-self.height // step.stride)
        return r0 + place.row, min(r1 + place.row, rows), c0 + place.column, c1 + place.column

    def _source(self, view: View) -> int:
        """The buffer from which other steps read a step."""
        return self.visible.get(view.step, self.buffer[view.step])

    def _emit(self, step: Step, stage: int, instructions: list[Instruction]) -> None:
        if not self.places[step].above:
            self.pixel[stage] += instructions
            return
        for instruction in instructions:
            instruction.sweep = step.sweep
        self.row += instructions

    def _groups(self, step: Step) -> Iterator[tuple[int, int, int]]:
        """(stage, first and end place in the buffer) of the features of each stage."""
        stages = self.places[step].stages[self.order[step]]
        for stage in np.unique(stages):
            first, end = np.searchsorted(stages, [stage, stage + 1])
            yield int(stage), int(first), int(end)

    def _step(self, step: Step) -> None:
        for stage, first, end in self._groups(step):
            if step.attention is not None:
                self._emit(step, stage, [self._attention(step, step.attention)])
            elif step.kind == "linear":
                for phase in product(range(step.upsample), range(step.upsample)):
                    self._emit(step, stage, self._linear(step, phase, first, end))
            else:
                self._emit(step, stage, self._map(step, first, end))

    def _instruction(self, step: Step, kind: str, feature: int, count: int, **fields: Any) -> Instruction:
        instruction = Instruction(kind, self.buffer[step], feature, count, self._domain(step), **fields)
        instruction.row_modulus = instruction.column_modulus = step.stride
        return instruction

    def _read(self, step: Step, operand: Operand, first: int, count: int) -> Read:
        """The read of `count` values of an operand, from the place `first` of its buffer on."""
        row, column, *_ = stored(step, operand.view, None, self.places)
        return Read(self._source(operand.view), row, column, int(first), count)

    def _map(self, step: Step, first: int, end: int) -> list[Instruction]:
        """One instruction for every run in which the features of all operands are contiguous."""
        features = self.order[step][first:end]
        if step.kind == "field":
            return [self._field(step, first, features)]
        places = [self.position[o.view.step][o.features[features]] for o in step.operands]
        if step.kind == "lookup":
            return [self._lookup(step, first + a, features[a:b], places[0][a]) for a, b in _equal(places[0])]
        instructions = []
        for a, b in _runs(places, len(features)):
            operands = [self._read(step, o, p[a], b - a) for o, p in zip(step.operands, places)]
            one = self._instruction(step, step.kind, first + a, b - a, reads=operands)
            if step.kind in ("affine", "constant"):
                one.bias = np.ascontiguousarray(step.bias[..., features[a:b]], np.float32)
            if step.kind == "affine":
                one.weight = np.ascontiguousarray(step.weight[None, features[a:b]], np.float32)
                if not one.bias.any() and abs(one.weight).min() == 1 and len(np.unique(one.weight)) == 1:
                    one.kind, one.bias = "copy" if one.weight[0, 0] == 1 else "neg", None
                    one.weight = None
            instructions.append(one)
        return instructions

    def _attention(self, step: Step, attention: Attention) -> Instruction:
        one, place = self._instruction(step, "attention", 0, step.count), self.places[step]
        one.reads = [self._read(step, operand, 0, len(operand.features)) for operand in step.operands]
        # The operands are views of the nearest position that is read.
        one.reads[1:] = [replace(read, column=read.column + attention.behind) for read in one.reads[1:]]
        one.attention = replace(attention, row=place.row, column=place.column)
        one.table = step.table
        return one

    def _lookup(self, step: Step, first: int, features: np.ndarray, place: int) -> Instruction:
        """A table for features that depend on the same value."""
        read = self._read(step, step.operands[0], place, 1)
        weight = np.ascontiguousarray(step.weight[features].T, np.float32)
        return self._instruction(step, "lookup", first, len(features), reads=[read], weight=weight)

    def _field(self, step: Step, first: int, features: np.ndarray) -> Instruction:
        one = self._instruction(step, "field", first, len(features))
        place, at = self.places[step], step.grid
        r0, r1, c0, c1 = one.domain
        # The part of the first domain that is still computed.
        rows = slice(r0 - place.row - at[0], r1 - place.row - at[0]) if step.bias.shape[1] > 1 else slice(None)
        columns = slice(c0 - place.column - at[2], c1 - place.column - at[2]) if step.bias.shape[2] > 1 else slice(None)
        table = np.ascontiguousarray(step.bias[:, rows, columns][..., features], np.float32)
        if step.source is None:
            one.table = table
            return one
        kept = step.weight[features]
        one.offset, one.grid = self.fields, (table.shape[1], table.shape[2])
        self.fields += table[0].size
        self.sources.append((step.source, lambda values: values[:, rows, columns][..., kept]))
        return one

    def _linear(self, step: Step, phase: Phase, first: int, end: int) -> list[Instruction]:
        features = self.order[step][first:end]
        places = [self.position[o.view.step][o.features[features]] for o in step.operands]
        runs = list(_runs(places, len(features)))
        copied = len(runs) > RUNS
        instructions = []
        for a, b in [(0, len(features))] if copied else runs:
            outputs = features[a:b]
            spans = self._spans(step, phase, outputs)
            adds = []
            for operand, p in zip(step.operands, places):
                if copied:
                    row, column, *_ = stored(step, operand.view, None, self.places)
                    table = self._table(spans, operand.view, row, column, b - a)
                    np.add.at(table, (p[a:b], np.arange(b - a)), 1)
                else:
                    adds.append(self._read(step, operand, p[a], b - a))
            one = self._instruction(step, "linear", first + a, b - a, activation=step.activation, adds=adds)
            one.reads, one.weight = self._merged(spans, b - a)
            one.bias = np.ascontiguousarray(step.bias[..., outputs], np.float32)
            self._phase(step, phase, one)
            instructions.append(one)
        return instructions

    def _phase(self, step: Step, phase: Phase, instruction: Instruction) -> None:
        u, place = step.upsample, self.places[step]
        if u > 1:
            instruction.row_modulus = instruction.column_modulus = u * step.stride
            instruction.row_remainder = (phase[0] + place.row) % u * step.stride
            instruction.column_remainder = (phase[1] + place.column) % u * step.stride

    def _spans(self, step: Step, phase: Phase, outputs: np.ndarray) -> Spans:
        """What the outputs of a linear step read, with the weights."""
        spans: Spans = {}
        for tap, weight in step.taps.items():
            if tap.phase == phase:
                row, column, *_ = stored(step, tap.view, tap.phase, self.places)
                table = self._table(spans, tap.view, row, column, len(outputs))
                table += weight[self.order[tap.view.step]][:, outputs]
        return spans

    def _table(self, spans: Spans, view: View, row: int, column: int, outputs: int) -> np.ndarray:
        key = self._source(view), row, column
        return spans.setdefault(key, np.zeros((view.step.count, outputs), np.float32))

    def _merged(self, spans: Spans, outputs: int) -> tuple[list[Read], np.ndarray]:
        """The reads, merged over neighbouring columns, and their weights, concatenated."""
        merged, weights = [], []
        for buffer, row in sorted({key[:2] for key in spans}):
            columns = sorted(key[2] for key in spans if key[:2] == (buffer, row))
            features = self.buffers[buffer].features
            line = np.zeros(((columns[-1] - columns[0] + 1) * features, outputs), np.float32)
            for column in columns:
                start = (column - columns[0]) * features
                line[start : start + features] = spans[buffer, row, column]
            at = np.flatnonzero(line.any(1))
            if not len(at):
                continue
            breaks = np.flatnonzero(np.diff(at) > GAP)
            for a, b in zip([at[0], *at[breaks + 1]], [*at[breaks], at[-1]]):
                column, feature = divmod(int(a), features)
                merged.append(Read(buffer, row, columns[0] + column, feature, int(b - a) + 1))
                weights.append(line[a : b + 1])
        weight = np.concatenate(weights) if weights else np.zeros((0, outputs), np.float32)
        return merged, np.ascontiguousarray(weight)

    def _scan(self, step: Step) -> None:
        """The instructions of a recurrent layer, for the units of every stage."""
        lower = {"lstm": self._lstm, "gru": self._gru}.get(step.unit, self._plain)
        if step.unit == "lstm":
            self._add_buffer(step, 4 * step.count)
            self._add_buffer(step, step.count, step.outside[1][self.order[step]])
        elif step.unit == "gru":
            self._add_buffer(step, 4 * step.count)
            self._add_buffer(step, 4 * step.count)
        first_of_own = len(self.buffers) - 2
        if self.buffers[self.buffer[step]].fill is not None and self._read_outside(step):
            self.visible[step] = self._add_buffer(step, step.count)
        for stage, first, end in self._groups(step):
            instructions = lower(step, first, end, first_of_own)
            if step in self.visible and step.unit != "lstm":
                read = Read(self.buffer[step], 0, 0, first, end - first)
                copy = self._instruction(step, "copy", first, end - first, reads=[read])
                copy.buffer = self.visible[step]
                instructions.append(copy)
            self._emit(step, stage, instructions)

    def _lstm(self, step: Step, first: int, end: int, gates: int) -> list[Instruction]:
        n, cell = end - first, gates + 1
        linear = self._gates(step, gates, 4 * first, self._outputs(step, first, end, range(4)))
        before = Read(cell, *step.cell, first, n)
        lstm = self._instruction(step, "lstm", first, n, reads=[Read(gates, 0, 0, 4 * first, 4 * n), before])
        lstm.cell = cell, first
        lstm.visible = (self.visible[step], first) if step in self.visible else None
        return [linear, lstm]

    def _plain(self, step: Step, first: int, end: int, _: int) -> list[Instruction]:
        linear = self._gates(step, self.buffer[step], first, self._outputs(step, first, end, range(1)))
        linear.activation = step.unit
        return [linear]

    def _gru(self, step: Step, first: int, end: int, gates: int) -> list[Instruction]:
        """h = z h' + (1 - z) n, where 1 - z is a sigmoid too."""
        n, at, inner = end - first, 4 * first, gates + 1
        closed = self._gates(step, gates, at, self._outputs(step, first, end, (0, 1, 1)))
        closed.weight[:, 2 * n :] *= -1
        closed.bias[2 * n :] *= -1
        closed.activation = "sigmoid"
        r, z, rest = (Read(gates, 0, 0, at + k * n, n) for k in range(3))
        new = self._outputs(step, first, end, range(2, 3))
        spans: Spans = {}
        for row, column, weight in step.recurrent:
            spans[self.buffer[step], row, column] = weight[self.order[step]][:, new]
        bias = np.ascontiguousarray(step.weight[self.order[step][first:end]], np.float32)
        hidden = self._into(step, gates, "linear", at + 3 * n, n, bias=bias)
        hidden.reads, hidden.weight = self._merged(spans, n)
        parts = [Read(inner, 0, 0, at + k * n, n) for k in range(4)]
        reset = self._into(step, inner, "mul", at, n, reads=[r, Read(gates, 0, 0, at + 3 * n, n)])
        candidate = self._gates(step, inner, at + n, new, own=False)
        candidate.adds, candidate.activation = [parts[0]], "tanh"
        before = Read(self.buffer[step], *step.cell, first, n)
        kept = self._into(step, inner, "mul", at + 2 * n, n, reads=[z, before])
        mixed = self._into(step, inner, "mul", at + 3 * n, n, reads=[rest, parts[1]])
        total = self._instruction(step, "add", first, n, reads=parts[2:])
        return [closed, hidden, reset, candidate, kept, mixed, total]

    def _outputs(self, step: Step, first: int, end: int, gates: Iterable[int]) -> np.ndarray:
        """The outputs that are these gates of the units at the places first .. end - 1."""
        return np.concatenate([gate * step.count + self.order[step][first:end] for gate in gates])

    def _into(self, step: Step, buffer: int, kind: str, feature: int, count: int, **fields: Any) -> Instruction:
        instruction = self._instruction(step, kind, feature, count, **fields)
        instruction.buffer = buffer
        return instruction

    def _gates(self, step: Step, buffer: int, feature: int, outputs: np.ndarray, own: bool = True) -> Instruction:
        """Gates of a scan, written to `buffer`; with what its own hidden states give if `own`."""
        spans, count = self._spans(step, (0, 0), outputs), len(outputs)
        for row, column, weight in step.recurrent if own else ():
            spans[self.buffer[step], row, column] = weight[self.order[step]][:, outputs]
        for operand in step.operands:
            row, column, *_ = stored(step, operand.view, None, self.places)
            table = self._table(spans, operand.view, row, column, count)
            np.add.at(table, (self.position[operand.view.step][operand.features[outputs]], np.arange(count)), 1)
        linear = self._into(step, buffer, "linear", feature, count)
        linear.reads, linear.weight = self._merged(spans, count)
        linear.bias = np.ascontiguousarray(step.bias[..., outputs], np.float32)
        return linear

    def _read_outside(self, step: Step) -> bool:
        for reader in self.graph.steps:
            for view, phase in reads(reader):
                rectangle = reached(reader, view, phase)
                if view.step is step and rectangle and not inside(rectangle, step.domain):
                    return True
        return False

    def _measure(self) -> None:
        """Size the buffers by the rows and columns that are read."""
        for instruction in [*self.row, *(one for pixel in self.pixel for one in pixel)]:
            for read in (*instruction.reads, *instruction.adds):
                buffer = self.buffers[read.buffer]
                last = read.column + (read.feature + read.count - 1) // buffer.features
                buffer.rows = max(buffer.rows, 1 - read.row)
                buffer.left, buffer.right = max(buffer.left, -read.column), max(buffer.right, last)
            for read in instruction.reads[1:] if instruction.attention else ():
                buffer = self.buffers[read.buffer]
                buffer.rows = max(buffer.rows, -(-self.height // buffer.stride))
        for buffer in self.buffers:
            buffer.columns = -(-self.columns // buffer.stride)

    def parameters(self) -> list[Read]:
        """The read of the parameters of each draw."""
        return [Read(self.buffer[o.view.step], 0, 0, 0, len(o.features)) for o in self.graph.outputs]


def _equal(places: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of the maximal runs of equal places."""
    bounds = [0, *(np.flatnonzero(np.diff(places)) + 1), len(places)]
    return [(int(a), int(b)) for a, b in zip(bounds, bounds[1:])]


def _runs(places: list[np.ndarray], count: int) -> list[tuple[int, int]]:
    """(first, end) of the maximal runs of 0 .. count - 1 in which every list of places increases by one."""
    whole = np.ones(max(0, count - 1), bool)
    for place in places:
        whole &= np.diff(place) == 1
    bounds = [0, *(np.flatnonzero(~whole) + 1), count]
    return [(int(a), int(b)) for a, b in zip(bounds, bounds[1:])]
