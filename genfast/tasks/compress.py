"""Lossy compression by the codes of a model: images to bytes, and back."""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast.engine.protocols import CodeModel, device_of
from genfast.engine.wrappers import unwraps

# Magic, version, packing, images, channels, height, width, levels - 1, model; big-endian. The body and a CRC-32 of
# everything before follow.
HEADER, CHECKSUM = struct.Struct(">4sBBIBHHB8s"), struct.Struct(">I")
MAGIC, VERSION = b"GFVQ", 1
# More than a batch of photographs. A file that claims more is not decoded.
MOST_VALUES = 2**31
BATCH_VALUES = 2**20
# Codes have no alignment or context like text. The dictionary is small, as it is allocated even for a tiny file.
LZMA = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20, "lc": 0, "lp": 0, "pb": 0}]


@unwraps
def compress(model: nn.Module, images: Tensor) -> bytes:
    """The codes of images as the bytes of a file.

    Codes are packed to the bits that they need, or to whole bytes, and compressed by zlib or lzma; the smallest result
    is taken. Images may have any size, also one that the model was not trained on.

    Args:
        model: a `genfast.engine.protocols.CodeModel`, as `genfast.models.VQVAE` is.
        images: uint8 [N, C, H, W], levels, with the model's C and levels; H and W at least 1.
    Returns: bytes, which `decompress` reads.
    Raises: TypeError or ValueError for another model or images.
    """
    coder = _check_model("compress", model)
    c = coder.spec
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"compress: images must be levels, torch.uint8; got {got}")
    if images.dim() != 4 or images.shape[1] != c.channels or not all(1 <= n < 2**16 for n in images.shape[2:]):
        expected = f"[N, C, H, W] with C={c.channels}, H and W from 1 to 65535"
        raise ValueError(f"compress: images must have shape {expected}; got {tuple(images.shape)}")
    if images.numel() > MOST_VALUES:
        raise ValueError(f"compress: images must hold at most {MOST_VALUES} values; got {images.numel()}")
    if images.numel() and (top := int(images.max())) >= c.levels:
        raise ValueError(f"compress: images must lie in 0..{c.levels - 1}; got {top}")
    packing, body = _packed(_encoded(coder, images), coder.code_count)
    count, channels, height, width = images.shape
    header = HEADER.pack(MAGIC, VERSION, packing, count, channels, height, width, c.levels - 1, coder.decoder_digest())
    return header + body + CHECKSUM.pack(zlib.crc32(header + body))


@unwraps
def decompress(model: nn.Module, data: bytes) -> Tensor:
    """The images of a file that `compress` of the same model wrote: uint8 [N, C, H, W] on the CPU.

    Raises: ValueError for bytes that are no such file, incomplete, damaged, or of another model.
    """
    coder = _check_model("decompress", model)
    c = coder.spec
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"decompress: data must be bytes; got {type(data).__name__}")
    data = bytes(data)
    if data[:4] != MAGIC:
        raise ValueError(f"decompress: expected a file of genfast compress; got one that begins with {data[:4]!r}")
    if len(data) < HEADER.size + CHECKSUM.size:
        raise ValueError(f"decompress: expected a whole file; got {len(data)} bytes")
    _, version, packing, count, channels, height, width, top, model_of = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"decompress: expected version {VERSION} of the format; got {version}")
    if zlib.crc32(data[: -CHECKSUM.size]) != CHECKSUM.unpack(data[-CHECKSUM.size :])[0]:
        raise ValueError("decompress: expected a whole file; got one whose checksum is wrong: cut off or damaged")
    if model_of != coder.decoder_digest() or (channels, top + 1) != (c.channels, c.levels):
        got = f"{model_of.hex()} for {channels} channels, {top + 1} levels"
        raise ValueError(f"decompress: expected a file of this model, {coder.decoder_digest().hex()}; got {got}")
    if not height or not width or count * channels * height * width > MOST_VALUES:
        sizes = (count, channels, height, width)
        raise ValueError(f"decompress: expected images of 1 to {MOST_VALUES} values in all; got {sizes}")
    shape = (count, *_grid(coder, height, width))
    codes = _unpacked(packing, data[HEADER.size : -CHECKSUM.size], shape, coder.code_count)
    return _decoded(coder, codes, height, width)


def _check_model(call: str, model: nn.Module) -> CodeModel:
    if not isinstance(model, nn.Module) or not isinstance(model, CodeModel):
        raise TypeError(f"{call}: model must have codes, as genfast.models.VQVAE has; got {type(model).__name__}")
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
    for part in _parts(images):
        # Padded to a multiple of the stride by repeating the last row and column.
        levels = F.pad(part.to(device).float(), (0, -width % step, 0, -height % step), mode="replicate")
        parts.append(model.encode(levels.to(torch.uint8), any_size=True).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def _decoded(model: Any, codes: np.ndarray, height: int, width: int) -> Tensor:
    device = device_of(model)
    parts = [torch.zeros(0, model.spec.channels, height, width, dtype=torch.uint8, device="cpu")]
    size = max(1, BATCH_VALUES // (height * width))
    for part in torch.from_numpy(codes).split(size):
        images = model.likelihood.expected(model.decode(part.to(device), any_size=True)).round().to(torch.uint8)
        parts.append(images[:, :, :height, :width].cpu())
    return torch.cat(parts)


def _parts(images: Tensor) -> Sequence[Tensor]:
    return images.split(max(1, BATCH_VALUES // (images.shape[2] * images.shape[3]))) if len(images) else ()


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


def _deflated(raw: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(raw) + packer.flush()


def _unpacked(packing: int, body: bytes, shape: tuple[int, ...], count: int) -> np.ndarray:
    """The codes int64 [N, h, w] that `_packed` packed; ValueError for anything else."""
    values, bits = math.prod(shape), _bits(count)
    whole = packing % 2
    size = values * (2 if count > 256 else 1) if whole else (values * bits + 7) // 8
    raw = _inflated(packing // 2, body, size)
    if len(raw) != size:
        raise ValueError(f"decompress: expected {size} bytes of codes; got {len(raw)}")
    array = np.frombuffer(raw, np.uint8)
    if whole:
        codes = array.view(">u2" if count > 256 else np.uint8).astype(np.int64)
    else:
        table = np.unpackbits(array)[: values * bits].reshape(values, bits).astype(np.int64)
        codes = table @ (1 << np.arange(bits - 1, -1, -1))
    if values and (top := int(codes.max())) >= count:
        raise ValueError(f"decompress: expected codes of 0 to {count - 1}; got {top}")
    return codes.reshape(shape)


def _inflated(how: int, body: bytes, size: int) -> bytes:
    """At most size + 1 bytes, so that a small file cannot unpack to a large one."""
    try:
        if how == 0:
            return body
        if how == 1:
            return zlib.decompressobj(-15).decompress(body, size + 1)
        if how == 2:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=LZMA).decompress(body, size + 1)
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"decompress: expected packed codes; got {error}") from None
    raise ValueError(f"decompress: expected a packing of 0 to 5; got one of {2 * how}")
