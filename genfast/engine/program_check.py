"""What a program of another's making must be, so that an engine, which trusts it, stays inside of its memory.

A program is checked by its own `check` too, which finds what does not fit together. Here stands what that takes for
granted of a compiler: the range of every number, the operands of every kind, powers of two, places of one position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from genfast._text import shown
from genfast.engine.program import ACTIVATIONS, KINDS, MAPS, PANEL, Attention, Instruction, Program, Read

MOST_NUMBER = 2**31
MOST_VALUES = 2**31  # of an image
MOST_LEVELS = 2**16
MOST_STRIDE = 2**16
MOST_BESIDE = 2**12  # columns beyond the images, which take time whatever is computed there
MOST_POSITIONS = 2**14  # of attention
MOST_ROWS = 2**24  # of a lookup, whose rows are numbered by a float32
TILE = 12  # images whose buffers a thread holds at least
OPERANDS = dict.fromkeys(MAPS, 1) | dict.fromkeys(("add", "mul", "gate", "max", "min", "greater"), 2)
OPERANDS |= {"where": 3, "constant": 0, "lookup": 1, "field": 0, "lstm": 2}
# The constants that an instruction must have; all others it must not have.
CONSTANTS = {"linear": ("weight", "bias"), "affine": ("weight", "bias"), "constant": ("bias",)}
CONSTANTS |= {"lookup": ("weight",), "field": ("table",)}
NUMBERS = {"heads": 1, "groups": 1, "depth": 1, "width": 1, "rows": 1, "columns": 1}  # of attention, and their least


def check_program(program: Program, max_bytes: int) -> None:
    """ValueError for a program that no engine may run, or that would take more than `max_bytes`, about, for a thread.

    Numbers must be ints and floats, and arrays float32, as `genfast.engine.program_file` reads them.
    """
    _check_images(program)
    _check_buffers(program)
    _check_draws(program)
    for part, instructions in enumerate((program.row, *program.pixel)):
        for it in instructions:
            _check_kind(it)
            _check_times(program, it)
            _check_places(program, it)
            _check_constants(program, it)
            if it.sweep not in ((-1, 0, 1) if part == 0 else (0,)):
                raise _wrong(it, "sweep", "-1, 0 or 1, and 0 in the instructions of a pixel", it.sweep)
    needed = memory(program)
    if needed > max_bytes:
        raise ValueError(f"program: it must take at most max_bytes={max_bytes} to run; got one that takes {needed}")
    program.check()


def memory(program: Program) -> int:
    """About the bytes that the constants and the buffers of a program take: these for the images of one thread."""
    floats = sum(b.features * (b.left + b.columns + b.right) * b.rows + PANEL for b in program.buffers)
    # Of the constants there are three copies at a time: as they were read, one by one, and all together.
    padded = sum(_padded(array, it.kind if it else "") for it, array in _arrays(program))
    # Widths of values are padded to whole vectors.
    attention = sum(
        it.attention.groups * (it.attention.positions + 2 * PANEL) * (it.attention.depth + it.attention.width + PANEL)
        for it in instructions(program)
        if it.attention is not None
    )
    return 4 * (TILE * (floats + attention) + 3 * padded)


def instructions(program: Program) -> Iterator[Instruction]:
    """All instructions, in their order."""
    for part in (program.row, *program.pixel):
        yield from part


def _arrays(program: Program) -> Iterator[tuple[Instruction | None, np.ndarray]]:
    yield from ((None, b.fill) for b in program.buffers if b.fill is not None)
    for it in instructions(program):
        yield from ((it, array) for array in (it.weight, it.bias, it.table) if array is not None)


def _padded(array: np.ndarray, kind: str) -> int:
    """Floats of a constant as the engines hold it: in linear products each row is padded to whole panels."""
    last = array.shape[-1] if kind in ("linear", "affine", "constant") else array.size
    return array.size // max(1, last) * (-(-last // PANEL) * PANEL) + PANEL


def _check_images(program: Program) -> None:
    spec, likelihood = program.spec, program.likelihood
    _within("channels, height and width", spec.shape, 1)
    _within("values of an image", [spec.values], 1, MOST_VALUES)
    _within("levels", [spec.levels], 2, MOST_LEVELS)
    _within("classes", [spec.classes], 0)
    if (likelihood.channels, likelihood.levels) != (spec.channels, spec.levels) or likelihood.case is None:
        raise ValueError(f"program: likelihood must be one of {spec} that an engine draws; got {likelihood}")
    _within("columns", [program.columns], spec.width, spec.width + MOST_BESIDE)
    for name, value in (("scale", program.scale), ("shift", program.shift)):
        if not abs(value) <= float(np.finfo(np.float32).max):
            raise ValueError(f"program: {name} must be a finite float32; got {value}")


def _check_buffers(program: Program) -> None:
    if not program.buffers:
        raise ValueError("program: buffers must hold the image; got none")
    for n, b in enumerate(program.buffers):
        _within(f"buffer {n}: features, columns and rows", [b.features, b.columns, b.rows], 1)
        _within(f"buffer {n}: left and right", [b.left, b.right], 0)
        _power_of_two(f"buffer {n}: stride", b.stride, MOST_STRIDE)
        if b.fill is not None and b.fill.shape != (b.features,):
            raise ValueError(f"program: fill of buffer {n} must have shape {(b.features,)}; got {b.fill.shape}")


def _check_draws(program: Program) -> None:
    if program.likelihood.draws != len(program.parameters):
        expected = f"of {program.likelihood.draws} draws"
        raise ValueError(f"program: parameters must be {expected}; got {len(program.parameters)}")
    counts = program.likelihood.counts
    if [read.count for read in program.parameters] != counts:
        got = [read.count for read in program.parameters]
        raise ValueError(f"program: counts of parameters must be {counts[:9]}; got {got[:9]}")
    if len(program.pixel) != len(counts) + 1:
        raise ValueError(f"program: pixel must hold {len(counts) + 1} lists; got {len(program.pixel)}")
    if program.fields:
        raise ValueError(f"program: fields must be 0, as a file has no model to compute them; got {program.fields}")
    _check_place(program, "image", Read(program.image, 0, 0, 0, program.spec.channels))
    for read in program.parameters:
        _check_place(program, "parameters", read)


def _check_kind(it: Instruction) -> None:
    if it.kind not in KINDS:
        raise ValueError(f"program: kind must be one of {', '.join(KINDS)}; got {it.kind!r}")
    _within(f"{it.kind}: count", [it.count], 1)
    if it.activation not in (ACTIVATIONS if it.kind == "linear" else ACTIVATIONS[:1]):
        raise _wrong(it, "activation", "one of a linear instruction, or none", it.activation)
    if (it.attention is None) == (it.kind == "attention"):
        raise _wrong(it, "attention", "that of an attention instruction", it.attention)
    if it.attention is not None:
        _check_attention(it.attention)
        if it.sweep or it.adds or len(it.reads) != 3:
            raise _wrong(it, "sweep, adds and reads", "0, none and three", (it.sweep, len(it.adds), len(it.reads)))
    elif it.kind != "linear":
        counts = [it.count] * OPERANDS[it.kind]
        counts = {"lstm": [4 * it.count, it.count], "lookup": [1]}.get(it.kind, counts)
        if (got := [read.count for read in it.reads]) != counts:
            raise _wrong(it, "reads", f"of the counts {counts}", got[:9])
        if it.adds:
            raise _wrong(it, "adds", "none", len(it.adds))
    if (it.cell is None) == (it.kind == "lstm") or it.visible is not None and it.kind != "lstm":
        raise _wrong(it, "cell and visible", "those of an lstm", (it.cell, it.visible))
    if any(read.count != it.count for read in it.adds):
        raise _wrong(it, "adds", f"of count {it.count}", [read.count for read in it.adds][:9])


def _check_attention(attention: Attention) -> None:
    for name, least in NUMBERS.items():
        _within(f"attention: {name}", [vars(attention)[name]], least)
    _within("attention: positions", [attention.positions], 1, MOST_POSITIONS)
    _within("attention: row and column", [attention.row, attention.column], 0)
    _within("attention: behind", [attention.behind], 0, attention.positions)
    _within("attention: nan", [attention.nan], 0, 1)


def _check_times(program: Program, it: Instruction) -> None:
    """Where an instruction runs."""
    for name, modulus, remainder in (
        ("row", it.row_modulus, it.row_remainder),
        ("column", it.column_modulus, it.column_remainder),
    ):
        _power_of_two(f"{it.kind}: {name}_modulus", modulus, MOST_STRIDE)
        _within(f"{it.kind}: {name}_remainder", [remainder], 0, modulus - 1)
    _within(f"{it.kind}: domain", it.domain, 0)


def _check_places(program: Program, it: Instruction) -> None:
    for place in ((it.buffer, it.feature), it.cell, it.visible):
        if place:
            _check_place(program, it.kind, Read(place[0], 0, 0, place[1], it.count))
            stride = program.buffers[place[0]].stride
            if it.row_modulus % stride or it.column_modulus % stride:
                raise _wrong(it, "moduli", f"multiples of {stride}", (it.row_modulus, it.column_modulus))
    for read in (*it.reads, *it.adds):
        _check_numbers(program, it.kind, read)


def _check_place(program: Program, name: str, read: Read) -> None:
    """The present position alone: of some buffers nothing else is kept, and there is nothing beside it."""
    _check_numbers(program, name, read)
    features = program.buffers[read.buffer].features
    if read.row or read.column or not 0 <= read.feature <= features - read.count:
        raise ValueError(f"program: {name} must lie in the {features} features of a position; got {read}")


def _check_numbers(program: Program, name: str, read: Read) -> None:
    _within(f"{name}: buffer", [read.buffer], 0, len(program.buffers) - 1)
    b = program.buffers[read.buffer]
    columns = b.left + b.columns + b.right  # also where nothing is computed, an address must be one
    _within(f"{name}: row", [read.row], -b.rows, 0)
    _within(f"{name}: column", [read.column], -columns, columns)
    _within(f"{name}: feature", [read.feature], 0, b.features - 1)
    _within(f"{name}: count", [read.count], 1, columns * b.features)


def _check_constants(program: Program, it: Instruction) -> None:
    given = tuple(name for name in ("weight", "bias", "table") if vars(it)[name] is not None)
    expected = given if it.kind == "attention" and given == ("table",) else CONSTANTS.get(it.kind, ())
    if given != expected:
        raise _wrong(it, "constants", ", ".join(expected) or "none", ", ".join(given) or "none")
    dims = {"weight": (2,), "bias": (1, 2) if program.spec.classes else (1,), "table": (4,)}
    for name in given:
        if vars(it)[name].ndim not in dims[name]:
            raise _wrong(it, name, f"of {' or '.join(map(str, dims[name]))} dimensions", vars(it)[name].shape)
    if it.table is not None:
        _within("field: shape of the table", it.table.shape, 1)
    if it.kind == "lookup":
        _within("lookup: rows", [len(it.weight)], 1, MOST_ROWS)


def _within(name: str, values: Iterable[int], low: int, high: int = MOST_NUMBER) -> None:
    for value in values:
        if not low <= value <= high:
            raise ValueError(f"program: {name} must lie in {low} .. {high}; got {value}")


def _power_of_two(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most or value & (value - 1):
        raise ValueError(f"program: {name} must be a power of two of at most {most}; got {value}")


def _wrong(it: Instruction, name: str, expected: str, got: object) -> ValueError:
    return ValueError(f"program: {name} of {it.kind} must be {expected}; got {shown(str(got), 100)}")
