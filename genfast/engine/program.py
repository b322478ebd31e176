"""A pixel program: what a model computes for one pixel, as flat lists of instructions over cached feature maps.

Every image has its own feature maps, the buffers. A buffer holds only the last rows, and the columns to the left and to
the right of the image that are read. Position (r, c) of a buffer of stride s belongs to pixel (r s, c s).

For every row of pixels an engine runs `row` once, over the whole row; then, pixel by pixel, `pixel[0]`, draw 0,
`pixel[1]`, draw 1, ..., `pixel[draws]`. So `row` may read whole earlier rows, `pixel[k]` also the columns at the left,
and the first k draws of the present pixel. An engine runs every instruction once for every position: the work of one
forward pass for an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Likelihood

# The elementwise instructions; `Instruction` says what each computes of its operands a, b, ...
MAPS = (
    *("copy", "neg", "relu", "elu", "tanh", "sigmoid", "add", "mul", "gate", "affine", "constant"),
    *("exp", "log", "log1p", "sqrt", "reciprocal", "abs", "erf", "softplus", "max", "min", "greater", "where"),
)
KINDS = ("linear", "lstm", "lookup", "field", *MAPS, "attention")
ACTIVATIONS = ("none", "relu", "elu", "tanh", "sigmoid")
PANEL = 16  # outputs in a panel of weights
MOST_MEMORY = 256 << 20  # bytes of the keys and values of an image, of all attention of a program


@dataclass
class Buffer:
    """A feature map: `features` values at each of `columns` positions of a row.

    The last `rows` rows are kept, in a ring: row r is in slot r % rows. `left` and `right` are positions outside of the
    image; these, and all rows before the first, hold `fill` (float32 [features], None: zeros).
    """

    features: int
    columns: int
    stride: int = 1
    rows: int = 1
    left: int = 0
    right: int = 0
    fill: np.ndarray | None = None


@dataclass(frozen=True)
class Read:
    """`count` contiguous values from feature `feature` of position (r + row, c + column) on; they may span columns.

    (r, c) is the present position of the buffer: the pixel (i, j) divided by its stride, rounded down.
    """

    buffer: int
    row: int
    column: int
    feature: int
    count: int


@dataclass(frozen=True)
class Attention:
    """What an instruction "attention" looks back at: the positions of a grid, in raster order, before its own.

    Attributes:
        heads, groups: of queries, and of keys and values: head h reads group h // (heads // groups).
        depth, width: values of a key, and of a value.
        rows, columns: of the grid of positions.
        row, column: position (r, c) of the buffers is (r - row, c - column) of the grid.
        behind: position p reads the positions 0 .. p - behind.
        nan: 1 where a position that reads none is NaN, 0 where it is zero.
    """

    heads: int
    groups: int
    depth: int
    width: int
    rows: int
    columns: int
    row: int = 0
    column: int = 0
    behind: int = 0
    nan: int = 0

    @property
    def positions(self) -> int:
        """Of the grid."""
        return self.rows * self.columns

    @property
    def floats(self) -> int:
        """Numbers of all keys and values."""
        return self.groups * self.positions * (self.depth + self.width)


@dataclass
class Instruction:
    """Computes features `feature` to `feature + count - 1` of `buffer` at a position (r, c).

    Runs at pixels (i, j) with i % row_modulus == row_remainder, j % column_modulus == column_remainder (for stride s
    the modulus is a multiple of s). Where (r, c) lies outside `domain` = (first row, end row, first column, end
    column) the fill of the buffer is written instead.

    kind "linear": `activation(bias + sum over reads of weight.T @ values + sum of adds)`; weight float32
        [sum of counts of reads, count], bias float32 [count] or [classes, count], one for each label.
    kind of `MAPS`: element by element; `reads` are its operands, of `count` values each: copy(a), neg(a), relu(a),
        elu(a), tanh(a), sigmoid(a), add(a, b), mul(a, b), gate(a, b) = tanh(a) * sigmoid(b),
        affine(a) = weight[0] * a + bias (weight [1, count]), constant() = bias, exp(a), log(a), log1p(a) = log(1 + a),
        sqrt(a), reciprocal(a) = 1 / a, abs(a), erf(a), softplus(a) = log(1 + exp(a)), max(a, b), min(a, b),
        greater(a, b) = 1 where a > b else 0, where(a, b, c) = b where a is not 0 else c. Infinities and NaN are as in
        torch; the functions are within 1e-6 of it, relative to their value.
    kind "lstm": operands gates (4 * count values: i, f, g, o), cell before (count). Writes the cell state to `cell`
        (buffer, feature), the hidden state to `buffer` and a second copy of it to `visible` (buffer, feature) if that
        is given. Outside its domain it writes the fill of each of them.
    kind "lookup": row k of weight [rows, count], where k is the whole number that is its only operand (of count 1),
        rounded to the nearest and clamped to the rows there are.
    kind "field": values that are known before an image is drawn, of grid (R, C): R is 1 or the rows of the domain, C is
        1 or its columns, and (r', c') is the position less the first one of the domain, 0 where R or C is 1. The value
        is table[label or 0, r', c'] of `table`, float32 [1 or classes, R, C, count]; or, where that is None, entry
        `offset` + (r' C + c') count + feature of the fields of the request, `grid` being (R, C).
    kind "attention": operands query (heads * depth), key (groups * depth) and value (groups * width) of the present
        position, see `Attention`; those of other positions lie as far from them as the positions do, and are all kept.
        For each head, where t runs over the positions that position p reads: scores s = query . key_t + table[0, h, p,
        t], the exact maximum m of them, e = exp(s - m), the result (sum of e * table[1, h, p, t] * value_t) / (sum of
        e). `table`, float32 [1 or 2, 1 or heads, positions, positions] or None, is 0 and 1 where it is not given; a
        score of minus infinity is of a position that is not read. query . key and the sum over values are in four
        chains each, as below, from zero and over all t; in the sum of e number t goes to lane t % 16, each lane
        ascending, then the lanes are added in halves: lane k and k + 8, 4, 2, 1.

    Summation order, which every engine on the CPU keeps: four chains, value k of a read goes to chain k % 4 by a fused
    multiply-add, chain 0 starts at the bias; the sum is (chain 0 + chain 1) + (chain 2 + chain 3), then the adds.

    `sweep`: consecutive instructions of `row` with the same sweep run column by column, +1 from the left or -1 from the
    right. 0: an instruction runs over the whole row.
    """

    kind: str
    buffer: int
    feature: int
    count: int
    domain: tuple[int, int, int, int]
    reads: list[Read] = field(default_factory=list)
    weight: np.ndarray | Any = None
    bias: np.ndarray | Any = None
    adds: list[Read] = field(default_factory=list)
    activation: str = "none"
    row_modulus: int = 1
    row_remainder: int = 0
    column_modulus: int = 1
    column_remainder: int = 0
    sweep: int = 0
    cell: tuple[int, int] | None = None
    visible: tuple[int, int] | None = None
    table: np.ndarray | Any = None
    offset: int = 0
    grid: tuple[int, int] = (1, 1)
    attention: Attention | None = None


@dataclass
class Program:
    """Instructions that draw images.

    Attributes:
        spec: of the images.
        likelihood: of the values of a pixel.
        columns: of the grid that is computed; those beyond the width are virtual: no pixel is drawn there.
        scale, shift: level v enters buffer `image` as float32(float32(v * scale) + shift).
        image: the buffer of the image, one feature a channel.
        buffers: see `Buffer`.
        row: instructions at the start of a row.
        pixel: draws + 1 lists of instructions.
        parameters: one read for each draw (row 0, column 0): the parameters of the likelihood for it.
        fields: values that a request must give for each image, see the kind "field".
        prepared: cache of what an engine prepared from the program, by the name of the engine.
    """

    spec: ImageSpec
    likelihood: Likelihood
    columns: int
    scale: float
    shift: float
    image: int
    buffers: list[Buffer]
    row: list[Instruction]
    pixel: list[list[Instruction]]
    parameters: list[Read]
    fields: int = 0
    prepared: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """A copy is another program: what was prepared from this one is not of it."""
        return vars(self) | {"prepared": {}}

    @property
    def draws(self) -> int:
        """Draws of a pixel."""
        return len(self.parameters)

    def check(self) -> None:
        """Raise ValueError for an instruction that does not fit its buffers or constants: engines do not check."""
        self._check_read("image", Read(self.image, 0, 0, 0, self.spec.channels), range(self.columns))
        for read in self.parameters:
            self._check_read("parameters", read, range(self.spec.width))
        for it in (it for part in (self.row, *self.pixel) for it in part):
            written = range(it.column_remainder, self.columns, it.column_modulus)
            for place in ((it.buffer, it.feature), it.cell, it.visible):
                if place:
                    self._check_read(it.kind, Read(place[0], 0, 0, place[1], it.count), written)
            stride, (_, _, *ends) = self.buffers[it.buffer].stride, it.domain
            first, end = (max(0, -((it.column_remainder - stride * at) // it.column_modulus)) for at in ends)
            computed = written[first:end]
            for read in (*it.reads, *it.adds):
                self._check_read(it.kind, read, computed)
            self._check_constants(it)
        self._check_sweeps()

    def check_fields(self, fields: Tensor | None, n: int) -> None:
        """Raise ValueError where the fields of a request for n images are not those that the program reads."""
        got = None if fields is None else tuple(fields.shape)
        expected = (n, self.fields) if self.fields else None
        if got != expected:
            raise ValueError(f"sample: fields must have shape {expected}; got {got}")

    def _check_constants(self, it: Instruction) -> None:
        if it.kind == "field":
            self._check_field(it)
            return
        if it.kind == "attention":
            self._check_attention(it)
            return
        depth = sum(read.count for read in it.reads) if it.kind == "linear" else 1
        if it.kind == "lookup":
            counts, depth = [read.count for read in it.reads], len(it.weight)
            if counts != [1] or not depth:
                raise ValueError(
                    f"lookup: expected one operand of count 1, and rows; got counts {counts}, {depth} rows"
                )
        if it.weight is not None and it.weight.shape != (depth, it.count):
            raise ValueError(f"{it.kind}: weight must have shape {(depth, it.count)}; got {it.weight.shape}")
        shapes = [(it.count,), (self.spec.classes, it.count)]
        if it.bias is not None and it.bias.shape not in shapes:
            raise ValueError(f"{it.kind}: bias must have shape {shapes[0]} or {shapes[1]}; got {it.bias.shape}")

    def _check_field(self, it: Instruction) -> None:
        rows, columns = it.domain[1] - it.domain[0], it.domain[3] - it.domain[2]
        grid, tables = it.grid, (1, self.spec.classes or 1)
        if it.table is not None:
            grid = it.table.shape[1:3]
            if it.table.ndim != 4 or it.table.shape[0] not in tables or it.table.shape[3] != it.count:
                expected = f"{tables[0]} or {tables[1]}, rows, columns, {it.count}"
                raise ValueError(f"field: table must have shape [{expected}]; got {it.table.shape}")
        elif not 0 <= it.offset <= self.fields - grid[0] * grid[1] * it.count:
            end = it.offset + grid[0] * grid[1] * it.count
            raise ValueError(f"field: it must lie in the {self.fields} fields of a request; got {it.offset} to {end}")
        if grid[0] not in (1, rows) or grid[1] not in (1, columns):
            raise ValueError(f"field: grid must be (1 or {rows}, 1 or {columns}), as the domain; got {tuple(grid)}")

    def _check_attention(self, it: Instruction) -> None:
        a = it.attention
        if a is None:
            raise ValueError("attention: expected what it looks back at; got None")
        counts, got = [a.heads * a.depth, a.groups * a.depth, a.groups * a.width], [read.count for read in it.reads]
        if got != counts or it.count != a.heads * a.width or a.heads % a.groups:
            raise ValueError(f"attention: counts must be {counts} for {a}; got {got}, {it.count}")
        tables = [(k, heads, a.positions, a.positions) for k in (1, 2) for heads in (1, a.heads)]
        if it.table is not None and it.table.shape not in tables:
            raise ValueError(f"attention: table must have one of the shapes {tables}; got {it.table.shape}")
        first, end = (a.row, a.column), (a.row + a.rows, a.column + a.columns)
        if not all(a <= b and c <= d for a, b, c, d in zip(first, it.domain[::2], it.domain[1::2], end)):
            raise ValueError(f"attention: domain must lie in the grid {first} .. {end}; got {it.domain}")
        for read in it.reads[1:]:
            buffer = self.buffers[read.buffer]
            at = buffer.left + a.column + read.column, a.row + read.row
            fits = 0 <= at[0] <= buffer.left + buffer.columns + buffer.right - a.columns and at[1] >= 0
            features = read.feature + read.count <= buffer.features
            if not fits or not features or buffer.rows < a.rows or buffer.stride != self.buffers[it.buffer].stride:
                shown = replace(buffer, fill=None)
                raise ValueError(f"attention: keys and values must lie in buffer {read.buffer}, {shown}; got {read}")

    @property
    def attention_bytes(self) -> int:
        """What the keys and values of an image take."""
        lists = (self.row, *self.pixel)
        return 4 * sum(it.attention.floats for part in lists for it in part if it.attention is not None)

    def _check_sweeps(self) -> None:
        """A sweep may read only columns behind it of the row that it writes."""
        for sweep, instructions in groupby(self.row, key=lambda it: it.sweep):
            group = list(instructions)
            places = [place for it in group for place in ((it.buffer, 0), it.cell, it.visible) if place]
            written = {buffer for buffer, _ in places}
            for read in (read for it in group if sweep for read in (*it.reads, *it.adds)):
                last = read.column + (read.feature + read.count - 1) // self.buffers[read.buffer].features
                ahead = last > 0 if sweep > 0 else read.column < 0
                if read.buffer in written and read.row == 0 and ahead:
                    raise ValueError(f"sweep {sweep}: a read of its own row must lie behind it; got {read}")

    def _check_read(self, kind: str, read: Read, columns: Sequence[int]) -> None:
        b = self.buffers[read.buffer]
        inside = -b.rows < read.row <= 0 <= read.feature < b.features
        for j in (*columns[:1], *columns[-1:]):
            first = (b.left + j // b.stride + read.column) * b.features + read.feature
            inside &= 0 <= first and first + read.count <= (b.left + b.columns + b.right) * b.features
        if not inside:
            shown = replace(b, fill=None)
            raise ValueError(f"{kind}: a position must lie inside buffer {read.buffer}, {shown}; got {read}")


@dataclass
class Drawn:
    """What an engine returns for n images; None for what the request does not want.

    Attributes:
        images: levels [n, C, H, W], of the dtype of the program's `ImageSpec`.
        log_probs: float64 [n, draws, H, W], log p(value | past) in nats, at temperature 1, of what was drawn or given.
        log_evidence: float64 [n, draws, H, W], log of the sum over the levels of probability times evidence.
        parameters: float32 [n, P, H, W], the parameters of all draws, one after the other.
    """

    images: Tensor
    log_probs: Tensor | Any = None
    log_evidence: Tensor | Any = None
    parameters: Tensor | Any = None
