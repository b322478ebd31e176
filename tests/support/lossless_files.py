"""Lossless files: as docs/gfz.md describes them, their parts, damage whose sums fit again; models of fixed weights."""

import copy
import hashlib
import random
import struct
from dataclasses import dataclass

import numpy as np
import torch
from support import mutations
from support.conditionals import WHOLE, in_order
from support.range_coder import encode

from genfast.engine.coding import Coder, checksum
from genfast.engine.engine import Engine
from genfast.tasks._lossless import CRC, HEADER

FIELDS = ("count", "height", "width", "channels", "of_height", "of_width", "levels", "classes", "block", "tile")
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 96, 97, 256, 2**16, 2**16 + 1, 2**20, 2**24, 2**31, 2**32 - 1)


@dataclass
class Parts:
    """What a file holds: numbers of the header, the program, the labels, checksums of blocks, and their streams."""

    numbers: list
    program: bytes
    labels: bytes
    checksums: list[int]
    streams: list[bytes]

    @classmethod
    def of(cls, data):
        numbers = list(HEADER.unpack_from(data))
        at, pieces = HEADER.size, []
        for size in numbers[-3:]:
            pieces.append(data[at : at + size])
            at += size
        at, table, checksums, streams = at + CRC.size, list(pieces[2]), [], []
        while table:
            size, shift = 0, 0
            while (byte := table.pop(0)) >= 128:
                size, shift = size + (byte - 128 << shift), shift + 7
            size = 4 * (size + (byte << shift))
            checksums.append(CRC.unpack(bytes(table[:4]))[0])
            table, streams, at = table[4:], [*streams, data[at : at + size]], at + size
        return cls(numbers, *pieces[:2], checksums, streams)

    def file(self) -> bytes:
        """The file, whose sizes and checksum of the header fit."""
        table = b"".join(leb128(len(s) // 4) + CRC.pack(c) for s, c in zip(self.streams, self.checksums))
        self.numbers[-3:] = len(self.program), len(self.labels), len(table)
        head = HEADER.pack(*self.numbers) + self.program + self.labels + table
        return head + CRC.pack(checksum(head)) + b"".join(self.streams)

    def set(self, name, value):
        """A number of the header, see FIELDS."""
        self.numbers[5 + FIELDS.index(name)] = value

    def get(self, name):
        return self.numbers[5 + FIELDS.index(name)]


def leb128(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + leb128(value // 128)


def mutated(parts: Parts, rng: random.Random) -> bytes:
    """A file some of whose parts are damaged, and which an attacker repaired as far as it goes without the model."""
    parts = copy.deepcopy(parts)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        match rng.randrange(9):
            case 0 | 1:
                name = rng.choice(FIELDS)
                most = 2**64 if name == "count" else 2**32
                parts.set(name, rng.choice((*NUMBERS, most - 1, parts.get(name) + 1, max(0, parts.get(name) - 1))))
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
                place = rng.choice((1, 2, 3, 4))
                parts.numbers[place] = rng.choice((0, 1, 2, 23, 24, 25, 255))
            case 7:
                place = rng.choice((15, 16, 17))
                parts.numbers[place] = rng.choice((bytes(8), rng.randbytes(8), parts.numbers[15]))
            case 8:
                count = -(-parts.get("count") // max(1, parts.get("block")))
                count = rng.choice((count, count + 1, 0)) if count < 1000 else 0
                parts.streams = (parts.streams + [b""] * count)[:count]
                parts.checksums = (parts.checksums + [0] * count)[:count]
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
    streams, table = [], b""
    for first in range(0, n, block):
        part = intervals[first * patches : (first + block) * patches]
        streams.append(encode(in_order(part, coder.compiled.program, tile)).astype("<u4").tobytes())
        table += leb128(len(streams[-1]) // 4) + struct.pack(
            "<I", crc32c(images[first : first + block].numpy().tobytes())
        )
    coded = b"" if labels is None else _coded_labels(labels.tolist(), spec.classes)
    head = b"GFZ\0" + bytes([1, 1, 24, 0]) + struct.pack("<Q2I", n, height, width)
    head += struct.pack("<5I", spec.channels, spec.height, spec.width, spec.levels, spec.classes)
    head += struct.pack("<2I", block, tile) + b"".join(coder.fingerprints()) + _probe(coder)
    head += struct.pack("<3Q", 0, len(coded), len(table)) + coded + table
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
    words = encode((edges[k], edges[k + 1] - edges[k]) for k in labels)
    return struct.pack(f"<{classes}Q", *counts) + words.astype("<u4").tobytes()


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
