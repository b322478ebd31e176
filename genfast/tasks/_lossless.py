"""Lossless compression by an autoregressive model or a VAE: the file, and the way there and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from genfast.engine.arguments import as_levels, check_int, check_integers, check_labels
from genfast.engine.bits_back import BitsBack
from genfast.engine.coding import Coder, checksum, code_symbols, decode_symbols
from genfast.engine.engine import Engine
from genfast.engine.program_file import read_program, write_program
from genfast.engine.protocols import Autoregressive, ImageSpec, LatentNetworks
from genfast.engine.shipped import shipped_models
from genfast.engine.wrappers import unwrapped
from genfast.tasks._gfz import (
    CONSTANTS,
    MOST_BLOCK,
    MOST_CLASSES,
    PROBE,
    STRUCTURE,
    VERSION,
    Header,
    read_numbers,
    write_number,
)
from genfast.tasks.results import FileInfo


def coder_of(call: str, model: Any) -> Coder | BitsBack:
    """What codes the images of a model. RuntimeError for a backend whose numbers depend on the machine."""
    if isinstance(model, LatentNetworks):
        return BitsBack(model)
    return Coder.of(Engine.of(model), call)


def compress_images(
    coder: Coder | BitsBack,
    images: Tensor,
    labels: int | Tensor | None,
    with_model: bool,
    block: int | None,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """The file of images, see `genfast.compress`."""
    spec, block = coder.spec, coder.block if block is None else block
    if with_model and not isinstance(coder, Coder):
        raise ValueError("compress: with_model must be False for a model with latents; got True")
    images = check_integers("compress", "images", images)
    if images.dim() != 4 or images.shape[1] != spec.channels or min(images.shape[2:]) < 1:
        expected = f"[n, C, H, W] with C={spec.channels}, H and W at least 1"
        raise ValueError(f"compress: images must have shape {expected}; got {tuple(images.shape)}")
    images = as_levels("compress", "images", images, spec.levels).cpu()
    check_int("compress", "block", block, 1, MOST_BLOCK + 1)
    labels = check_labels("compress", labels, spec, len(images), torch.device("cpu"))
    if spec.classes > MOST_CLASSES:
        raise ValueError(f"compress: model must have at most {MOST_CLASSES} classes; got {spec.classes}")
    (height, width), (structure, constants) = images.shape[2:], _fingerprints(coder)
    header = Header(
        coder.number,
        len(images),
        height,
        width,
        spec,
        block,
        1,
        structure,
        constants,
        coder.probe()[:PROBE],
        program=write_program(coder.compiled) if isinstance(coder, Coder) and with_model else b"",
        labels=b"" if labels is None else _coded_labels(labels, spec.classes),
        blocks=[],
        size=0,
    )
    header = replace(header, tile=coder.tile(header.layout.block))
    table, streams = [], []
    of_patches = None if labels is None else labels.repeat_interleave(header.patches)
    coded = coder.encode(_patches(images, spec), of_patches, header.layout)
    for part, stream in zip(images.split(block), coded, strict=False):
        table.append((len(stream), checksum(part.numpy())))
        streams.append(stream)
        if progress is not None:
            progress(len(part))
    return b"".join([replace(header, blocks=table).write(), *streams])


def _patches(images: Tensor, spec: ImageSpec) -> Tensor:
    """Images [n, C, H, W] cut to the size of a model: [n * rows * columns, C, h, w]; their edges repeat outwards."""
    height, width = images.shape[2:]
    if (height, width) == (spec.height, spec.width):
        return images
    rows, columns = -(-height // spec.height), -(-width // spec.width)
    inside = [
        torch.arange(count * size, dtype=torch.int64, device="cpu").clamp(max=most - 1)
        for count, size, most in ((rows, spec.height, height), (columns, spec.width, width))
    ]
    cells = images[:, :, inside[0]][..., inside[1]].unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _joined(patches: Tensor, height: int, width: int) -> Tensor:
    """The images of `_patches`."""
    rows, columns = -(-height // patches.shape[2]), -(-width // patches.shape[3])
    cells = patches.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return cells.flatten(4, 5).flatten(2, 3)[:, :, :height, :width].contiguous()


def info(data: bytes) -> FileInfo:
    """That of a file, see `genfast.tasks.file_info`."""
    header = Header.read(data, "file_info")
    channels, levels, classes = header.spec.channels, header.spec.levels, header.spec.classes
    sizes = (header.count, channels, header.height, header.width, levels, classes, header.size)
    model = (header.structure + header.constants).hex()
    return FileInfo(
        "lossless", VERSION, *sizes, header.block, len(header.blocks), model, model_size=len(header.program)
    )


class LosslessFile:
    """A file that is open: images can be decoded block by block, in any order.

    Args:
        data: the file.
        model: that which wrote it, or its engine; None where the file holds the program, or shipped weights wrote it.
        max_bytes: the most memory that the images, or a block of them, may take.
    Raises: ValueError for bytes that are no such file, damaged, of another model, or of another arithmetic.
    """

    def __init__(self, data: bytes, model: nn.Module | Engine | None, max_bytes: int) -> None:
        self.header = header = Header.read(data)
        self.data, self.max_bytes = data, max_bytes
        self.coder = _coder_of(header, model, max_bytes)
        self._compare(header)
        first = header.size - sum(size for size, _ in header.blocks)
        self.starts = list(itertools.accumulate((size for size, _ in header.blocks), initial=first))
        self.labels = self._labels(header)

    def images(self, first: int, blocks: int, progress: Callable[[int], None] | None = None) -> Tensor:
        """The images of blocks first .. first + blocks - 1: levels [n, C, H, W]."""
        header = self.header
        start, end = first * header.block, min((first + blocks) * header.block, header.count)
        self._check_memory(end - start)
        shape = (max(end - start, 0), header.spec.channels, header.height, header.width)
        images = torch.empty(shape, dtype=header.spec.dtype, device="cpu")
        parts = images.split(header.block) if len(images) else ()
        for number, (patches, to) in enumerate(zip(self._decoded(first, start, end), parts, strict=True), first):
            part = None if patches is None else _joined(patches, header.height, header.width)
            if part is None or checksum(part.numpy()) != header.blocks[number][1]:
                raise ValueError(f"decompress: expected blocks as they were written; got block {number} damaged")
            to.copy_(part)
            if progress is not None:
                progress(len(part))
        return images

    def _decoded(self, first: int, start: int, end: int) -> Iterator[Tensor | None]:
        """The patches of images start .. end - 1, block by block."""
        if start >= end:
            return iter(())
        blocks, patches = -(-(end - start) // self.header.block), self.header.patches
        streams = [self.data[self.starts[n] : self.starts[n + 1]] for n in range(first, first + blocks)]
        labels = None if self.labels is None else self.labels[start:end].repeat_interleave(patches)
        return self.coder.decode(streams, (end - start) * patches, labels, self.header.layout, start * patches)

    def _compare(self, header: Header) -> None:
        """That the model is the one that wrote the file, and computes here as it did there."""
        spec, own = header.spec, self.coder.spec
        if own != spec:
            raise ValueError(f"decompress: expected a model of {spec}; got one of {own}")
        self._check_memory(max(1, min(header.block, header.count)))
        if header.coder != self.coder.number:
            raise ValueError(f"decompress: expected a model of coder {header.coder}; got one of {self.coder.number}")
        (structure, constants), probe = _fingerprints(self.coder), self.coder.probe()[:PROBE]
        if structure != header.structure:
            expected = f"the model that wrote the file, {header.structure.hex()}"
            raise ValueError(f"decompress: expected {expected}; got another, {structure.hex()}")
        if constants != header.constants:
            expected = f"the weights that wrote the file, {header.constants.hex()}"
            raise ValueError(f"decompress: expected {expected}; got others of the same model, {constants.hex()}")
        if probe != header.probe:
            raise ValueError(
                f"decompress: expected the arithmetic that wrote the file, {header.probe.hex()}; got that of another "
                f"CPU or build, {probe.hex()}, which would decode other images"
            )

    def _check_memory(self, images: int) -> None:
        """That so many images, their labels and the coder fit into `max_bytes`."""
        header, spec = self.header, self.header.spec
        label = 8 if spec.classes else 0
        size = header.patches * (spec.values * spec.dtype.itemsize + label)
        needed = images * size + header.count * label + self.coder.memory(header.tile)
        if needed > self.max_bytes:
            expected = f"images that take at most max_bytes={self.max_bytes} to decode"
            raise ValueError(
                f"decompress: expected {expected}; got {images} of {size} bytes, which take about {needed}"
            )

    def _labels(self, header: Header) -> Tensor | None:
        if not header.spec.classes:
            return None
        counts, end = read_numbers(header.labels, 0, header.spec.classes)
        labels = None
        if len(counts) == header.spec.classes and sum(counts) == header.count:
            of_each = torch.tensor(counts, dtype=torch.int64, device="cpu")
            labels = decode_symbols(header.labels[end:], header.count, of_each)
        if labels is None:
            raise ValueError("decompress: expected labels as they were written; got others: they are damaged")
        return labels


def _coder_of(header: Header, model: nn.Module | Engine | None, max_bytes: int) -> Coder | BitsBack:
    if model is not None:
        return coder_of("decompress", unwrapped(model))
    if header.program:
        try:
            return Coder(read_program(header.program, max_bytes=max_bytes))
        except ValueError as error:
            raise ValueError(f"decompress: {error}") from None
    for shipped in shipped_models():
        if not isinstance(shipped, Autoregressive) or shipped.spec != header.spec:
            continue
        engine = Engine.of(cast(nn.Module, shipped))
        if engine.backend != "cpp":
            continue
        coder = Coder.of(engine, "decompress")
        if _fingerprints(coder) == (header.structure, header.constants):
            return coder
    raise ValueError(
        "decompress: model must be given for a file that holds none and is of no shipped weights; got None"
    )


def _fingerprints(coder: Coder | BitsBack) -> tuple[bytes, bytes]:
    """What a file says of the model that wrote it."""
    structure, constants = coder.fingerprints()
    return structure[:STRUCTURE], constants[:CONSTANTS]


def _coded_labels(labels: Tensor, classes: int) -> bytes:
    """How often each label comes, and the labels, coded by it."""
    counts = torch.bincount(labels, minlength=classes)
    return b"".join(map(write_number, counts.tolist())) + code_symbols(labels, counts)
