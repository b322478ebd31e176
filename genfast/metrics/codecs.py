"""Sizes of a set of images under lossless codecs that need no model: PNG, WebP, JPEG XL, bzip2 and xz."""

from __future__ import annotations

import bz2
import io
import lzma
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from genfast.metrics.compression import checked, png_bytes

MOST_FILES = 2000  # of one image each
# Of the pictures or bytes that a codec gets: some seconds to minutes of the slowest, which take 20 us a pixel and more.
MOST_PIXELS = {"png": 2**24, "webp": 2**20, "jpeg-xl": 2**20}
MOST_BYTES = 2**26
MOST_SIDE = {"png": 2**31 - 1, "webp": 16383, "jpeg-xl": 2**30}
Encode = Callable[[np.ndarray, bool], bytes]


@dataclass(frozen=True)
class CodecSize:
    """What a set of images takes under a codec.

    Attributes:
        size: bytes of all images; None where the codec cannot be had.
        note: what was packed to bits, measured on a part and scaled, or is missing; or "".
    """

    size: int | None
    note: str = ""


def classical_sizes(images: ArrayLike) -> dict[str, CodecSize]:
    """Bytes of a set of images under each lossless codec, at its slowest setting, in two ways.

    "CODEC each" is a file for each image, "CODEC one" all of them together: a mosaic, in as few pictures as a codec's
    largest takes, or the levels one after the other. CODEC is png, webp, jpeg-xl (effort 9), bz2 or xz. Images of two
    levels are also tried with a bit for each, as PNG and for bz2 and xz. Where there are many images, some that are
    evenly spread among them stand for all: at most 2,000 for "each".

    Args:
        images: uint8 [N, C, H, W], at least one; PNG, WebP and JPEG XL need C of 1 or 3.
    Returns: {name: `CodecSize`}. PNG and WebP need Pillow, JPEG XL imagecodecs: the extra `codecs`.
    Raises: TypeError or ValueError for other images.
    Example: `{name: size.size for name, size in classical_sizes(images).items()}`
    """
    array = checked(images)
    two = len(np.flatnonzero(np.bincount(array.reshape(-1)))) <= 2
    sizes = {}
    for name, (encode, missing) in _picture_codecs().items():
        if array.shape[1] not in (1, 3):
            missing = f"needs 1 or 3 channels; these have {array.shape[1]}"
        elif max(array.shape[2:]) > MOST_SIDE[name]:
            missing = f"needs sides of at most {MOST_SIDE[name]} pixels"
        for way in ("each", "one"):
            sizes[f"{name} {way}"] = (
                CodecSize(None, missing) if missing else _of_pictures(array, name, way, encode, two)
            )
    for name, pack in (("bz2", bz2.compress), ("xz", _xz)):
        for way in ("each", "one"):
            sizes[f"{name} {way}"] = _of_bytes(array, way, pack, two)
    return sizes


def codec_table(sizes: Mapping[str, CodecSize], values: int) -> list[str]:
    """The result of `classical_sizes` of images of so many values in all as lines of text, with a heading."""
    lines = [f"{'beside it':<18} {'bytes':>10} {'bits/dim':>9}"]
    for name, taken in sizes.items():
        bits = "" if taken.size is None else f"{8 * taken.size / values:.4f}"
        lines.append(f"{name:<18} {taken.size or '-':>10} {bits:>9}  {taken.note}".rstrip())
    return lines


def mosaic(images: np.ndarray, most_side: int) -> list[np.ndarray]:
    """Images [N, C, H, W] tiled into nearly square pictures [H', W', C], as few as may be; the last cells are zero.

    `most_side`: of a picture, in pixels; not less than H and W.
    """
    count, channels, height, width = images.shape
    columns = min(most_side // width, max(1, round(math.sqrt(count * height / width))))
    rows = min(most_side // height, -(-count // columns))
    pictures = []
    for start in range(0, count, rows * columns):
        part = images[start : start + rows * columns]
        used = -(-len(part) // columns)
        cells = np.zeros((used * columns, channels, height, width), np.uint8)
        cells[: len(part)] = part
        cells = cells.reshape(used, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
        pictures.append(cells.reshape(used * height, columns * width, channels))
    return pictures


def _of_pictures(array: np.ndarray, name: str, way: str, encode: Encode, two: bool) -> CodecSize:
    taken, count = _spread(array, way, max(1, MOST_PIXELS[name] // math.prod(array.shape[2:])))
    pictures = list(taken.transpose(0, 2, 3, 1)) if way == "each" else mosaic(taken, MOST_SIDE[name])
    variants = {"": sum(len(encode(picture, False)) for picture in pictures)}
    if two and name == "png" and array.shape[1] == 1:
        top = array.max()
        bits = [(picture == top).astype(np.uint8) for picture in pictures]
        variants["a bit for each level"] = sum(len(encode(picture, True)) for picture in bits)
    more = f"in {len(pictures)} pictures" if way == "one" and len(pictures) > 1 else ""
    return _smallest(variants, len(taken), count, more)


def _of_bytes(array: np.ndarray, way: str, pack: Callable[[bytes], bytes], two: bool) -> CodecSize:
    taken, count = _spread(array, way, max(1, MOST_BYTES // array[0].size))
    rows = taken.reshape(len(taken) if way == "each" else 1, -1)
    variants = {"": sum(len(pack(row.tobytes())) for row in rows)}
    if two:
        bits = np.packbits(rows == array.max(), axis=1)
        variants["a bit for each level"] = sum(len(pack(row.tobytes())) for row in bits)
    return _smallest(variants, len(taken), count, "")


def _spread(array: np.ndarray, way: str, most: int) -> tuple[np.ndarray, int]:
    """(images that stand for all, how many all are)."""
    most = min(most, MOST_FILES) if way == "each" else most
    count = len(array)
    return (array if count <= most else array[np.arange(most) * count // most]), count


def _smallest(variants: dict[str, int], taken: int, count: int, more: str) -> CodecSize:
    kind, size = min(variants.items(), key=lambda item: item[1])
    part = f"scaled from {taken} of {count} images" if taken < count else ""
    return CodecSize(round(size * count / taken), "; ".join(text for text in (kind, more, part) if text))


def _picture_codecs() -> dict[str, tuple[Encode, str]]:
    """Of each codec: what encodes a picture [H, W, C], and why it cannot be had, or ""."""
    try:
        from PIL import features

        png, webp = "", "" if features.check("webp") else "needs a Pillow with WebP"
    except ImportError:
        png = webp = "needs Pillow"
    try:
        import imagecodecs

        jpeg_xl = "" if imagecodecs.JPEGXL.available else "needs an imagecodecs with JPEG XL"
    except ImportError:
        jpeg_xl = "needs imagecodecs"
    return {"png": (_png, png), "webp": (_webp, webp), "jpeg-xl": (_jpeg_xl, jpeg_xl)}


def _png(picture: np.ndarray, one_bit: bool) -> bytes:
    """The smaller of one filter for all rows and of Pillow's choice for each."""
    files = [png_bytes(picture, 2 if one_bit else 256)]
    if not one_bit:
        files.append(_saved(picture, "PNG", optimize=True))
    return min(files, key=len)


def _webp(picture: np.ndarray, one_bit: bool) -> bytes:
    return _saved(picture, "WEBP", lossless=True, quality=100, method=6)


def _jpeg_xl(picture: np.ndarray, one_bit: bool) -> bytes:
    import imagecodecs

    array = picture[..., 0] if picture.shape[2] == 1 else picture
    return bytes(imagecodecs.jpegxl_encode(np.ascontiguousarray(array), lossless=True, effort=9))


def _saved(picture: np.ndarray, kind: str, **options: bool | int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def _xz(data: bytes) -> bytes:
    """A file of xz at its best; a dictionary that is larger than the data would be allocated for nothing."""
    window = min(2**26, max(2**12, 1 << len(data).bit_length()))
    best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}
    return lzma.compress(data, lzma.FORMAT_XZ, filters=[best])
