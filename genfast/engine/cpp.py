"""The C++ engine (csrc/engine/pixel_program.cpp): one call draws whole images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from genfast._native import backends
from genfast._native.checks import signed
from genfast.engine.program import ACTIVATIONS, KINDS, PANEL, Drawn, Instruction, Program, Read
from genfast.engine.request import SampleRequest

CACHE_BYTES = 2 << 20  # of feature maps: twice an L2 cache of 1 MiB, as a pixel touches only a part of them
FAR_BYTES = 16 << 20  # of weights, which then do not stay in a cache
LEAST_TILE, MOST_TILE = 12, 96
LEAST_ATTENDING = 3  # images, where each also reads keys and values of its own
REGISTERS = 6  # images whose sums the registers hold, or twice as many as that
MOST_CHAIN_BYTES = 128 << 20  # of a thread: beyond, rows are not computed apart from pixels
FEW = 2  # images in a tile; with so few, reading the weights once for each pixel costs too much
# The arguments of `pixel_program` of the C++ module, in order: addresses, then numbers.
_ADDRESSES = (
    *("instructions", "reads", "buffers", "constants", "bounds", "labels", "given", "known", "evidence", "fields"),
    *("images", "log_probs", "log_evidence", "parameters", "words", "word_counts", "intervals", "memory"),
)
# The fields of program.Attention in an instruction.
_OF_ATTENTION = ("heads", "groups", "depth", "width", "rows", "columns", "row", "column", "behind", "nan")
_NUMBERS = (
    *("read_count", "buffer_count", "image_size", "batch", "tile", "rows_apart", "coding", "block", "most_words"),
    *("channels", "height", "width", "columns", "levels", "head", "components", "parameter_count", "field_count"),
    *("image", "first_parameter", "first_column", "end_column", "first_element"),
    *("seed", "first_index", "draw", "temperature", "scale", "shift"),
)
backends.check_signature("pixel_program", (*_ADDRESSES, *_NUMBERS))


@dataclass
class Coding:
    """How `run` codes the images of a request instead of drawing them.

    Each `block` of images has a stream of its own, in which `tile` of them at a time are coded pixel by pixel, draw by
    draw, image by image; 24 bits of a share, see csrc/engine/pixel_code.h.

    Attributes:
        words: uint32 [blocks, most words]. The encoder, `encodes`, writes the streams of the images `given`; the
            decoder reads them.
        counts: int64 [blocks], words of each stream. The decoder makes those -1 that no encoder can have written.
        intervals: uint32 [n, C, H, W, 2], where an encoder writes the first part of 2^24 and the number of parts of
            each value; None: not wanted.
    """

    block: int
    tile: int
    words: np.ndarray
    counts: np.ndarray
    encodes: bool
    intervals: np.ndarray | None = None


@dataclass
class Part:
    """The columns of images of one row that a call of `run` draws, which goes on from the one before.

    Attributes:
        memory: float32 [n, image size], the feature maps between calls; it need not be set for the first.
        first, end: the columns; the first call begins at 0. The others of the images are not written.
        element: the number of the symbol in column 0, for its random numbers.
    """

    memory: np.ndarray
    first: int
    end: int
    element: int = 0


def tables_of(program: Program) -> Tables:
    """What the C++ engine reads of a program, made once."""
    return program.prepared.get("cpp") or program.prepared.setdefault("cpp", Tables(program))


def run(
    program: Program,
    request: SampleRequest,
    device: torch.device | None = None,
    coding: Coding | None = None,
    part: Part | None = None,
) -> Drawn:
    """Draw the images of a request, on the CPU (`device` is not used), or a part of them, or code them.

    The bits do not depend on how the images are split, on the number of threads, or on the instruction set.
    """
    tables = tables_of(program)
    n, spec, likelihood, want = request.n, program.spec, program.likelihood, request.want
    program.check_fields(request.fields, n)
    size = (spec.height, spec.width)
    if coding is not None and coding.encodes:
        assert request.given is not None
        images, request = request.given.contiguous(), replace(request, given=None)
    else:
        images = torch.empty(n, *spec.shape, dtype=spec.dtype, device="cpu")
    maps = {
        "log_probs": torch.empty(n, program.draws, *size, dtype=torch.float64, device="cpu"),
        "log_evidence": torch.empty(n, program.draws, *size, dtype=torch.float64, device="cpu"),
        "parameters": torch.empty(n, tables.parameters, *size, dtype=torch.float32, device="cpu"),
    }
    maps = {name: value for name, value in maps.items() if name in want}
    if "log_evidence" in maps and request.evidence is None:
        maps["log_evidence"].zero_()
    known = None if request.known is None else request.known.to(torch.uint8)
    inputs = [request.labels, request.given, known, request.evidence, request.fields]
    inputs = [None if value is None else value.contiguous() for value in inputs]
    outputs = [images, maps.get("log_probs"), maps.get("log_evidence"), maps.get("parameters")]
    coded = (None, None, None) if coding is None else (coding.words, coding.counts, coding.intervals)
    memory = None if part is None else part.memory
    columns = (0, program.columns, 0) if part is None else (part.first, part.end, part.element)
    if n:
        backends.cpp.pixel_program(
            "float32",
            *tables.addresses,
            *(0 if value is None else value.data_ptr() for value in (*inputs, *outputs)),
            *(0 if value is None else value.ctypes.data for value in (*coded, memory)),
            *tables.sizes,
            n,
            *(tables.tile(n) if coding is None else (coding.tile, tables.rows_apart(coding.tile))),
            *((0, 0, 0) if coding is None else (2 - coding.encodes, coding.block, coding.words.shape[1])),
            spec.channels,
            *size,
            program.columns,
            spec.levels,
            likelihood.case,
            likelihood.components,
            tables.parameters,
            program.fields,
            tables.image,
            tables.first_parameter,
            *columns,
            signed("sample", request.seed),
            request.first,
            request.draw,
            float(request.temperature),
            program.scale,
            program.shift,
        )
    return Drawn(images, **maps)


class Tables:
    """A program as arrays of numbers: the rows of the structs in csrc/engine/pixel_program.h."""

    @backends.float_mode()
    def __init__(self, program: Program) -> None:
        program.check()
        self._constants: list[np.ndarray] = []
        self._end = 0
        self._reads: list[Read] = []
        momentary = _momentary(program)
        buffers, offset = [], 0
        for n, b in enumerate(program.buffers):
            columns, left, step = (1, 0, 0) if n in momentary else (b.left + b.columns + b.right, b.left, b.features)
            fill = -1 if b.fill is None else self._constant(b.fill)
            row = b.features * columns
            buffers.append([offset, b.features, step, b.stride.bit_length() - 1, b.rows, left, row, fill])
            offset += -(-row * b.rows // PANEL) * PANEL
        # An odd number of cache lines from image to image: an even one would use only a part of the cache's sets.
        self.image_size = (offset // PANEL | 1) * PANEL
        lists = [program.row, *program.pixel]
        instructions = [self._instruction(it, part is program.row) for part in lists for it in part]
        self.first_parameter = len(self._reads)
        self._reads += program.parameters
        self.image = self._write((program.image, 0), program.spec.channels)
        reads = [[r.buffer, r.row, r.column, r.feature, r.count] for r in self._reads]
        ends = np.cumsum([0, *(len(part) for part in lists)])
        self.arrays = [np.array(rows, dtype=np.int64) for rows in (instructions, reads, buffers)]
        self.arrays.append(np.concatenate(self._constants or [np.zeros(1, np.float32)]))
        self.arrays.append(ends.astype(np.int64))
        self.addresses = [array.ctypes.data for array in self.arrays]
        self.sizes = (len(reads), len(buffers), self.image_size)
        self.parameters = sum(read.count for read in program.parameters)
        self.weight_bytes = 4 * self._end
        # Of attention all is read, half of it on average, in place of the rows that were kept to be copied from.
        self.memory_bytes = -program.attention_bytes // 2
        apart = [it.count for part in program.pixel for it in part if any(read.row < 0 for read in it.reads)]
        self.chain_bytes = sum(16 * (-(-count // PANEL) * PANEL) for count in apart) * program.columns  # of an image

    def tile(self, n: int) -> tuple[int, int]:
        """(images that a thread takes at a time, whether it computes rows apart from pixels).

        Enough images to amortise reading the weights, few enough that their feature maps stay in cache.
        """
        tile = self.tile_of(n, torch.get_num_threads())
        return tile, self.rows_apart(tile)

    def tile_of(self, n: int, threads: int) -> int:
        """Images that each of so many threads takes at a time, of n."""
        fitting = (CACHE_BYTES + self.weight_bytes) // (4 * self.image_size + self.memory_bytes)
        fitting = max(LEAST_ATTENDING if self.memory_bytes else LEAST_TILE, min(fitting, MOST_TILE))
        rounds = -(-n // (threads * fitting))
        tile = -(-n // (threads * rounds))
        return tile if tile < REGISTERS else min(-(-tile // REGISTERS) * REGISTERS, MOST_TILE, n)

    def rows_apart(self, tile: int) -> int:
        """1 where rows are computed apart from pixels, else 0: the same numbers."""
        apart = tile <= FEW or self.weight_bytes > FAR_BYTES
        return int(apart and tile * self.chain_bytes < MOST_CHAIN_BYTES)

    def _constant(self, values: np.ndarray) -> int:
        """Append values, padded to whole panels, to the constants; returns their offset."""
        values = np.ascontiguousarray(values, dtype=np.float32).ravel()
        at, size = self._end, -(-max(values.size, 1) // PANEL) * PANEL
        self._constants.append(np.pad(values, (0, size - values.size)))
        self._end += size
        return at

    def _write(self, place: tuple[int, int] | None, count: int) -> int:
        if place is None:
            return -1
        buffer, feature = place
        self._reads.append(Read(buffer, 0, 0, feature, count))
        return len(self._reads) - 1

    def _instruction(self, it: Instruction, of_row: bool) -> list[int]:
        output = self._write((it.buffer, it.feature), it.count)
        cell, visible = self._write(it.cell, it.count), self._write(it.visible, it.count)
        first_read = len(self._reads)
        reads, values, above = it.reads, it.weight, []
        if it.kind == "linear" and not of_row:
            reads, values = _above_first(reads, values)
            above = [read.count for read in reads if read.row < 0]
        self._reads += reads + it.adds
        weight = bias = step = 0
        steps = (0, 0)
        attention = [0] * len(_OF_ATTENTION)
        if it.attention is not None:
            weight, steps = self._tables_of_attention(it)
            attention = [vars(it.attention)[name] for name in _OF_ATTENTION]
        if it.kind == "field":
            weight, bias, step, steps = self._field(it)
        if it.weight is not None:
            weight = self._constant(_panels(values) if it.kind == "linear" else values)
        if it.bias is not None:
            labels = np.atleast_2d(it.bias)
            padded = -(-it.count // PANEL) * PANEL
            bias = self._constant(np.pad(labels, ((0, 0), (0, padded - it.count))))
            step = padded if it.bias.ndim == 2 else 0
        return [
            KINDS.index(it.kind),
            it.sweep,
            it.count,
            ACTIVATIONS.index(it.activation),
            output,
            cell,
            visible,
            it.row_modulus - 1,
            it.row_remainder,
            it.column_modulus - 1,
            it.column_remainder,
            *it.domain,
            first_read,
            len(it.reads),
            first_read + len(it.reads),
            len(it.adds),
            len(values) if it.kind == "lookup" else sum(read.count for read in it.reads),
            len(above),
            sum(above),
            weight,
            bias,
            step,
            *steps,
            *attention,
        ]

    def _tables_of_attention(self, it: Instruction) -> tuple[int, tuple[int, int]]:
        """(table or -1, (step to what multiplies weights, step of a head), 0 where there is none)."""
        if it.table is None:
            return -1, (0, 0)
        kinds, heads, positions, _ = it.table.shape
        square = positions * positions
        return self._constant(it.table), (heads * square if kinds > 1 else 0, square if heads > 1 else 0)

    def _field(self, it: Instruction) -> tuple[int, int, int, tuple[int, int]]:
        """(table or -1, place in the fields of a request, step of a label, steps of a row and of a column)."""
        rows, columns = it.grid if it.table is None else it.table.shape[1:3]
        steps = (columns * it.count if rows > 1 else 0), (it.count if columns > 1 else 0)
        if it.table is None:
            return -1, it.offset, 0, steps
        return self._constant(it.table), 0, rows * columns * it.count if len(it.table) > 1 else 0, steps


def _momentary(program: Program) -> set[int]:
    """Buffers of which only the present position is read, in the column in which it was written."""
    loops: dict[int, set[int | str]] = {}  # of every buffer: the loops over columns that write or read it
    lasting = {program.image}
    number = 0
    loop: int | str
    for part in (program.row, *program.pixel):
        for n, it in enumerate(part):
            if part is not program.row:
                loop = "pixel"
            else:
                number += n == 0 or not it.sweep or it.sweep != part[n - 1].sweep
                loop = number
            stride = program.buffers[it.buffer].stride
            places = [place for place in ((it.buffer, 0), it.cell, it.visible) if place]
            for buffer in (*(buffer for buffer, _ in places), *(read.buffer for read in (*it.reads, *it.adds))):
                loops.setdefault(buffer, set()).add(loop)
                if part is program.row and not it.sweep:
                    lasting.add(buffer)
            lasting |= {read.buffer for read in it.reads[1:] if it.attention is not None}
            for read in (*it.reads, *it.adds):
                b = program.buffers[read.buffer]
                moved = read.row or read.column or read.feature + read.count > b.features
                if moved or b.stride != stride or b.fill is not None:
                    lasting.add(read.buffer)
    for read in program.parameters:
        loops.setdefault(read.buffer, set()).add("pixel")
    return {buffer for buffer, users in loops.items() if len(users) == 1} - lasting


def _above_first(reads: list[Read], weight: np.ndarray) -> tuple[list[Read], np.ndarray]:
    """The reads, those of rows above first, and the weight in the same order."""
    ends = np.cumsum([read.count for read in reads], dtype=np.int64)
    parts = [np.arange(end - read.count, end) for end, read in zip(ends, reads, strict=True)]
    order = sorted(range(len(reads)), key=lambda n: reads[n].row >= 0)
    rows = [parts[n] for n in order]
    return [reads[n] for n in order], weight[np.concatenate(rows)] if rows else weight


def _panels(weight: np.ndarray) -> np.ndarray:
    """[depth, count] as panels [.., depth, 16], zero beyond `count`."""
    depth, count = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -count % PANEL)))
    return padded.reshape(depth, padded.shape[1] // PANEL, PANEL).transpose(1, 0, 2)
