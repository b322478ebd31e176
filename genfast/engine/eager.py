"""The engine in plain PyTorch, on any device: the fallback where no native engine runs.

All that is the same for every row is prepared once: every instruction at every column becomes a few torch calls with
their arguments bound. The present row of a buffer is always its last; the rows move up by one when a row begins. So the
bound slices are valid for every row, and on a GPU a row is one CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

# The public function takes twice as long for the few values of a pixel.
from torch._C._nn import elu, elu_, softplus

from genfast._native import backends
from genfast.engine.looking_back import LookingBack
from genfast.engine.program import Buffer, Drawn, Instruction, Program, Read
from genfast.engine.request import SampleRequest, row_uniforms

# (n, device, temperature, whether values are given, whether there is evidence)
Settings = tuple[int, torch.device, float, bool, bool]
Call = Callable[[], object]
_IN_PLACE = {"relu": torch.relu_, "elu": elu_, "tanh": torch.tanh_, "sigmoid": torch.sigmoid_}
_NAMES = {"max": "maximum", "min": "minimum", "greater": "gt"}


@backends.float_mode()
def run(program: Program, request: SampleRequest, device: torch.device | None = None) -> Drawn:
    """Draw the images of a request at once, in float32, on a device (None: the CPU); memory grows with their number.

    Image b draws by `uniform(seed, first + b, element, draw)`; a mixture uses the draws 2 * draw for the component and
    2 * draw + 1 for the levels.
    """
    device = torch.device(device or "cpu")
    n, want, spec = request.n, request.want, program.spec
    program.check_fields(request.fields, n)
    places = (n, program.draws, spec.height, spec.width)
    drawn = Drawn(torch.empty((n, *spec.shape), dtype=spec.dtype, device=device))
    if "log_probs" in want:
        drawn.log_probs = torch.empty(places, dtype=torch.float64, device=device)
    if "log_evidence" in want:
        drawn.log_evidence = torch.zeros(places, dtype=torch.float64, device=device)
    if "parameters" in want:
        count = sum(read.count for read in program.parameters)
        drawn.parameters = torch.empty((n, count, *places[2:]), dtype=torch.float32, device=device)
    if not n:
        return drawn
    settings: Settings = (n, device, request.temperature, request.given is not None, request.evidence is not None)
    # Removed while in use, so that two threads never share one. The next call reuses it, with its CUDA graphs.
    stepper = program.prepared.pop("eager", None)
    if stepper is None or stepper.settings != settings:
        stepper = Stepper(program, settings)
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with torch.no_grad(), current:
        stepper.begin(request.labels, request.fields)
        for i in range(spec.height):
            stepper.uniforms.copy_(row_uniforms(spec, program.likelihood, request, i, device))
            if request.given is not None and request.known is not None:
                stepper.given.copy_(request.given[:, :, i].transpose(1, 2))
                stepper.known.copy_(request.known[:, :, i].transpose(1, 2))
            if request.evidence is not None:
                stepper.evidence.copy_(request.evidence[:, :, i].transpose(1, 2))
            stepper.row(i)
            stepper.collect(i, drawn)
    program.prepared["eager"] = stepper
    return drawn


def _positions(buffer: Buffer) -> int:
    return buffer.left + buffer.columns + buffer.right


class Stepper:
    """The buffers of n images, and the bound calls that compute a row of them.

    The tensors `uniforms`, `given`, `known` and `evidence`, [.., n, W, C], are the inputs of one row; the caller fills
    them. `levels` is the result of the row.
    """

    def __init__(self, program: Program, settings: Settings) -> None:
        n, device, temperature, given, evidence = settings
        self.program, self.settings, self.n, self.device, self.temperature = program, settings, n, device, temperature
        floats: Any = {"dtype": torch.float32, "device": device}
        self.maps = [torch.empty(b.rows, n, _positions(b) * b.features, **floats) for b in program.buffers]
        spec, likelihood = program.spec, program.likelihood
        levels = np.arange(spec.levels, dtype=np.float32)
        values = levels * np.float32(program.scale) + np.float32(program.shift)
        self.values = torch.from_numpy(values).to(device)
        places = (n, spec.width, spec.channels)
        self.levels = torch.zeros(places, dtype=spec.dtype, device=device)
        self.uniforms = torch.zeros((likelihood.numbers, *places), dtype=torch.float64, device=device)
        self.given: Tensor | Any = torch.zeros_like(self.levels) if given else None
        self.known: Tensor | Any = torch.zeros_like(self.levels, dtype=torch.bool) if given else None
        self.evidence: Tensor | Any = torch.zeros((*places, spec.levels), **floats) if evidence else None
        self._constants: dict[tuple[int, str], Tensor] = {}
        self._tables: list[tuple[Tensor, Tensor]] = []
        self._scratch: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._bound: dict[tuple[int, bool, range], list[Call]] = {}
        self._rows: dict[tuple[Any, ...], list[Call] | torch.cuda.CUDAGraph] = {}
        self._labels = torch.zeros(n, dtype=torch.int64, device=device)
        self._given_fields = torch.zeros(n, program.fields, **floats)
        self._fields: dict[int, Field | LookingBack] = {
            id(it): Field(self, it) for it in self._instructions() if it.kind == "field"
        }
        attention = [it for it in self._instructions() if it.kind == "attention"]
        self._fields |= {id(it): LookingBack(program, it, self.maps, n) for it in attention}

    def begin(self, labels: Tensor | None, fields: Tensor | None = None) -> None:
        """Reset the buffers to their state before the first row, for images of these labels and fields."""
        if fields is not None:
            self._given_fields.copy_(fields)
        for buffer, rows in zip(self.program.buffers, self.maps):
            rows.copy_(self._fill(buffer, 0, buffer.features).repeat(_positions(buffer)))
        if labels is not None:
            self._labels.copy_(labels)
            for table, bias in self._tables:
                torch.index_select(table, 0, self._labels, out=bias)

    def row(self, i: int) -> None:
        """Compute row `i`. On a GPU this does not wait; the second row of a kind is captured, later ones replayed."""
        for field in self._fields.values():
            field.row(i)
        key = self._kind(i)
        calls = self._rows.get(key)
        if calls is None:
            calls = self._rows[key] = list(self._calls(i))
        elif self.device.type == "cuda" and isinstance(calls, list):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for call in calls:
                    call()
            calls = self._rows[key] = graph
        if not isinstance(calls, list):
            calls.replay()
            return
        for call in calls:
            call()

    def collect(self, i: int, drawn: Drawn) -> None:
        """Copy row `i` into the results."""
        drawn.images[:, :, i] = self.levels.transpose(1, 2)
        likelihood, width, at = self.program.likelihood, range(self.program.spec.width), 0
        for k, read in enumerate(self.program.parameters):
            parameters = self._view(read, width)
            values = self.levels[:, :, likelihood.drawn_channels(k)]
            if drawn.log_probs is not None:
                drawn.log_probs[:, k, i] = likelihood.log_prob(parameters, values)
            if drawn.log_evidence is not None and self.evidence is not None:
                evidence = self.evidence[:, :, k]
                drawn.log_evidence[:, k, i] = likelihood.log_evidence(parameters, self.temperature, evidence)
            if drawn.parameters is not None:
                drawn.parameters[:, at : at + read.count, i] = parameters.transpose(1, 2)
            at += read.count

    def _fill(self, buffer: Buffer, feature: int, count: int) -> Tensor:
        if buffer.fill is None:
            return torch.zeros(count, device=self.device, dtype=torch.float32)
        return torch.as_tensor(buffer.fill[feature : feature + count], dtype=torch.float32, device=self.device)

    def _instructions(self) -> Iterator[Instruction]:
        return (instruction for part in (self.program.row, *self.program.pixel) for instruction in part)

    def _kind(self, i: int) -> tuple[Any, ...]:
        """The kind of row `i`: rows of one kind take the same calls."""
        strides = tuple(i % buffer.stride == 0 for buffer in self.program.buffers)
        return strides, tuple(self._state(instruction, i) for instruction in self._instructions())

    def _state(self, instruction: Instruction, i: int) -> bool | None:
        """Whether row `i` is in the domain of the instruction; None if the instruction does not run in this row."""
        if i % instruction.row_modulus != instruction.row_remainder:
            return None
        begin, end, _, _ = instruction.domain
        return begin <= i // self.program.buffers[instruction.buffer].stride < end

    def _calls(self, i: int) -> Iterator[Call]:
        program = self.program
        for buffer, rows in zip(program.buffers, self.maps):
            if i % buffer.stride == 0:
                yield from (partial(rows[k].copy_, rows[k + 1]) for k in range(buffer.rows - 1))
        at = 0
        while at < len(program.row):
            sweep = program.row[at].sweep
            end = at + 1
            while end < len(program.row) and sweep and program.row[end].sweep == sweep:
                end += 1
            if sweep:
                for j in range(program.columns)[::sweep]:
                    yield from self._pixel(program.row[at:end], i, j)
            else:
                yield from self._whole(program.row[at], i)
            at = end
        for j in range(program.columns):
            for k in range(program.draws + 1):
                yield from self._pixel(program.pixel[k], i, j)
                if k < program.draws and j < program.spec.width:
                    yield self._draw(k, j)

    def _pixel(self, instructions: Iterable[Instruction], i: int, j: int) -> Iterator[Call]:
        for instruction in instructions:
            state = self._state(instruction, i)
            if state is not None and j % instruction.column_modulus == instruction.column_remainder:
                yield from self._bind(instruction, state, range(j, j + 1))

    def _whole(self, instruction: Instruction, i: int) -> Iterator[Call]:
        """The calls of an instruction over a whole row: one group for each set of columns with an even step."""
        state, buffers = self._state(instruction, i), self.program.buffers
        if state is None:
            return
        reads = [*instruction.reads, *instruction.adds]
        modulus = math.lcm(instruction.column_modulus, *(buffers[read.buffer].stride for read in reads))
        for remainder in range(instruction.column_remainder, modulus, instruction.column_modulus):
            columns = range(remainder, self.program.columns, modulus)
            begin, end = (bound * buffers[instruction.buffer].stride for bound in instruction.domain[2:])
            inside = [k for k, j in enumerate(columns) if begin <= j < end]
            first, last = (inside[0], inside[-1] + 1) if inside else (0, 0)
            for part in (columns[:first], columns[first:last], columns[last:]):
                if part:
                    yield from self._bind(instruction, state, part)

    def _bind(self, instruction: Instruction, state: bool, columns: range) -> list[Call]:
        """The calls of an instruction at the pixels `columns`, which are all inside its domain or all outside."""
        _, _, begin, end = instruction.domain
        state = state and begin <= columns[0] // self.program.buffers[instruction.buffer].stride < end
        key = id(instruction), state, columns
        if key not in self._bound:
            make = _KINDS.get(instruction.kind, Stepper._elementwise) if state else Stepper._outside
            self._bound[key] = make(self, instruction, columns)
        return self._bound[key]

    def _view(self, read: Read, columns: range) -> Tensor:
        """A view of the values of a read at each of `columns`: [n, columns, count]."""
        return self._slice(read.buffer, read.row, read.column, read.feature, read.count, columns)

    def _slice(self, index: int, row: int, column: int, feature: int, count: int, columns: range) -> Tensor:
        buffer = self.program.buffers[index]
        values = self.maps[index][buffer.rows - 1 + row]
        first = (columns[0] // buffer.stride + buffer.left + column) * buffer.features + feature
        step = max(1, columns.step // buffer.stride) * buffer.features
        last = first + (len(columns) - 1) * step + count
        if first < 0 or last > values.shape[1] or row <= -buffer.rows or row > 0:
            place = f"row {row}, column {column}, feature {feature}, count {count} at pixel {columns[0]}"
            raise ValueError(f"eager: a position must lie inside buffer {index}, {buffer}; got {place}")
        size, stride = (self.n, len(columns), count), (values.stride(0), step, 1)
        return values.as_strided(size, stride, values.storage_offset() + first)

    def _operands(self, instruction: Instruction, columns: range) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Views of the reads, the adds and the result: [n, count] for a single pixel, else [n, columns, count]."""
        out = self._slice(instruction.buffer, 0, 0, instruction.feature, instruction.count, columns)
        reads, adds = ([self._view(read, columns) for read in part] for part in (instruction.reads, instruction.adds))
        if len(columns) == 1:
            return [view[:, 0] for view in reads], [view[:, 0] for view in adds], out[:, 0]
        return reads, adds, out

    def _constant(self, instruction: Instruction, name: str) -> Tensor:
        """A weight, or a bias: [count], or, by label, [n, count]; on the device."""
        key = id(instruction), name
        if key not in self._constants:
            tensor = torch.as_tensor(getattr(instruction, name), dtype=torch.float32, device=self.device)
            if name == "bias" and tensor.dim() == 2:
                self._tables.append((tensor, tensor[self._labels]))
                tensor = self._tables[-1][1]
            self._constants[key] = tensor
        return self._constants[key]

    def _space(self, name: str, *shape: int) -> Tensor:
        """Scratch memory, used within one instruction."""
        if (name, shape) not in self._scratch:
            self._scratch[name, shape] = torch.empty(shape, device=self.device, dtype=torch.float32)
        return self._scratch[name, shape]

    def _linear(self, instruction: Instruction, columns: range) -> list[Call]:
        reads, adds, out = self._operands(instruction, columns)
        weight, bias = (self._constant(instruction, name) for name in ("weight", "bias"))
        single = out.dim() == 2
        calls: list[Call] = []
        y = out if single else self._space("y", *out.shape)
        if single and len(reads) == 1:
            x = reads[0]
        else:
            x = self._space("x", *out.shape[:-1], len(weight))
            if reads:
                calls.append(partial(torch.cat, reads, -1, out=x))
        if not single:
            calls.append(partial(y.copy_, bias if bias.dim() == 1 else bias[:, None]))
            bias = y.flatten(0, 1)
        calls.append(partial(torch.addmm, bias, x.flatten(0, -2), weight, out=y.flatten(0, -2)))
        calls += [partial(y.add_, operand) for operand in adds]
        if instruction.activation != "none":
            calls.append(partial(_IN_PLACE[instruction.activation], y))
        return calls if single else [*calls, partial(out.copy_, y)]

    def _elementwise(self, instruction: Instruction, columns: range) -> list[Call]:
        operands, _, out = self._operands(instruction, columns)
        kind = instruction.kind
        if kind == "copy":
            return [partial(out.copy_, operands[0])]
        if kind == "elu":
            return [partial(elu, operands[0], out=out)]  # type: ignore[call-arg]
        if kind == "gate":
            a, b = (self._space(name, *out.shape) for name in "xy")
            return [
                partial(torch.tanh, operands[0], out=a),
                partial(torch.sigmoid, operands[1], out=b),
                partial(torch.mul, a, b, out=out),
            ]
        if kind in ("affine", "constant"):
            bias = self._constant(instruction, "bias")
            bias = bias[:, None] if bias.dim() == 2 and out.dim() == 3 else bias
            if kind == "constant":
                return [partial(out.copy_, bias)]
            return [partial(torch.addcmul, bias, operands[0], self._constant(instruction, "weight")[0], out=out)]
        if kind == "where":
            a, b, c = operands
            return [lambda: out.copy_(torch.where(a != 0, b, c))]
        if kind == "softplus":
            return [partial(softplus, operands[0], out=out)]  # type: ignore[call-arg]
        if kind == "relu":
            return [partial(torch.clamp, operands[0], min=0, out=out)]
        return [partial(getattr(torch, _NAMES.get(kind, kind)), *operands, out=out)]

    def _lstm(self, instruction: Instruction, columns: range) -> list[Call]:
        (gates, before), _, _ = self._operands(instruction, columns)
        outs = self._targets(instruction, columns)

        def step() -> None:
            i, f, g, o = gates.chunk(4, -1)
            cell = f.sigmoid().mul_(before).addcmul_(i.sigmoid(), g.tanh())
            hidden = cell.tanh().mul_(o.sigmoid())
            for out, value in zip(outs, (hidden, cell, hidden)):
                out.copy_(value)

        return [step]

    def _lookup(self, instruction: Instruction, columns: range) -> list[Call]:
        (number,), _, out = self._operands(instruction, columns)
        table = self._constant(instruction, "weight")
        return [lambda: out.copy_(table[(number[..., 0] + 0.5).clamp(0, len(table) - 1).long()])]

    def _field(self, instruction: Instruction, columns: range) -> list[Call]:
        _, _, out = self._operands(instruction, columns)
        field = self._fields[id(instruction)]
        assert isinstance(field, Field)
        values, stride = field.values, self.program.buffers[instruction.buffer].stride
        if values.shape[1] > 1:
            first = columns[0] // stride - instruction.domain[2]
            values = values[:, first :: max(1, columns.step // stride)][:, : len(columns)]
        return [partial(out.copy_, values[:, 0] if out.dim() == 2 else values)]

    def _attention(self, instruction: Instruction, columns: range) -> list[Call]:
        query = self._view(instruction.reads[0], columns)
        out = self._slice(instruction.buffer, 0, 0, instruction.feature, instruction.count, columns)
        looking = self._fields[id(instruction)]
        assert isinstance(looking, LookingBack)
        return [looking.call(columns, query, out)]

    def _targets(self, instruction: Instruction, columns: range) -> list[Tensor]:
        """Views of the outputs of an instruction: the result, the cell, the visible copy."""
        places = [(instruction.buffer, instruction.feature), instruction.cell, instruction.visible]
        views = [self._slice(b, 0, 0, f, instruction.count, columns) for b, f in filter(None, places)]
        return [view[:, 0] for view in views] if len(columns) == 1 else views

    def _outside(self, instruction: Instruction, columns: range) -> list[Call]:
        places = [(instruction.buffer, instruction.feature), instruction.cell, instruction.visible]
        fills = [self._fill(self.program.buffers[b], f, instruction.count) for b, f in filter(None, places)]
        return [partial(out.copy_, fill) for out, fill in zip(self._targets(instruction, columns), fills)]

    def _draw(self, k: int, j: int) -> Call:
        program, likelihood = self.program, self.program.likelihood
        channels = likelihood.drawn_channels(k)
        parameters = self._view(program.parameters[k], range(j, j + 1))[:, 0]
        count = channels.stop - channels.start
        value = self._slice(program.image, 0, 0, channels.start, count, range(j, j + 1))[:, 0]
        u = self.uniforms[:, :, j, channels]
        out = self.levels[:, j, channels]
        known: Tensor | Any = None if self.known is None else self.known[:, j, channels]
        given: Tensor | Any = None if self.given is None else self.given[:, j, channels]
        evidence = None if self.evidence is None else self.evidence[:, j, k]

        def draw() -> None:
            level = likelihood.draw_levels(parameters, u, self.temperature, evidence)
            out.copy_(level if known is None else torch.where(known, given, level))
            value.copy_(self.values[out.long()])

        return draw


class Field:
    """What an instruction "field" writes in the present row.

    Attributes: values, float32 [1 or n, C, count]; the slices that are bound to it are valid for every row.
    """

    def __init__(self, stepper: Stepper, instruction: Instruction) -> None:
        it, given = instruction, stepper._given_fields
        self.first, self.end, _, _ = it.domain
        self.stride, self.labels = stepper.program.buffers[it.buffer].stride, None
        if it.table is None:
            rows, columns = it.grid
            part = given[:, it.offset : it.offset + rows * columns * it.count]
            self.table = part.unflatten(1, (rows, columns, it.count))
        else:
            self.table = torch.as_tensor(it.table, dtype=torch.float32, device=stepper.device)
            self.labels = stepper._labels if len(it.table) > 1 else None
        n = stepper.n if self.labels is not None or it.table is None else 1
        self.values = torch.empty((n, *self.table.shape[2:]), dtype=torch.float32, device=stepper.device)

    def row(self, i: int) -> None:
        """Make `values` those of row `i` of the images."""
        r = i // self.stride
        if self.first <= r < self.end:
            row = self.table[:, r - self.first if self.table.shape[1] > 1 else 0]
            self.values.copy_(row if self.labels is None else row[self.labels])


_KINDS = {"linear": Stepper._linear, "lstm": Stepper._lstm, "lookup": Stepper._lookup, "field": Stepper._field}
_KINDS["attention"] = Stepper._attention
