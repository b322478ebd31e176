"""Lossy compression by the codes of a model, which its prior or a general compressor packs: there and back."""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from genfast.engine.arguments import as_levels, check_integers
from genfast.engine.coding import Coder
from genfast.engine.engine import Engine
from genfast.engine.protocols import CodeModel, device_of
from genfast.tasks._gfz import MOST_BLOCK
from genfast.tasks._lossless import LosslessFile, compress_images
from genfast.tasks.results import FileInfo

# Magic, version, packing, images, channels, height, width, levels - 1, model; big-endian. The body and a CRC-32 of
# everything before follow.
HEADER, CHECKSUM = struct.Struct(">4sBBIBHHB8s"), struct.Struct(">I")
MAGIC, VERSION = b"GFVQ", 1
BY_PRIOR = 6  # the packing of a file of `_lossless`, whose images are the codes
BLOCK_VALUES = 2**18  # of the images of a stream there
MOST_LEVELS = 256
# More than a batch of photographs.
MOST_VALUES = MOST_BYTES = 2**31
BATCH_VALUES = 2**18
PART = 2**18  # bytes that are unpacked at a time
# Codes have no alignment or context like text. The dictionary is small, as it is allocated even for a tiny file.
LZMA = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20, "lc": 0, "lp": 0, "pb": 0}]


def compress_codes(model: Any, images: Tensor, labels: int | Tensor | None) -> bytes:
    """The file of the codes of images, see `genfast.compress`: the smallest of all packings."""
    coder = _check_model("compress", model)
    c = coder.spec
    images = check_integers("compress", "images", images)
    if images.dim() != 4 or images.shape[1] != c.channels or not all(1 <= n < 2**16 for n in images.shape[2:]):
        expected = f"[N, C, H, W] with C={c.channels}, H and W from 1 to 65535"
        raise ValueError(f"compress: images must have shape {expected}; got {tuple(images.shape)}")
    if images.numel() > MOST_VALUES:
        raise ValueError(f"compress: images must hold at most {MOST_VALUES} values; got {images.numel()}")
    images = as_levels("compress", "images", images, c.levels)
    codes = _encoded(coder, images)
    packing, body = _packed(codes, coder.code_count)
    by_prior = _packed_by_prior(coder, codes, labels)
    if by_prior is not None and len(by_prior) < len(body):
        packing, body = BY_PRIOR, by_prior
    count, channels, height, width = images.shape
    header = HEADER.pack(MAGIC, VERSION, packing, count, channels, height, width, c.levels - 1, coder.decoder_digest())
    return header + body + CHECKSUM.pack(zlib.crc32(header + body))


def decompress_codes(model: Any, data: bytes, max_bytes: int) -> Tensor:
    """The images of a file of codes, see `genfast.decompress`."""
    coder = _check_model("decompress", model)
    c = coder.spec
    count, channels, height, width, top, model_of, packing = _header("decompress", data)
    if model_of != coder.decoder_digest() or (channels, top + 1) != (c.channels, c.levels):
        got = f"{model_of.hex()} for {channels} channels, {top + 1} levels"
        raise ValueError(f"decompress: expected a file of this model, {coder.decoder_digest().hex()}; got {got}")
    sizes = (count, channels, height, width)
    if not height or not width:
        raise ValueError(f"decompress: expected images of at least 1x1 pixels; got {sizes}")
    grid = _grid(coder, height, width)
    needed = math.prod(sizes) + min(count, 1) * math.prod(grid) * _bytes_per_code(coder)
    if needed > max_bytes:
        expected = f"images that take at most max_bytes={max_bytes} to decode"
        raise ValueError(f"decompress: expected {expected}; got {sizes}, which take about {needed}")
    body, values = data[HEADER.size : -CHECKSUM.size], count * math.prod(grid)
    if packing == BY_PRIOR:
        return _decoded(coder, _CodesByPrior(coder, body, values, max_bytes), sizes, grid)
    return _decoded(coder, _Codes(packing, body, values, coder.code_count), sizes, grid)


def info(data: bytes) -> FileInfo:
    """That of a file, see `genfast.tasks.file_info`."""
    count, channels, height, width, top, model_of, _ = _header("file_info", data)
    sizes = (count, channels, height, width, top + 1, 0, len(data))
    return FileInfo("codes", VERSION, *sizes, block=count, blocks=1, model=model_of.hex(), model_size=0)


def _header(call: str, data: bytes) -> tuple[int, int, int, int, int, bytes, int]:
    """(images, channels, height, width, levels - 1, model, packing) of a whole file; ValueError for another."""
    if len(data) < HEADER.size + CHECKSUM.size:
        raise ValueError(f"{call}: expected a whole file; got {len(data)} bytes")
    _, version, packing, *sizes, model_of = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"{call}: expected version {VERSION} of the format; got {version}")
    if zlib.crc32(data[: -CHECKSUM.size]) != CHECKSUM.unpack(data[-CHECKSUM.size :])[0]:
        raise ValueError(f"{call}: expected a whole file; got one whose checksum is wrong: cut off or damaged")
    return (*sizes, model_of, packing)


def _check_model(call: str, model: nn.Module) -> CodeModel:
    if not isinstance(model, nn.Module) or not isinstance(model, CodeModel):
        raise TypeError(f"{call}: model must have codes, as genfast.models.VQVAE has; got {type(model).__name__}")
    if model.spec.levels > MOST_LEVELS:
        expected = f"of images of at most {MOST_LEVELS} levels, which a file has a byte for"
        raise ValueError(f"{call}: model must be {expected}; got {model.spec.levels}")
    return model


def _grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width of the codes of an image of any size."""
    step = model.stride
    return -(-height // step), -(-width // step) * model.codes_per_place


@torch.no_grad()
def _encoded(model: Any, images: Tensor) -> np.ndarray:
    """The codes of images, int64 [N, h, w]."""
    height, width = images.shape[2:]
    step, device = model.stride, device_of(model)
    parts = [np.zeros((0, *_grid(model, height, width)), np.int64)]
    for part in images.split(_batch_size(model, height, width)) if len(images) else ():
        # Padded to a multiple of the stride by repeating the last row and column.
        levels = F.pad(part.to(device).float(), (0, -width % step, 0, -height % step), mode="replicate")
        parts.append(model.encode(levels.to(torch.uint8), any_size=True).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def _decoded(model: Any, codes: _Codes | _CodesByPrior, sizes: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    device, (count, _, height, width) = device_of(model), sizes
    decoded = torch.empty(sizes, dtype=torch.uint8, device="cpu")
    for images in decoded.split(_batch_size(model, height, width)) if count else ():
        part = torch.from_numpy(codes.take(len(images) * math.prod(grid)).reshape(-1, *grid))
        images.copy_(_levels(model, part.to(device))[:, :, :height, :width])
    return decoded


def _levels(model: Any, codes: Tensor) -> Tensor:
    return model.likelihood.expected(model.decode(codes, any_size=True)).round().to(torch.uint8)


class _Largest(TorchFunctionMode):
    """The most bytes that the arguments and the result of a function of torch take together."""

    bytes = 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [part for part in (result, *args) if isinstance(part, Tensor)]
        self.bytes = max(self.bytes, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
        return result


@torch.no_grad()
def _bytes_per_code(model: Any) -> int:
    """About how much memory the decoding of one more code takes, by that of two small grids."""
    taken = []
    for side in (4, 8):
        codes = torch.zeros(1, side, side * model.codes_per_place, dtype=torch.int64, device=device_of(model))
        with _Largest() as largest:
            _levels(model, codes)
        taken.append(largest.bytes)
    # Twice: an allocator and a convolution keep more than the tensors.
    return 2 * (taken[1] - taken[0]) // ((64 - 16) * model.codes_per_place)


def _batch_size(model: Any, height: int, width: int) -> int:
    """Images at a time, by the size to which they are padded."""
    step = model.stride
    return max(1, BATCH_VALUES // ((height + -height % step) * (width + -width % step)))


def _bits(codes: int) -> int:
    return max(1, (codes - 1).bit_length())


def _packed(codes: np.ndarray, count: int) -> tuple[int, bytes]:
    """(packing, bytes), the smallest of all. Packing is 2 * compression, plus 1 if codes have whole bytes."""
    wide = np.ascontiguousarray(codes, ">u2").view(np.uint8).reshape(-1, 2)
    bits = np.packbits(np.unpackbits(wide, axis=1)[:, 16 - _bits(count) :])
    whole = wide if count > 256 else np.ascontiguousarray(wide[:, 1])
    packings = {}
    for kind, raw in enumerate((bits.tobytes(), whole.tobytes())):
        packings[kind] = raw
        packings[2 + kind] = min(
            (_deflated(raw, how) for how in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)), key=len
        )
        packings[4 + kind] = lzma.compress(raw, lzma.FORMAT_RAW, filters=LZMA)
    return min(packings.items(), key=lambda item: len(item[1]))


def _packed_by_prior(model: Any, codes: np.ndarray, labels: int | Tensor | None) -> bytes | None:
    """The codes as a file of the model's prior; None without a prior that serves them."""
    prior = _prior_engine(model)
    if prior is None or not len(codes) or prior.network.spec.shape != (1, *codes.shape[1:]):
        return None
    if prior.network.spec.classes and labels is None:
        return None
    block = min(MOST_BLOCK, max(1, BLOCK_VALUES // codes[0].size))
    return compress_images(Coder.of(prior, "compress"), torch.from_numpy(codes)[:, None], labels, False, block)


def _prior_engine(model: Any) -> Engine | None:
    if model.prior is None:
        return None
    engine = Engine(model.prior)
    return engine if engine.backend == "cpp" else None


def _deflated(raw: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(raw) + packer.flush()


class _Codes:
    """The codes that `_packed` packed, a part at a time. ValueError for more or fewer, and for anything else."""

    def __init__(self, packing: int, body: bytes, values: int, count: int) -> None:
        self.count, self.bits = count, (16 if count > 256 else 8) if packing % 2 else _bits(count)
        size, unpacked = (values * self.bits + 7) // 8, 0
        for part in _inflated(packing // 2, body):
            unpacked += len(part)
            if unpacked > size:
                break
        if unpacked != size:
            raise ValueError(f"decompress: expected {size} bytes of codes; got {min(unpacked, size + 1)}")
        self.parts, self.held, self.used = _inflated(packing // 2, body), b"", 0  # bits of `held`

    def take(self, values: int) -> np.ndarray:
        """The next codes, int64 [values]."""
        end = self.used + values * self.bits
        parts, held = [self.held], len(self.held)
        while 8 * held < end:
            parts.append(next(self.parts))
            held += len(parts[-1])
        self.held = b"".join(parts)
        bits = np.unpackbits(np.frombuffer(self.held, np.uint8)[: (end + 7) // 8])[self.used : end]
        self.held, self.used = self.held[end // 8 :], end % 8
        codes = bits.reshape(values, self.bits).astype(np.int64) @ (1 << np.arange(self.bits - 1, -1, -1))
        if values and (top := int(codes.max())) >= self.count:
            raise ValueError(f"decompress: expected codes of 0 to {self.count - 1}; got {top}")
        return codes


class _CodesByPrior:
    """The codes that `_packed_by_prior` packed, a part at a time."""

    def __init__(self, model: Any, body: bytes, values: int, max_bytes: int) -> None:
        prior = _prior_engine(model)
        if prior is None:
            raise ValueError("decompress: expected a model with its prior on the CPU, by which the codes are packed")
        file = LosslessFile(body, prior, max_bytes)
        header = file.header
        if (held := header.count * header.spec.channels * header.height * header.width) != values:
            raise ValueError(f"decompress: expected {values} codes; got {held}")
        self.codes, self.used = file.images(0, len(header.blocks)).numpy().astype(np.int64).ravel(), 0

    def take(self, values: int) -> np.ndarray:
        """The next codes, int64 [values]."""
        self.used += values
        return self.codes[self.used - values : self.used]


def _inflated(how: int, body: bytes) -> Iterator[bytes]:
    """The unpacked bytes in parts, so that a small file need not unpack to a large one."""
    if how not in (0, 1, 2):
        raise ValueError(f"decompress: expected a packing of 0 to 5; got one of {2 * how}")
    try:
        if how == 0:
            yield from (body[start : start + PART] for start in range(0, len(body), PART))
        elif how == 1:
            deflated = zlib.decompressobj(-15)
            part = deflated.decompress(body, PART)
            while part:
                yield part
                part = deflated.decompress(deflated.unconsumed_tail, PART)
        else:
            packed = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=LZMA)
            part = packed.decompress(body, PART)
            while part:
                yield part
                part = b"" if packed.eof else packed.decompress(b"", PART)
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"decompress: expected packed codes; got {error}") from None
