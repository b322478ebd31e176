"""Lossless coding of images by their conditionals: the C++ engine with a range coder in the place of the draws.

What is written depends on the images, the model and the sizes of a `Layout` alone; every number on the way to the
probabilities is computed in an order that does not depend on the CPU, on threads or on how many images come together.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast._native import backends
from genfast.engine import cpp
from genfast.engine.compiled import Compiled
from genfast.engine.engine import Engine
from genfast.engine.program import Drawn
from genfast.engine.program_file import fingerprints
from genfast.engine.request import SampleRequest

MOST_TILE = cpp.MOST_TILE
HIGHEST_FIRST, LOWEST_FIRST = (
    ">u4",
    "<u4",
)  # the bytes of words: of a range coder, whose words are a fraction; of a stack
PROBES = 2  # images
PROBE_BYTES = 40  # of memory for each of their values


@dataclass(frozen=True)
class Layout:
    """How images share streams: `block` of them a stream, in which `tile` at a time are coded side by side."""

    block: int
    tile: int


class Coder:
    """Codes the images of a program in blocks, each a stream of bytes.

    Args:
        compiled: the program.
        condition: (first, n) -> what the model is told of images first .. first + n - 1, see `FullForward.condition`.
    """

    number, block = 1, 256  # of the coder in a file; images of a block that is not asked for

    def __init__(self, compiled: Compiled, condition: Callable[[int, int], dict[str, Tensor]] | None = None) -> None:
        self.compiled, self.spec, self.condition = compiled, compiled.spec, condition

    @classmethod
    def of(cls, engine: Engine, call: str) -> Coder:
        """That of an engine. Raises: RuntimeError for another backend than cpp, with the reason."""
        backend, compiled, network = engine.prepared()
        if backend != "cpp" or isinstance(compiled, str):
            why = engine.explanation.others.get("cpp", "not asked for")
            raise RuntimeError(
                f"{call}: backend must be cpp, as the sums of others depend on the machine, and so would the codes; "
                f"got {backend} (cpp: {why})"
            )
        return cls(compiled, network.condition)

    def tile(self, block: int) -> int:
        """How many of the `block` images of a stream are best coded side by side."""
        return cpp.tables_of(self.compiled.program).tile_of(block, 1)

    def memory(self, tile: int) -> int:
        """About the bytes that a thread takes to code so many images side by side, and for `probe`."""
        return 4 * cpp.tables_of(self.compiled.program).image_size * tile + PROBE_BYTES * PROBES * self.spec.values

    def encode(self, images: Tensor, labels: Tensor | None, layout: Layout) -> Iterator[bytes]:
        """The stream of each block of images. `images`: levels, of the dtype of the spec."""
        for start, end in self._parts(len(images), layout):
            request = SampleRequest(end - start, first=start, labels=_rows(labels, start, end), given=images[start:end])
            most = self._most_words(min(layout.block, request.n))
            words = np.empty((-(-request.n // layout.block), most), np.uint32)
            counts = np.zeros(len(words), np.int64)
            self._run(request, cpp.Coding(layout.block, layout.tile, words, counts, True))
            for row, count in zip(words, counts, strict=True):
                yield packed(row[:count], HIGHEST_FIRST)

    def decode(
        self, streams: Sequence[bytes], n: int, labels: Tensor | None, layout: Layout, first: int = 0
    ) -> Iterator[Tensor | None]:
        """The images of each block; None for a stream that no encoder wrote.

        Args:
            streams: of the blocks of images first .. first + n - 1; `first` is a multiple of the block.
            labels: int64 [n], or None.
        """
        for start, end in self._parts(n, layout):
            some = streams[start // layout.block : -(-end // layout.block)]
            most = self._most_words(min(layout.block, end - start))
            fits = [len(stream) <= 4 * most and not stream.endswith(b"\0") for stream in some]
            rows = [unpacked(stream if fit else b"", HIGHEST_FIRST) for stream, fit in zip(some, fits, strict=True)]
            counts = np.array([len(row) for row in rows], np.int64)
            words = np.zeros((len(some), max(counts)), np.uint32)
            for to, row in zip(words, rows, strict=True):
                to[: len(row)] = row
            request = SampleRequest(end - start, first=first + start, labels=_rows(labels, start, end))
            drawn = self._run(request, cpp.Coding(layout.block, layout.tile, words, counts, False))
            for n, images in enumerate(drawn.images.split(layout.block)):
                yield images if fits[n] and counts[n] >= 0 else None

    def intervals(self, images: Tensor, labels: Tensor | None = None) -> np.ndarray:
        """What the coder is given of each value: uint32 [n, C, H, W, 2], the first of 2^24 parts and their number.

        Of a model whose program has another arrangement, in that of the program.
        """
        layout = Layout(len(images), self.tile(len(images)))
        words, counts = np.empty((1, self._most_words(len(images))), np.uint32), np.zeros(1, np.int64)
        intervals = np.zeros((*images.shape, 2), np.uint32)
        request = SampleRequest(len(images), labels=labels, given=images)
        self._run(request, cpp.Coding(layout.block, layout.tile, words, counts, True, intervals))
        return intervals

    def probe(self) -> bytes:
        """A hash of the intervals of fixed images, 8 bytes: that of any CPU and build that computes the same bits."""
        kept = self.compiled.program.prepared
        return kept.get("probe") or kept.setdefault("probe", self._probe())

    def fingerprints(self) -> tuple[bytes, bytes]:
        """Those of the structure and the constants of the program."""
        kept = self.compiled.program.prepared
        return kept.get("fingerprints") or kept.setdefault("fingerprints", fingerprints(self.compiled))

    def _probe(self) -> bytes:
        count = self.spec.values * PROBES
        # Multiples of the golden ratio: all levels come, next to other ones in every image.
        levels = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        images = torch.from_numpy((levels % np.uint64(self.spec.levels)).astype(np.int64)).to(self.spec.dtype)
        labels = None
        if self.spec.classes:
            labels = torch.arange(PROBES, dtype=torch.int64, device="cpu") % self.spec.classes
        intervals = self.intervals(images.reshape(PROBES, *self.spec.shape), labels)
        return hashlib.sha256(intervals.astype("<u4").tobytes()).digest()[:8]

    def _run(self, request: SampleRequest, coding: cpp.Coding) -> Drawn:
        condition = self.condition(request.first, request.n) if self.condition else {}
        device = torch.device("cpu")
        return self.compiled.run(partial(cpp.run, coding=coding), request, device, condition)

    def _most_words(self, images: int) -> int:
        """Room for a stream of so many images: no value takes more than a word."""
        return images * self.spec.values + 2

    def _parts(self, n: int, layout: Layout) -> Iterator[tuple[int, int]]:
        """(start, end) of the images that are coded at a time: a block for each thread."""
        size = layout.block * torch.get_num_threads()
        return ((start, min(start + size, n)) for start in range(0, n, size))


def _rows(labels: Tensor | None, start: int, end: int) -> Tensor | None:
    return None if labels is None else labels[start:end]


def packed(words: np.ndarray, kind: str) -> bytes:
    """Words as the bytes of a stream, without the zeros at its end. `kind`: the dtype of the words there."""
    return words.astype(kind).tobytes().rstrip(b"\0")


def unpacked(stream: bytes, kind: str) -> np.ndarray:
    """The words of `packed`, uint32, without words of zero at their end."""
    return np.frombuffer(stream + bytes(-len(stream) % 4), kind).astype(np.uint32)


def code_symbols(values: Tensor, counts: Tensor) -> bytes:
    """Symbols int64 [n], coded by how often each of them comes, int64 [K], K < 2^24: a stream."""
    words, count = np.empty(len(values) + 2, np.uint32), np.zeros(1, np.int64)
    _code(values.contiguous(), counts, words, count, decodes=0)
    return packed(words[: count[0]], HIGHEST_FIRST)


def decode_symbols(stream: bytes, n: int, counts: Tensor) -> Tensor | None:
    """The n symbols of a stream, int64 [n]; None if it is that of no encoder. `counts` are not negative."""
    values, words = torch.zeros(n, dtype=torch.int64, device="cpu"), unpacked(stream, HIGHEST_FIRST)
    count = np.array([len(words)], np.int64)
    _code(values, counts, words, count, decodes=1)
    return None if count[0] < 0 or stream.endswith(b"\0") else values


def _code(values: Tensor, counts: Tensor, words: np.ndarray, word_count: np.ndarray, decodes: int) -> None:
    share, before = 2**24 - len(counts), [0, *itertools.accumulate(counts.tolist())]
    edges = np.array([n + lower * share // max(before[-1], 1) for n, lower in enumerate(before)], np.uint32)
    edges[-1] = 2**24
    addresses = (edges.ctypes.data, values.data_ptr(), words.ctypes.data, word_count.ctypes.data)
    _native().range_coder("float32", *addresses, decodes, len(counts), len(values))


def checksum(data: np.ndarray | bytes) -> int:
    """CRC-32C of bytes or of the elements of an array, little-endian."""
    bytes_ = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else _little(data)
    result = np.zeros(1, np.uint32)
    _native().crc32c("float32", bytes_.ctypes.data, result.ctypes.data, bytes_.size)
    return int(result[0])


def _native() -> Any:
    """The C++ module. Raises: RuntimeError where there is none."""
    if backends.cpp is None:
        raise RuntimeError(f"coding: backend must be cpp; got none: {backends.backends()['cpp'].reason}")
    return backends.cpp


def _little(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<")).view(np.uint8)


backends.check_signature("range_coder", ("edges", "values", "words", "word_count", "decodes", "symbols", "count"))
backends.check_signature("crc32c", ("bytes", "result", "count"))
