"""A program as bytes, which draw, score and decode images without the Python code of the model.

Little-endian: a header, `HEADER`, then one LZMA2 stream of the structure and the constants. The structure is JSON: all
numbers of the program, and the shape of each array. The constants are the float32 arrays in the order of the structure,
first the lowest byte of every value, then the next: signs and exponents repeat, and the other bytes do not.

Each part has a fingerprint: two models of one architecture differ in that of the constants alone.
"""

from __future__ import annotations

import json
import lzma
import math
import operator
import struct
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from hashlib import sha256
from typing import Any

import numpy as np

from genfast._text import shown
from genfast.engine.compiled import Compiled
from genfast.engine.program import Attention, Buffer, Instruction, Program, Read
from genfast.engine.program_check import MOST_NUMBER, check_program, instructions
from genfast.engine.protocols import ImageSpec
from genfast.io import JSONError, memory, parse_json
from genfast.likelihoods import LIKELIHOODS, likelihood

# Magic, version, bytes of the structure and of the constants, and their fingerprints.
HEADER = struct.Struct("<4sBIQ8s8s")
MAGIC, VERSION = b"GFPP", 1
MOST_STRUCTURE = 2**24  # bytes; a PixelCNN++ of 3 resolutions has some hundred thousand
MOST_BYTES = 2**31
GEOMETRIES = ("grid", "line", "point")
ARRAYS = ("weight", "bias", "table")
NUMBERS = ("buffer", "feature", "count", "row_modulus", "row_remainder", "column_modulus", "column_remainder", "sweep")
REQUIRED = ("kind", "buffer", "feature", "count", "domain")
OF_FIELDS = ("offset", "grid")  # what a program has that cannot be written: only its fingerprint is needed
WRITTEN = [f.name for f in fields(Instruction) if f.name not in OF_FIELDS]
DEFAULTS = {f.name: [] if f.default is MISSING else f.default for f in fields(Instruction)}


@dataclass(frozen=True)
class ProgramHeader:
    """What the first bytes of a program say.

    Attributes:
        version: of the format.
        structure_bytes, constants_bytes: of the two parts, unpacked.
        structure, constants: their fingerprints, 8 bytes of SHA-256 each.
    """

    version: int
    structure_bytes: int
    constants_bytes: int
    structure: bytes
    constants: bytes

    @classmethod
    def of(cls, data: bytes) -> ProgramHeader:
        """That of the bytes of a program. ValueError for other bytes."""
        if data[: len(MAGIC)] != MAGIC or len(data) < HEADER.size:
            raise ValueError(f"program: bytes must be those of a program; got {len(data)} with {bytes(data[:4])!r}")
        header = cls(*HEADER.unpack_from(data)[1:])
        if header.version != VERSION:
            raise ValueError(f"program: version of the format must be {VERSION}; got {header.version}")
        return header


def write_program(compiled: Compiled) -> bytes:
    """The bytes of a program and of the geometry around it; the same for the same program.

    Raises: ValueError for a program that reads what the model computes of each image before it is drawn.
    """
    if compiled.program.fields:
        reason = "it reads what the model computes of each image before it is drawn"
        raise ValueError(f"program: it must need nothing of its model to be written; got one of which {reason}")
    return _written(*_parts(compiled))


def fingerprints(compiled: Compiled) -> tuple[bytes, bytes]:
    """(structure, constants): 8 bytes of SHA-256 each, as `ProgramHeader` has them."""
    structure, constants = _parts(compiled)
    return _fingerprint(structure), _fingerprint(constants)


def read_program(data: bytes, *, max_bytes: int = MOST_BYTES) -> Compiled:
    """The program of these bytes, which may be anybody's: what it returns, an engine can run.

    Args:
        max_bytes: the most memory that the program may take, about, while it is read or run.
    Raises: TypeError for what is no bytes; ValueError for bytes that are no such program, damaged, or of one that would
        leave its memory or take more.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"program: data must be bytes; got {type(data).__name__}")
    data, most = bytes(data), min(max_bytes, memory() // 2)
    header = ProgramHeader.of(data)
    if header.structure_bytes > MOST_STRUCTURE:
        raise ValueError(f"program: structure must have at most {MOST_STRUCTURE} bytes; got {header.structure_bytes}")
    if header.constants_bytes % 4 or 12 * header.constants_bytes > most:
        expected = f"whole float32, which take at most {most} bytes with their copies"
        raise ValueError(f"program: constants must be {expected}; got {header.constants_bytes}")
    unpacked = _unpacked(data[HEADER.size :], header.structure_bytes + header.constants_bytes)
    structure, planes = unpacked[: header.structure_bytes], unpacked[header.structure_bytes :]
    constants = np.frombuffer(planes, np.uint8).reshape(4, -1).T.tobytes()
    if (_fingerprint(structure), _fingerprint(constants)) != (header.structure, header.constants):
        raise ValueError("program: fingerprints must be those of the content; got others: it is damaged")
    try:
        value = parse_json(structure)
    except JSONError as error:
        raise ValueError(f"program: structure must be JSON; got {error}") from None
    compiled = _Reader(constants).compiled(value)
    check_program(compiled.program, most)
    if _structure(compiled) != structure:
        raise ValueError("program: structure must be as write_program gives it; got the same in other words")
    return compiled


def _written(structure: bytes, constants: bytes) -> bytes:
    header = HEADER.pack(
        MAGIC, VERSION, len(structure), len(constants), _fingerprint(structure), _fingerprint(constants)
    )
    content = structure + np.frombuffer(constants, np.uint8).reshape(-1, 4).T.tobytes()
    return header + lzma.compress(content, lzma.FORMAT_RAW, filters=_filters(len(content)))


def _filters(size: int) -> list[dict[str, int]]:
    """The dictionary is no larger than the content, as it is allocated even for a tiny one."""
    window = min(2**24, max(2**12, 1 << (size - 1).bit_length()))
    return [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": window}]


def _unpacked(body: bytes, size: int) -> bytes:
    """The content of a stream, which must have this size."""
    stream = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(size))
    try:
        content = stream.decompress(body, size + 1)
        whole = len(content) == size and (stream.eof or not stream.decompress(b"", 1))
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"program: content must be packed by LZMA2; got {error}") from None
    if not whole or not stream.eof or stream.unused_data:
        raise ValueError(f"program: content must be {size} bytes, whole and alone; got {len(content)}, more or fewer")
    return content


def _fingerprint(part: bytes) -> bytes:
    return sha256(part).digest()[:8]


def _parts(compiled: Compiled) -> tuple[bytes, bytes]:
    """The structure and the constants."""
    constants = [np.ascontiguousarray(array, "<f4").tobytes() for array in _arrays(compiled.program)]
    return _structure(compiled), b"".join(constants)


def _arrays(program: Program) -> Iterator[np.ndarray]:
    """All arrays, in the order of the structure."""
    yield from (b.fill for b in program.buffers if b.fill is not None)
    for it in instructions(program):
        yield from (vars(it)[name] for name in ARRAYS if vars(it)[name] is not None)


def _structure(compiled: Compiled) -> bytes:
    program, spec = compiled.program, compiled.spec
    value = {
        "spec": [spec.channels, spec.height, spec.width, spec.levels, spec.classes],
        "geometry": compiled.geometry,
        "order": compiled.order,
        "likelihood": program.likelihood.name,
        "components": program.likelihood.components,
        "columns": program.columns,
        "scale": float(program.scale),
        "shift": float(program.shift),
        "image": program.image,
        "buffers": [
            [b.features, b.columns, b.stride, b.rows, b.left, b.right, b.fill is not None] for b in program.buffers
        ],
        "row": [_instruction(it, program) for it in program.row],
        "pixel": [[_instruction(it, program) for it in part] for part in program.pixel],
        "parameters": [_read(read) for read in program.parameters],
    }
    return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode()


def _instruction(it: Instruction, program: Program) -> dict[str, Any]:
    """The fields that are not as they are by default; of an array the shape."""
    value = {}
    for name in (*WRITTEN, *(OF_FIELDS if program.fields else ())):
        part = vars(it)[name]
        if name in ("reads", "adds"):
            part = [_read(read) for read in part]
        if name in ARRAYS and part is not None:
            part = list(part.shape)
        if name == "attention" and part is not None:
            part = list(vars(part).values())
        if name in REQUIRED or part != DEFAULTS[name]:
            value[name] = part
    return value


def _read(read: Read) -> list[int]:
    return [read.buffer, read.row, read.column, read.feature, read.count]


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.tolist() if isinstance(value, np.ndarray) else operator.index(value)


class _Reader:
    """The parts of a structure, each of the type that it must have; arrays are taken from the constants in turn."""

    def __init__(self, constants: bytes) -> None:
        self.floats, self.used = np.frombuffer(constants, "<f4").astype(np.float32), 0

    def compiled(self, value: Any) -> Compiled:
        names = "spec geometry order likelihood components columns scale shift image buffers row pixel parameters"
        if not isinstance(value, dict) or " ".join(value) != names:
            raise _wrong("structure", f"an object of {names}", value)
        spec = ImageSpec(*_ints("spec", value["spec"], 5))
        geometry, order = _text("geometry", value["geometry"], GEOMETRIES), self.order(value["order"], spec)
        if order is not None and geometry != "point":
            raise _wrong("order", "null but for the geometry point", geometry)
        of_program = _arranged(spec, geometry)
        name = _text("likelihood", value["likelihood"], tuple(LIKELIHOODS))
        components, columns, image = (_int(name, value[name]) for name in ("components", "columns", "image"))
        of_pixel = likelihood(name, of_program.channels, of_program.levels, components)
        if of_pixel.components != components:
            raise _wrong("components", str(of_pixel.components), components)
        program = Program(
            of_program,
            of_pixel,
            columns,
            _float("scale", value["scale"]),
            _float("shift", value["shift"]),
            image,
            [self.buffer(part) for part in _list("buffers", value["buffers"])],
            [self.instruction(part) for part in _list("row", value["row"])],
            [[self.instruction(one) for one in _list("pixel", part)] for part in _list("pixel", value["pixel"])],
            _reads("parameters", value["parameters"]),
        )
        if self.used != self.floats.size:
            raise _wrong("constants", f"{self.used} values, as the structure says", self.floats.size)
        return Compiled(program, spec, geometry, order)

    def order(self, value: Any, spec: ImageSpec) -> np.ndarray | None:
        if value is None:
            return None
        numbers = _ints("order", value)
        if len(numbers) != spec.values or sorted(numbers) != list(range(len(numbers))):
            raise _wrong("order", f"all of the {spec.values} values of an image", value)
        return np.array(numbers, np.int64)

    def buffer(self, value: Any) -> Buffer:
        *numbers, filled = _list("buffer", value, 7)
        sizes = _ints("buffer", numbers)
        if not isinstance(filled, bool):
            raise _wrong("buffer", "six integers, and whether it is filled", value)
        features, columns, stride, rows, left, right = sizes
        return Buffer(features, columns, stride, rows, left, right, self.array([features]) if filled else None)

    def instruction(self, value: Any) -> Instruction:
        if not isinstance(value, dict) or not value.keys() >= set(REQUIRED):
            raise _wrong("instruction", f"an object of at least {', '.join(REQUIRED)}", value)
        taken: dict[str, Any] = {}
        for name, part in value.items():
            if name in NUMBERS:
                taken[name] = _int(name, part)
            elif name in ("kind", "activation"):
                taken[name] = _text(name, part)
            elif name in ("reads", "adds"):
                taken[name] = _reads(name, part)
            elif name in ("domain", "cell", "visible"):
                taken[name] = tuple(_ints(name, part, 4 if name == "domain" else 2))
            elif name == "attention":
                taken[name] = Attention(*_ints(name, part, len(fields(Attention))))
            elif name not in ARRAYS:
                raise _wrong("instruction", f"an object of {', '.join(WRITTEN)}", name)
        taken |= {name: self.array(value[name]) for name in ARRAYS if name in value}
        return Instruction(**taken)

    def array(self, shape: Any) -> np.ndarray:
        dims = _ints("shape", shape)
        size = math.prod(dims) if 1 <= len(dims) <= 4 and min(dims) >= 0 else -1
        if not 0 <= size <= self.floats.size - self.used:
            raise _wrong("shape", f"that of an array of at most {self.floats.size - self.used} values", shape)
        self.used += size
        return self.floats[self.used - size : self.used].reshape(dims)


def _arranged(spec: ImageSpec, geometry: str) -> ImageSpec:
    """The images of the program for the images `spec`, see `Compiled.geometry`."""
    if geometry == "line":
        return replace(spec, height=1, width=spec.height * spec.width)
    return spec if geometry == "grid" else replace(spec, channels=spec.values, height=1, width=1)


def _list(name: str, value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise _wrong(name, "a list" if length is None else f"a list of {length}", value)
    return value


def _ints(name: str, value: Any, length: int | None = None) -> list[int]:
    return [_int(name, number) for number in _list(name, value, length)]


def _int(name: str, value: Any) -> int:
    if type(value) is not int or not -MOST_NUMBER <= value <= MOST_NUMBER:
        raise _wrong(name, f"integers of at most {MOST_NUMBER}", value)
    return value


def _float(name: str, value: Any) -> float:
    if type(value) is not float:
        raise _wrong(name, "a float", value)
    return value


def _text(name: str, value: Any, choices: tuple[str, ...] = ()) -> str:
    if not isinstance(value, str) or choices and value not in choices:
        raise _wrong(name, f"one of {', '.join(choices)}" if choices else "a string", value)
    return value


def _reads(name: str, value: Any) -> list[Read]:
    return [Read(*_ints(name, part, 5)) for part in _list(name, value)]


def _wrong(name: str, expected: str, got: Any) -> ValueError:
    return ValueError(f"program: {name} must be {expected}; got {shown(repr(got), 100)}")
