"""A pixel program as arrays of numbers, for the kernel that interprets it."""

import numpy as np

from genfast.engine.program import ACTIVATIONS, KINDS, Program, Read

# The columns of an instruction. Masks are a modulus less one; output, cell, visible, first_read and first_add are rows
# of the places, -1 where there is none; weight and bias lie in the constants; depth is the rows of a lookup. A field
# lies from `weight` on in the constants or, where that is -1, from `bias` on in the fields of the request.
FIELDS = (
    *("kind", "count", "activation", "output", "cell", "visible"),
    *("row_mask", "row_remainder", "column_mask", "column_remainder"),
    *("shift", "first_row", "end_row", "first_column", "end_column"),
    *("first_read", "reads", "first_add", "adds", "weight", "width", "bias", "bias_step"),
    *("depth", "row_step", "column_step"),
)
# The columns of a place, which is what a read reads or an instruction writes. Position (r, c) of a buffer of stride
# 2 ** shift belongs to pixel (r << shift, c << shift); fill lies in the constants, or is -1: zeros.
PLACE = ("offset", "features", "shift", "rows", "left", "row_size", "row", "column", "feature", "count", "fill")
# Floats: what is read together begins at a multiple.
ALIGNED = 16


class Tables:
    """Attributes:
    instructions: int64 [I, FIELDS], those of `row`, then those of the lists for a pixel.
    places: int64 [P, PLACE]; from row `parameters` on those of the draws, row `image` is the levels of a pixel.
    parts: int64 [.., 3], what a row of pixels is made of: (first instruction, end, sweep). A group of `program.row` is
        run in every column before the next group; the lists for a pixel, the last parts, follow each other in a column.
    constants: float32, weights [depth, width] and [count] biases and fills.
    maps: float32, the feature maps of an image before its first pixel.
    """

    def __init__(self, program: Program):
        self._program, self._places, self._constants, self._end = program, [], [], 0
        self._buffers, maps, end = [], [], 0
        for b in program.buffers:
            positions = (b.left + b.columns + b.right) * b.rows
            values = np.zeros(b.features, np.float32) if b.fill is None else np.asarray(b.fill, np.float32)
            maps.append(_aligned(np.tile(values, positions)))
            fill = -1 if b.fill is None else self._constant(values)
            shift, row_size = b.stride.bit_length() - 1, b.features * positions // b.rows
            self._buffers.append(([end, b.features, shift, b.rows, b.left, row_size], fill))
            end += maps[-1].size
        lists = [program.row, *program.pixel]
        self.instructions = _table([self._instruction(it) for part in lists for it in part], len(FIELDS))
        self.parameters = self._add(program.parameters)
        self.image = self._write((program.image, 0), program.spec.channels)
        self.places = _table(self._places, len(PLACE))
        self.parts = np.array(_parts(program), np.int64)
        self.constants = np.concatenate([*self._constants, np.zeros(ALIGNED, np.float32)])
        self.maps = np.concatenate(maps)

    def _constant(self, values):
        self._constants.append(_aligned(np.ascontiguousarray(values, np.float32).ravel()))
        begin, self._end = self._end, self._end + self._constants[-1].size
        return begin

    def _add(self, reads):
        """The row of the first of these places."""
        for read in reads:
            buffer, fill = self._buffers[read.buffer]
            value = -1 if fill < 0 else fill + read.feature
            self._places.append([*buffer, read.row, read.column, read.feature, read.count, value])
        return len(self._places) - len(reads)

    def _write(self, place, count):
        return -1 if place is None else self._add([Read(place[0], 0, 0, place[1], count)])

    def _instruction(self, it):
        weight = width = bias = step = depth = row_step = column_step = 0
        if it.kind == "field":
            rows, columns = it.grid if it.table is None else it.table.shape[1:3]
            row_step, column_step = columns * it.count * (rows > 1), it.count * (columns > 1)
            step = rows * columns * it.count if it.table is not None and len(it.table) > 1 else 0
            weight, bias = (-1, it.offset) if it.table is None else (self._constant(it.table), 0)
        if it.weight is not None:
            width, depth = -(-it.count // ALIGNED) * ALIGNED, len(it.weight)
            weight = self._constant(np.pad(it.weight, ((0, 0), (0, width - it.count))))
        if it.bias is not None:
            bias, step = self._constant(it.bias), it.count if np.ndim(it.bias) == 2 else 0
        masks = (it.row_modulus - 1, it.row_remainder, it.column_modulus - 1, it.column_remainder)
        places = [self._write(place, it.count) for place in ((it.buffer, it.feature), it.cell, it.visible)]
        shift = self._program.buffers[it.buffer].stride.bit_length() - 1
        return [
            *(KINDS.index(it.kind), it.count, ACTIVATIONS.index(it.activation), *places, *masks, shift, *it.domain),
            *(self._add(it.reads), len(it.reads), self._add(it.adds), len(it.adds), weight, width, bias, step),
            *(depth, row_step, column_step),
        ]


def _parts(program):
    parts, at = [], 0
    while at < len(program.row):
        end, sweep = at + 1, program.row[at].sweep
        while sweep and end < len(program.row) and program.row[end].sweep == sweep:
            end += 1
        parts.append((at, end, sweep))
        at = end
    for instructions in program.pixel:
        parts.append((at, at + len(instructions), 1))
        at += len(instructions)
    return parts


def _aligned(values):
    return np.pad(values, (0, -values.size % ALIGNED))


def _table(rows, columns):
    return np.array(rows, np.int64).reshape(len(rows), columns)
