"""Lossless files: as docs/gfz.md describes them, their parts, damage whose sums fit again; models of fixed weights."""

import copy
import hashlib
import random
import struct
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from support import mutations
from support.conditionals import WHOLE, in_order
from support.range_coder import encode

from genfast.engine.coding import Coder, checksum
from genfast.engine.engine import Engine
from genfast.tasks._gfz import CRC, FIXED, read_sizes

FIELDS = ("count", "height", "width", "channels", "of_height", "of_width", "levels", "classes", "block", "tile")
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 96, 97, 256, 2**16, 2**16 + 1, 2**20, 2**24, 2**31, 2**32 - 1, 2**63 - 1, 2**64)


@dataclass
class Parts:
    """What a file holds: magic, version, coder, precision, fingerprints and probe; numbers by name; the program, the
    labels, the sizes of streams as they are coded (None: those of the streams), checksums of blocks, and their streams.
    """

    fixed: list
    numbers: dict
    program: bytes
    labels: bytes
    sizes: bytes | None
    checksums: list[int]
    streams: list[bytes]

    @classmethod
    def of(cls, data):
        values, at, pieces, streams = [], FIXED.size, [], []
        while len(values) < len(FIELDS) + 3:
            size = next(n for n in range(1, 99) if data[at + n - 1] < 128)
            values.append(sum(byte % 128 << 7 * n for n, byte in enumerate(data[at : at + size])))
            at += size
        numbers = dict(zip(FIELDS, values))
        blocks = -(-numbers["count"] // numbers["block"])
        for size in (*values[-3:], 4 * blocks):
            pieces.append(data[at : at + size])
            at += size
        checksums = list(struct.unpack(f"<{blocks}I", pieces[3]))
        at += CRC.size
        for size in read_sizes(pieces[2], numbers["block"], numbers["count"]):
            streams.append(data[at : at + size])
            at += size
        return cls(list(FIXED.unpack_from(data)), numbers, *pieces[:2], None, checksums, streams)

    def file(self) -> bytes:
        """The file, whose sizes and checksum of the header fit."""
        sizes = self.coded()
        numbers = (*self.numbers.values(), len(self.program), len(self.labels), len(sizes))
        head = FIXED.pack(*self.fixed) + b"".join(map(leb128, numbers)) + self.program + self.labels + sizes
        head += struct.pack(f"<{len(self.checksums)}I", *self.checksums)
        return head + CRC.pack(checksum(head)) + b"".join(self.streams)

    def coded(self) -> bytes:
        """The sizes of the streams."""
        if self.sizes is not None:
            return self.sizes
        return coded_sizes([len(stream) for stream in self.streams], self.get("block"), self.get("count"))

    def set(self, name, value):
        """A number of the header, see FIELDS."""
        self.numbers[name] = value

    def get(self, name):
        return self.numbers[name]


def leb128(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + leb128(value // 128)


def coded_sizes(sizes: list[int], block: int, count: int) -> bytes:
    """The sizes of streams by docs/gfz.md: of all k the first one that gives the shortest code."""
    numbers, before = [], 0
    for place, size in enumerate(sizes):
        images = min(block, count - place * block)
        apart = size - (before * images // block if block else 0)
        numbers.append(abs(apart) * 2 - (apart < 0))
        before = size
    if not numbers:
        return b""
    code = lambda n, k: f"{n + 2**k:b}".rjust(2 * (n + 2**k).bit_length() - 1 - k, "0")  # noqa: E731
    counts = Counter(numbers)
    k = min(range(64), key=lambda k: sum(len(code(n, k)) * count for n, count in counts.items()))
    bits = "".join(code(n, k) for n in numbers)
    bits += "0" * (-len(bits) % 8)
    return bytes([k]) + bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits), 8))


def mutated(parts: Parts, rng: random.Random) -> bytes:
    """A file some of whose parts are damaged, and which an attacker repaired as far as it goes without the model."""
    parts = copy.deepcopy(parts)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        match rng.randrange(10):
            case 0 | 1:
                name = rng.choice(FIELDS)
                parts.set(name, rng.choice((*NUMBERS, parts.get(name) + 1, max(0, parts.get(name) - 1))))
            case 2 if parts.streams:
                place = rng.randrange(len(parts.streams))
                parts.streams[place] = mutations.damaged(parts.streams[place], rng)
            case 3 if parts.streams:
                place = rng.randrange(len(parts.streams))
                size = rng.choice((0, 1, 4, 1000, len(parts.streams[place]) + 4))
                parts.streams[place] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
            case 4 if parts.labels:
                parts.labels = mutations.damaged(parts.labels, rng)
            case 5 if parts.program:
                parts.program = mutations.damaged(parts.program, rng)
            case 6:
                parts.fixed[rng.choice((1, 2, 3))] = rng.choice((0, 1, 2, 23, 24, 25, 255))
            case 7:
                place = rng.choice((4, 5, 6))
                size = len(parts.fixed[place])
                parts.fixed[place] = rng.choice((bytes(size), rng.randbytes(size), parts.fixed[4].ljust(size)[:size]))
            case 8:
                count = -(-parts.get("count") // max(1, parts.get("block")))
                count = rng.choice((count, count + 1, 0)) if count < 1000 else 0
                parts.streams = (parts.streams + [b""] * count)[:count]
                parts.checksums = (parts.checksums + [0] * count)[:count]
            case 9:
                parts.sizes = mutations.damaged(parts.coded(), rng)
    return parts.file()


def fixed(model):
    """A model whose weights are the same on every machine: multiples of 2^-16, by integers alone."""
    with torch.no_grad():
        for number, weight in enumerate(model.parameters(), 1):
            integers = torch.arange(1, weight.numel() + 1, dtype=torch.int64, device="cpu") * 40503 * number
            weight.copy_(((integers % 65536 - 32768).double() / 2**16).reshape(weight.shape))
    return model.eval()


def by_the_page(model, images, labels, block) -> bytes:
    """The file of images by docs/gfz.md, in Python and exact integers, given the shares of values."""
    coder, spec, (n, _, height, width) = Coder.of(Engine(model), "compress"), model.spec, images.shape
    cut = _patches(images.numpy(), spec)
    patches = len(cut) // n
    tile = coder.tile(block * patches)
    intervals = coder.intervals(cut, None if labels is None else labels.repeat_interleave(patches))
    streams, checksums = [], []
    for first in range(0, n, block):
        part = intervals[first * patches : (first + block) * patches]
        streams.append(encode(in_order(part, coder.compiled.program, tile)))
        checksums.append(crc32c(images[first : first + block].numpy().tobytes()))
    coded = b"" if labels is None else _coded_labels(labels.tolist(), spec.classes)
    sizes, (structure, constants) = coded_sizes([len(s) for s in streams], block, n), coder.fingerprints()
    head = b"GFZ\0" + bytes([1, 1, 24]) + structure[:4] + constants[:8] + _probe(coder)[:4]
    numbers = (n, height, width, spec.channels, spec.height, spec.width, spec.levels, spec.classes, block, tile)
    head += b"".join(leb128(number) for number in (*numbers, 0, len(coded), len(sizes))) + coded + sizes
    head += struct.pack(f"<{len(checksums)}I", *checksums)
    return head + struct.pack("<I", crc32c(head)) + b"".join(streams)


def _patches(images, spec):
    _, _, height, width = images.shape
    images = np.pad(images, ((0, 0), (0, 0), (0, -height % spec.height), (0, -width % spec.width)), "edge")
    rows, columns = range(0, height, spec.height), range(0, width, spec.width)
    cut = [image[:, i : i + spec.height, j : j + spec.width] for image in images for i in rows for j in columns]
    return torch.from_numpy(np.stack(cut))


def _coded_labels(labels, classes):
    counts = [labels.count(k) for k in range(classes)]
    edges = [k + sum(counts[:k]) * (WHOLE - classes) // len(labels) for k in range(classes)] + [WHOLE]
    return b"".join(map(leb128, counts)) + encode((edges[k], edges[k + 1] - edges[k]) for k in labels)


def _probe(coder):
    spec = coder.spec
    levels = [v * 0x9E3779B97F4A7C15 % 2**64 // 2**32 % spec.levels for v in range(1, 2 * spec.values + 1)]
    images = torch.tensor(levels, dtype=spec.dtype).view(2, *spec.shape)
    intervals = coder.intervals(images, torch.tensor([0, 1]) if spec.classes else None)
    return hashlib.sha256(intervals.astype("<u4").tobytes()).digest()[:8]


def crc32c(data: bytes) -> int:
    rest = 2**32 - 1
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (rest & 1) * 0x82F63B78
    return rest ^ (2**32 - 1)
