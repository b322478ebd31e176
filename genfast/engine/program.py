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
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Likelihood

# The elementwise instructions; `Instruction` says what each computes of its operands a, b, ...
MAPS = ("copy", "neg", "relu", "elu", "tanh", "sigmoid", "add", "mul", "gate", "affine", "constant")
ACTIVATIONS = ("none", "relu", "elu", "tanh", "sigmoid")
PANEL = 16  # outputs in a panel of weights


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
        affine(a) = weight[0] * a + bias (weight [1, count]), constant() = bias.
    kind "lstm": operands gates (4 * count values: i, f, g, o), cell before (count). Writes the cell state to `cell`
        (buffer, feature), the hidden state to `buffer` and a second copy of it to `visible` (buffer, feature) if that
        is given. Outside its domain it writes the fill of each of them.

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
    prepared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def draws(self) -> int:
        """Draws of a pixel."""
        return len(self.parameters)

    def check(self) -> None:
        """Raise ValueError for an instruction that reads or writes outside its buffers: engines do not check."""
        self._check_read("image", Read(self.image, 0, 0, 0, self.spec.channels), range(self.columns))
        for read in self.parameters:
            self._check_read("parameters", read, range(self.spec.width))
        for it in (it for part in (self.row, *self.pixel) for it in part):
            written = range(it.column_remainder, self.columns, it.column_modulus)
            for place in ((it.buffer, it.feature), it.cell, it.visible):
                if place:
                    self._check_read(it.kind, Read(place[0], 0, 0, place[1], it.count), written)
            stride, (_, _, first, end) = self.buffers[it.buffer].stride, it.domain
            computed = [j for j in written if first <= j // stride < end]
            for read in (*it.reads, *it.adds):
                self._check_read(it.kind, read, computed)
            depth = sum(read.count for read in it.reads) if it.kind == "linear" else 1
            if it.weight is not None and it.weight.shape != (depth, it.count):
                raise ValueError(f"{it.kind}: weight must have shape {(depth, it.count)}; got {it.weight.shape}")
            shapes = [(it.count,), (self.spec.classes, it.count)]
            if it.bias is not None and it.bias.shape not in shapes:
                raise ValueError(f"{it.kind}: bias must have shape {shapes[0]} or {shapes[1]}; got {it.bias.shape}")
        self._check_sweeps()

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
            raise ValueError(f"{kind}: a position must lie inside buffer {read.buffer}, {b}; got {read}")


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
