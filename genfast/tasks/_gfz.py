"""The format of lossless files, which docs/gfz.md describes: what lies before the streams, written and read."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

import numpy as np

from genfast.engine.bits_back import BitsBack
from genfast.engine.coding import MOST_TILE, Coder, Layout, checksum
from genfast.engine.protocols import ImageSpec
from genfast.random.levels import MOST_LEVELS

# Magic, version, coder, precision; of fingerprints of the program's structure and constants and of the arithmetic probe
# the first bytes. Little-endian, as all of the file. The numbers of `Header.numbers` follow.
FIXED = struct.Struct("<4sBBB4s8s4s")
MAGIC, VERSION, PRECISION = b"GFZ\x00", 1, 24
STRUCTURE, CONSTANTS, PROBE = 4, 8, 4  # bytes
NUMBERS, MOST_NUMBER = 13, 9  # bytes of a number
CRC = struct.Struct("<I")
CODERS = {coder.number: coder for coder in (Coder, BitsBack)}
MOST_BLOCK, MOST_CLASSES = 2**16, 2**20
MOST_GOLOMB, MOST_SIZE = 63, 16  # the parameter of the code of sizes; bytes of the code of one


@dataclass(frozen=True)
class Header:
    """What a losslessly compressed file says of itself.

    Attributes:
        coder: the number of what coded them.
        count, height, width: images, and the size of each.
        spec: of the model. Larger images are cut into patches, one row of them after the other.
        block, tile: images of a stream; patches side by side in it.
        structure, constants: fingerprints of the program, STRUCTURE and CONSTANTS bytes.
        probe: of the arithmetic, see `Coder.probe`; PROBE bytes.
        program: the embedded program, b"" if there is none.
        labels: coded labels, b"" for an unconditional model.
        blocks: (bytes, CRC-32C of the decoded levels) of each block.
        size: bytes of the file.
    """

    coder: int
    count: int
    height: int
    width: int
    spec: ImageSpec
    block: int
    tile: int
    structure: bytes
    constants: bytes
    probe: bytes
    program: bytes
    labels: bytes
    blocks: list[tuple[int, int]]
    size: int

    @property
    def patches(self) -> int:
        """Of an image."""
        return -(-self.height // self.spec.height) * -(-self.width // self.spec.width)

    @property
    def layout(self) -> Layout:
        """How the patches share streams."""
        return Layout(self.block * self.patches, self.tile)

    def write(self) -> bytes:
        """The bytes before the streams."""
        spec, sizes = self.spec, write_sizes([size for size, _ in self.blocks], self.block, self.count)
        numbers = (
            *(self.count, self.height, self.width),
            *(spec.channels, spec.height, spec.width, spec.levels, spec.classes),
            *(self.block, self.tile, len(self.program), len(self.labels), len(sizes)),
        )
        fixed = FIXED.pack(MAGIC, VERSION, self.coder, PRECISION, self.structure, self.constants, self.probe)
        checksums = b"".join(CRC.pack(crc) for _, crc in self.blocks)
        head = fixed + b"".join(map(write_number, numbers)) + self.program + self.labels + sizes + checksums
        return head + CRC.pack(checksum(head))

    @classmethod
    def read(cls, data: bytes, call: str = "decompress") -> Header:
        """That of a file; `call` begins the errors.

        Raises: ValueError for other bytes, or a file that is damaged before its streams, or not whole.
        """
        if data[:4] != MAGIC:
            raise ValueError(f"{call}: expected a file of genfast compress; got one that begins with {data[:4]!r}")
        if len(data) < FIXED.size:
            raise ValueError(f"{call}: expected a whole file; got {len(data)} bytes")
        _, version, coder, precision, structure, constants, probe = FIXED.unpack_from(data)
        if version != VERSION:
            raise ValueError(f"{call}: expected version {VERSION} of the format; got {version}")
        numbers, at = read_numbers(data, FIXED.size, NUMBERS)
        if len(numbers) < NUMBERS:
            got = f"{len(data)} bytes" if at == len(data) else f"a number of more than {MOST_NUMBER} bytes"
            raise ValueError(f"{call}: expected a whole file; got {got}")
        count, height, width, *of_model, block, tile, program_size, labels_size, sizes_size = numbers
        blocks = -(-count // max(block, 1))
        end = at + program_size + labels_size + sizes_size + CRC.size * blocks
        if end + CRC.size > len(data):
            raise ValueError(f"{call}: expected a file of at least {end + CRC.size} bytes; got {len(data)}: cut off")
        if checksum(data[:end]) != CRC.unpack_from(data, end)[0]:
            raise ValueError(f"{call}: expected a header as it was written; got a wrong checksum: it is damaged")
        spec = ImageSpec(*of_model)
        fits = coder in CODERS and precision == PRECISION and 1 <= tile <= MOST_TILE and 1 <= block <= MOST_BLOCK
        fits &= 2 <= spec.levels <= MOST_LEVELS and spec.classes <= MOST_CLASSES and min(height, width, *spec.shape) > 0
        if not fits or (spec.classes > 0) != (labels_size > 0):
            got = f"coder {coder}, {precision} bits, block {block}, tile {tile}, {height}x{width}, {spec}"
            raise ValueError(f"{call}: expected a coder and sizes of this version; got {got}")
        ends = list(itertools.accumulate((program_size, labels_size, sizes_size), initial=at))
        program, labels, coded = (data[first:last] for first, last in itertools.pairwise(ends))
        sizes = read_sizes(coded, block, count)
        if sizes is None:
            raise ValueError(f"{call}: expected the sizes of {blocks} blocks; got others")
        whole = end + CRC.size + sum(sizes)
        if whole != len(data):
            trouble = "cut off" if whole > len(data) else "bytes follow its end"
            raise ValueError(f"{call}: expected a file of {whole} bytes; got {len(data)}: {trouble}")
        table = list(zip(sizes, np.frombuffer(data[ends[-1] : end], "<u4").tolist(), strict=True))
        of_file = (structure, constants, probe, program, labels, table, whole)
        return cls(coder, count, height, width, spec, block, tile, *of_file)


def write_number(value: int) -> bytes:
    """A number in 7 bits a byte, the lowest first; a byte that is not the last has 128 added (LEB128)."""
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + write_number(value // 128)


def read_numbers(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """(the next numbers, where they end) of `write_number`; fewer where the bytes do not go on so."""
    numbers, value, shift = [], 0, 0
    for byte in itertools.islice(data, at, at + MOST_NUMBER * count):
        value, shift, at = value | byte % 128 << shift, shift + 7, at + 1
        if byte < 128:
            numbers.append(value)
            value = shift = 0
        if len(numbers) == count or shift == MOST_NUMBER * 7:
            break
    return numbers, at


def write_sizes(sizes: list[int], block: int, count: int) -> bytes:
    """The bytes of the streams of so many images, in blocks: each as it differs from what the one before lets expect.

    Differences 0, -1, 1, -2, .. are 0, 1, 2, 3, ..; of these n is coded by an exponential Golomb code: n + 2^k in
    binary, after as many zeros as it has digits beyond k + 1. The first byte is k, the best one; zeros fill the last.
    """
    if not sizes:
        return b""
    numbers = []
    for number, (before, size) in enumerate(itertools.pairwise([0, *sizes])):
        difference = size - _expected(before, number, block, count)
        numbers.append(2 * difference if difference >= 0 else -2 * difference - 1)

    def digits(n: int, k: int) -> int:
        return 2 * (n + (1 << k)).bit_length() - 1 - k

    k = min(range(max(numbers).bit_length() + 1), key=lambda k: sum(digits(n, k) for n in numbers))
    bits = "".join(f"{n + (1 << k):0{digits(n, k)}b}" for n in numbers)
    bits += "0" * (-len(bits) % 8)
    return bytes([k]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def read_sizes(data: bytes, block: int, count: int) -> list[int] | None:
    """What `write_sizes` wrote; None for bytes that it does not write."""
    blocks = -(-count // block)
    if not blocks or not 1 <= len(data) <= 1 + MOST_SIZE * blocks or data[0] > MOST_GOLOMB:
        return [] if not blocks and not data else None
    k, bits = data[0], f"{int.from_bytes(data[1:], 'big'):0{8 * len(data) - 8}b}" if len(data) > 1 else ""
    at, sizes = 0, list[int]()
    for number in range(blocks):
        first = bits.find("1", at)
        end = 2 * first - at + k + 1
        if first < 0 or end > len(bits) or first - at > MOST_NUMBER * 7:
            return None
        n, at = int(bits[first:end], 2) - (1 << k), end
        expected = _expected(sizes[-1] if sizes else 0, number, block, count)
        sizes.append(expected + (-(n + 1) // 2 if n % 2 else n // 2))
        if sizes[-1] < 0:
            return None
    return sizes if len(bits) - at < 8 and "1" not in bits[at:] else None


def _expected(before: int, number: int, block: int, count: int) -> int:
    """The size of a block, of which the last may hold fewer images than the one before."""
    return before * min(block, count - number * block) // block
