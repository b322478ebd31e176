"""Sizes of a set of images under general compressors, in the unit of a likelihood: nats per image."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike


def gzip_nats(images: ArrayLike, levels: int) -> float:
    """Size of the whole set in one gzip stream: `images` uint8 [N, C, H, W] -> nats per image, a float.

    The smaller of packed levels (1, 2, 4 or 8 bits each) and whole bytes.
    """
    array = checked(images)
    packed = _packed_rows(array.reshape(1, -1), _bit_depth(levels))
    size = min(len(gzip.compress(data.tobytes(), compresslevel=9, mtime=0)) for data in (packed, array))
    return _nats(size, len(array))


def png_nats(images: ArrayLike, levels: int) -> float:
    """Size of the whole set as one PNG: `images` uint8 [N, C, H, W] with C 1 or 3 -> nats per image, a float.

    The images are stacked vertically, so that they share one header.
    """
    array = checked(images)
    tall = array.transpose(0, 2, 3, 1).reshape(-1, array.shape[3], array.shape[1])
    return _nats(len(png_bytes(tall, levels)), len(array))


def png_bytes(image: np.ndarray, levels: int = 256) -> bytes:
    """A PNG of uint8 [H, W, C] with C 1 or 3, with the best of the five row filters; grey levels are packed."""
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise ValueError(f"png_bytes: expected 1 or 3 channels; got {channels}")
    depth = _bit_depth(levels) if channels == 1 else 8
    rows = _packed_rows(image.reshape(height, width * channels), depth)
    body = min((zlib.compress(rows_filtered, 9) for rows_filtered in _filtered(rows, channels)), key=len)
    header = struct.pack(">IIBBBBB", width, height, depth, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def checked(images: ArrayLike) -> np.ndarray:
    """Images as a contiguous array uint8 [N, C, H, W], not empty; TypeError or ValueError for others."""
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise TypeError(f"images: expected uint8 levels; got {array.dtype}")
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"images: expected shape [N, C, H, W], not empty; got {array.shape}")
    return np.ascontiguousarray(array)


def _nats(size: int, count: int) -> float:
    return 8 * size * math.log(2) / count


def _bit_depth(levels: int) -> int:
    return next(depth for depth in (1, 2, 4, 8) if levels <= 2**depth)


def _packed_rows(rows: np.ndarray, depth: int) -> np.ndarray:
    if depth == 8:
        return rows
    bits = np.unpackbits(rows[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(rows), -1), axis=-1)


def _filtered(rows: np.ndarray, step: int) -> Iterator[bytes]:
    """The rows under each PNG filter: none, sub, up, average, Paeth (PNG specification, section 9)."""
    wide = rows.astype(np.int16)
    above = np.pad(wide, ((1, 0), (0, 0)))[:-1]
    left = np.pad(wide, ((0, 0), (step, 0)))[:, : rows.shape[1]]
    corner = np.pad(above, ((0, 0), (step, 0)))[:, : rows.shape[1]]
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    paeth = np.where(to_above <= to_corner, above, corner)
    paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
    for kind, predicted in enumerate((np.zeros_like(wide), left, above, (left + above) // 2, paeth)):
        yield np.pad((wide - predicted).astype(np.uint8), ((0, 0), (1, 0)), constant_values=kind).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
