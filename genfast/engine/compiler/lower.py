"""Steps with their places in time, written as the instructions of a program."""

from itertools import product

import numpy as np

from genfast.engine.compiler.plan import NotIncremental, inside, reached, reads
from genfast.engine.compiler.schedule import stored
from genfast.engine.program import Buffer, Instruction, Read

GAP = 16  # values that a read takes along with weight zero rather than end
RUNS = 4  # instructions into which one is split rather than copy by a product with the identity


class Lowering:
    """Buffers and instructions of a graph.

    Every step has a buffer (a scan also one for its gates and one for its cells) in which the features stand by their
    level, so that what is known of the present pixel is a beginning of it.
    """

    def __init__(self, graph, places, draws):
        self.graph, self.places = graph, places
        self.height, self.width = graph.domain[1], graph.domain[3]
        self.columns = self.width
        self.buffers, self.row, self.pixel = [], [], [[] for _ in range(draws + 1)]
        self.buffer, self.visible, self.order, self.position = {}, {}, {}, {}
        for step in graph.steps:
            self._check(step)
        wanted = {operand.view.step: operand.features for operand in graph.outputs}
        for step in graph.steps:
            order = wanted.get(step)
            self.order[step] = np.argsort(places[step].levels, kind="stable") if order is None else order
            self.position[step] = np.argsort(self.order[step])
            self.buffer[step] = self._add_buffer(step, step.count, step.outside and step.outside[0][self.order[step]])
        for step in graph.steps:
            if step.kind != "image":
                (self._scan if step.kind == "scan" else self._step)(step)
        self._measure()

    def _check(self, step):
        place, (_, _, c0, c1) = self.places[step], step.domain
        if step.domain[0] + place.row < 0 or c0 + place.column < 0:
            raise NotIncremental(
                f"sample: {step.where} cannot be run pixel by pixel: it is needed before the first row or column"
            )
        self.columns = max(self.columns, (c1 - 1 + place.column) * step.stride + 1)

    def _add_buffer(self, step, features, fill=None):
        fill = None if fill is None or not fill.any() else fill.astype(np.float32)
        self.buffers.append(Buffer(features, 0, step.stride, fill=fill))
        return len(self.buffers) - 1

    def _domain(self, step):
        place, (r0, r1, c0, c1) = self.places[step], step.domain
        rows = -(-self.height // step.stride)
        return r0 + place.row, min(r1 + place.row, rows), c0 + place.column, c1 + place.column

    def _source(self, view):
        """The buffer in which others find a step."""
        return self.visible.get(view.step, self.buffer[view.step])

    def _emit(self, step, level, instructions):
        if not self.places[step].above:
            self.pixel[level] += instructions
            return
        for instruction in instructions:
            instruction.sweep = step.sweep
        self.row += instructions

    def _groups(self, step):
        """(level, first and end place in the buffer) of the features of each level."""
        levels = self.places[step].levels[self.order[step]]
        for level in np.unique(levels):
            first, end = np.searchsorted(levels, [level, level + 1])
            yield int(level), int(first), int(end)

    def _step(self, step):
        for level, first, end in self._groups(step):
            if step.kind == "linear":
                for phase in product(range(step.upsample), repeat=2):
                    self._emit(step, level, self._linear(step, phase, first, end))
            else:
                self._emit(step, level, self._map(step, first, end))

    def _instruction(self, step, kind, feature, count, **fields):
        made = Instruction(kind, self.buffer[step], feature, count, self._domain(step), **fields)
        made.row_modulus = made.column_modulus = step.stride
        return made

    def _read(self, step, operand, first, count):
        """The `count` values of an operand, whose first has the place `first`."""
        row, column, *_ = stored(step, operand.view, None, self.places)
        return Read(self._source(operand.view), row, column, int(first), count)

    def _map(self, step, first, end):
        """One instruction for every stretch in which the features of all operands follow one another."""
        chosen = self.order[step][first:end]
        places = [self.position[o.view.step][o.features[chosen]] for o in step.operands]
        made = []
        for a, b in _stretches(places, len(chosen)):
            operands = [self._read(step, o, p[a], b - a) for o, p in zip(step.operands, places)]
            one = self._instruction(step, step.kind, first + a, b - a, reads=operands)
            if step.kind in ("affine", "constant"):
                one.bias = np.ascontiguousarray(step.bias[..., chosen[a:b]], np.float32)
            if step.kind == "affine":
                one.weight = np.ascontiguousarray(step.weight[None, chosen[a:b]], np.float32)
                if not one.bias.any() and abs(one.weight).min() == 1 and len(np.unique(one.weight)) == 1:
                    one.kind, one.bias = "copy" if one.weight[0, 0] == 1 else "neg", None
                    one.weight = None
            made.append(one)
        return made

    def _linear(self, step, phase, first, end):
        chosen = self.order[step][first:end]
        places = [self.position[o.view.step][o.features[chosen]] for o in step.operands]
        stretches = list(_stretches(places, len(chosen)))
        copied = len(stretches) > RUNS
        made = []
        for a, b in [(0, len(chosen))] if copied else stretches:
            outputs = chosen[a:b]
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
            made.append(one)
        return made

    def _phase(self, step, phase, instruction):
        u, place = step.upsample, self.places[step]
        if u > 1:
            instruction.row_modulus = instruction.column_modulus = u * step.stride
            instruction.row_remainder = (phase[0] + place.row) % u * step.stride
            instruction.column_remainder = (phase[1] + place.column) % u * step.stride

    def _spans(self, step, phase, outputs):
        """What the outputs of a linear step read: (buffer, row, column) -> weights [features in place, outputs]."""
        spans = {}
        for tap, weight in step.taps.items():
            if tap.phase == phase:
                row, column, *_ = stored(step, tap.view, tap.phase, self.places)
                table = self._table(spans, tap.view, row, column, len(outputs))
                table += weight[self.order[tap.view.step]][:, outputs]
        return spans

    def _table(self, spans, view, row, column, outputs):
        key = self._source(view), row, column
        return spans.setdefault(key, np.zeros((view.step.count, outputs), np.float32))

    def _merged(self, spans, outputs):
        """Reads that go on over neighbouring columns, and their weights one below the other."""
        made, weights = [], []
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
                made.append(Read(buffer, row, columns[0] + column, feature, int(b - a) + 1))
                weights.append(line[a : b + 1])
        weight = np.concatenate(weights) if weights else np.zeros((0, outputs), np.float32)
        return made, np.ascontiguousarray(weight)

    def _scan(self, step):
        """Gates and LSTM of every group of units."""
        hidden, order = self.buffer[step], self.order[step]
        gates, cell = self._add_buffer(step, 4 * step.count), self._add_buffer(step, step.count, step.outside[1][order])
        if self.buffers[hidden].fill is not None and self._read_outside(step):
            self.visible[step] = self._add_buffer(step, step.count)
        for level, first, end in self._groups(step):
            n = end - first
            outputs = np.concatenate([q * step.count + order[first:end] for q in range(4)])
            spans = self._spans(step, (0, 0), outputs)
            for row, column, weight in step.recurrent:
                spans[hidden, row, column] = weight[order][:, outputs]
            for operand in step.operands:
                row, column, *_ = stored(step, operand.view, None, self.places)
                table = self._table(spans, operand.view, row, column, 4 * n)
                np.add.at(table, (self.position[operand.view.step][operand.features[outputs]], np.arange(4 * n)), 1)
            linear = self._instruction(step, "linear", 4 * first, 4 * n)
            linear.buffer = gates
            linear.reads, linear.weight = self._merged(spans, 4 * n)
            linear.bias = np.ascontiguousarray(step.bias[..., outputs], np.float32)
            before = Read(cell, *step.cell, first, n)
            lstm = self._instruction(step, "lstm", first, n, reads=[Read(gates, 0, 0, 4 * first, 4 * n), before])
            lstm.cell = cell, first
            lstm.visible = (self.visible[step], first) if step in self.visible else None
            self._emit(step, level, [linear, lstm])

    def _read_outside(self, step):
        for reader in self.graph.steps:
            for view, phase in reads(reader):
                rectangle = reached(reader, view, phase)
                if view.step is step and rectangle and not inside(rectangle, step.domain):
                    return True
        return False

    def _measure(self):
        """Give the buffers the rows and columns that are read."""
        for instruction in [*self.row, *(one for pixel in self.pixel for one in pixel)]:
            for read in (*instruction.reads, *instruction.adds):
                buffer = self.buffers[read.buffer]
                last = read.column + (read.feature + read.count - 1) // buffer.features
                buffer.rows = max(buffer.rows, 1 - read.row)
                buffer.left, buffer.right = max(buffer.left, -read.column), max(buffer.right, last)
        for buffer in self.buffers:
            buffer.columns = -(-self.columns // buffer.stride)

    def parameters(self):
        return [Read(self.buffer[o.view.step], 0, 0, 0, len(o.features)) for o in self.graph.outputs]


def _stretches(places, count):
    """(first, end) of the stretches of 0 .. count - 1 in which every list of places counts up by one."""
    whole = np.ones(max(0, count - 1), bool)
    for place in places:
        whole &= np.diff(place) == 1
    bounds = [0, *(np.flatnonzero(~whole) + 1), count]
    return [(int(a), int(b)) for a, b in zip(bounds, bounds[1:])]
