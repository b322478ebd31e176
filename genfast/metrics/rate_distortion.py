"""Rate and distortion of a codec, beside JPEG at the same size."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast.data.grid import brightness
from genfast.engine.wrappers import unwraps
from genfast.metrics.distortion import psnr
from genfast.tasks.compress import compress, decompress

QUALITIES = range(1, 96)


@dataclass(frozen=True)
class Rate:
    """One row of `rate_distortion`.

    Attributes:
        name: of the method.
        size: bytes of all images.
        bits_per_pixel: of one pixel of all its channels.
        psnr: dB over all images.
        note: a remark, or "".
    """

    name: str
    size: int
    bits_per_pixel: float
    psnr: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name:<26} {self.size:9d} {self.bits_per_pixel:9.4f} {self.psnr:8.2f}  {self.note}".rstrip()


@unwraps
def rate_distortion(model: Any, images: Tensor) -> list[Rate]:
    """Rate and distortion of a model's compression, and of JPEG at the same size.

    JPEG has the lowest quality with at least as many bytes, and the better of full and halved colour resolution. There
    are two rows of JPEG: all images in one picture, with one header, and one file for each image. Needs Pillow.

    Args: as `compress`; at least one image.
    """
    data = compress(model, images)
    spec, pixels = model.spec, images.shape[0] * images.shape[2] * images.shape[3]
    if not pixels:
        raise ValueError("rate_distortion: images must hold at least one; got none")
    # The images are the caller's own, of whatever size.
    quality = psnr(decompress(data, model, max_bytes=2**62), images.cpu(), spec.levels)
    rates = [Rate("vq-vae", len(data), 8 * len(data) / pixels, quality)]
    shown = brightness(images, spec.levels)
    rates.append(_jpeg(_one_picture(shown), shown, len(data), "JPEG, one picture"))
    if len(images) > 1:
        rates.append(_jpeg(_each(shown), shown, len(data), "JPEG, a file each"))
    return rates


def table(rates: list[Rate]) -> list[str]:
    """The rows of `rate_distortion` as lines of text, with a heading."""
    return [f"{'':<26} {'bytes':>9} {'bits/px':>9} {'PSNR dB':>8}", *map(str, rates)]


def _one_picture(images: Tensor) -> list[np.ndarray]:
    """All images tiled into one picture, the last cells empty: a list of one array [H, W, C]."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    count, channels, height, width = images.shape
    cells: np.ndarray = np.zeros((rows * columns, channels, height, width), np.uint8)
    cells[:count] = images.numpy()
    cells = cells.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return [cells.reshape(rows * height, columns * width, channels)]


def _each(images: Tensor) -> list[np.ndarray]:
    return list(images.numpy().transpose(0, 2, 3, 1))


def _jpeg(pictures: list[np.ndarray], truth: Tensor, wanted: int, name: str) -> Rate:
    """The `Rate` of JPEG files of at least `wanted` bytes in total; `truth`: the images, uint8 [N, C, H, W]."""
    candidates = []
    for sampling in (0, 2) if pictures[0].shape[2] == 3 else (0,):
        low, high = QUALITIES[0], QUALITIES[-1]
        while low < high:  # the lowest quality of enough bytes
            middle = (low + high) // 2
            enough = sum(map(len, _files(pictures, middle, sampling))) >= wanted
            low, high = (low, middle) if enough else (middle + 1, high)
        files = _files(pictures, low, sampling)
        size, headers = sum(map(len, files)), sum(map(_header, files))
        note = f"quality {low}, {'4:2:0' if sampling else '4:4:4'}"
        if headers >= wanted:
            note += f"; {headers} bytes are headers"
        pixels = truth.shape[0] * truth.shape[2] * truth.shape[3]
        candidates.append(Rate(name, size, 8 * size / pixels, psnr(_cut(files, truth), truth, 256), note))
    # Sizes up to 5 % above the wanted one count as equal.
    return min(candidates, key=lambda rate: (max(rate.size, 1.05 * wanted), -rate.psnr))


def _files(pictures: list[np.ndarray], quality: int, sampling: int) -> list[bytes]:
    from PIL import Image

    files = []
    for picture in pictures:
        buffer, array = io.BytesIO(), picture[..., 0] if picture.shape[2] == 1 else picture
        Image.fromarray(array).save(buffer, "JPEG", quality=quality, optimize=True, subsampling=sampling)
        files.append(buffer.getvalue())
    return files


def _header(file: bytes) -> int:
    """Bytes before the coded data, to the end of the start-of-scan segment."""
    scan = file.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big")


def _cut(files: list[bytes], truth: Tensor) -> Tensor:
    """The images of JPEG files, each of one image or of tiled images, as uint8 [N, C, H, W]."""
    from PIL import Image

    count, channels, height, width = truth.shape
    cells = []
    for file in files:
        array = np.asarray(Image.open(io.BytesIO(file)))
        array = array.reshape(array.shape[0] // height, height, array.shape[1] // width, width, channels)
        cells.append(array.transpose(0, 2, 4, 1, 3).reshape(-1, channels, height, width))
    return torch.from_numpy(np.concatenate(cells)[:count].copy())
