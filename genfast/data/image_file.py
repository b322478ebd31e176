"""One image file, read with Pillow as it is seen: turned, on black where it is transparent, 8 bits of each channel."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

GREY = {"1", "L", "I", "I;16", "I;16B", "I;16L", "LA", "La"}
MOST_BITS = 32
SMALL = 2**24  # pixels that a file of any size may have
MOST_PIXELS = 10_000  # for each byte of a larger one; a blank PNG of 1 bit has 8,256
ANIMATED = {"GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"}


@dataclass(frozen=True)
class Decoded:
    """What is in a file.

    Attributes:
        pixels: uint8 [H, W, C].
        deepest, bits: the largest value of a file of more than 8 bits, and how many it was taken to have; else None.
        has_more: whether there are further frames or pages, which are left out.
    """

    pixels: np.ndarray
    deepest: int | None
    bits: int | None
    has_more: bool


def read_image(path: str | Path, channels: int, size: int | None = None, bits: int | None = None) -> np.ndarray:
    """An image file as uint8 [H, W, C] of 1 or 3 channels; cropped to a centred square of `size` pixels if given.

    The EXIF orientation is applied. Transparent pixels are composited on black. Of 16-bit grey the upper 8 bits are
    kept; `bits` says how many there are of values in files of 16 or 32 bits, or of floats that are whole numbers.
    Without it, 32-bit values of one file count as 8-bit if none is above 255, else as 16-bit, and floats are refused.

    Raises: ValueError for pixels that do not fit; what Pillow raises for a broken file.
    """
    return decode(path, channels, size, bits).pixels


def decode(
    path: str | Path, channels: int, size: int | None = None, bits: int | None = None, bits32: int | None = None
) -> Decoded:
    """As `read_image`, with what a user should know of the file; `bits32`: those of 32-bit values without `bits`."""
    from PIL import Image, ImageOps

    # From a file object: Pillow maps a path into memory, and then turns an uncompressed TIFF wrongly.
    with open(path, "rb") as opened, Image.open(opened) as file:
        _check_plausible(file, os.fstat(opened.fileno()).st_size)
        image, deepest, bits = _eight_bits(ImageOps.exif_transpose(file), file.format, bits, bits32)
        if image.mode[-1] in "Aa" or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        image = _converted(image, "L" if channels == 1 else "RGB")
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BOX)
        pixels = np.asarray(image).reshape(image.height, image.width, channels)
        return Decoded(pixels, deepest, bits if deepest is not None else None, _has_more(file))


def is_grey(path: str | Path) -> bool:
    """Whether an image file has no colours; True for a broken file, which says nothing about the others."""
    from PIL import Image

    try:
        with open(path, "rb") as opened, Image.open(opened) as image:
            if image.mode == "P":
                palette = np.asarray(image.getpalette()).reshape(-1, 3)
                return bool((palette == palette[:, :1]).all())
            # Pillow gives 16 bits of grey with alpha the mode RGBA.
            return image.mode in GREY or (image.mode == "RGBA" and "LA;16B" in str(image.tile))
    except Exception:  # `decode` reports it
        return True


def common_bits(paths: Iterable[str | Path]) -> int | None:
    """The bits, 8 or 16, that hold the values of all 32-bit TIFFs among the files; None if there is none.

    The scale of a set of files is one: a dark file is not stretched to the range of a bright one.
    """
    from PIL import Image

    highest: int | None = None
    for path in paths:
        if Path(path).suffix.lower() not in (".tif", ".tiff"):
            continue
        try:
            with open(path, "rb") as opened, Image.open(opened) as image:
                if image.mode == "I":
                    highest = max(highest or 0, int(np.asarray(image).max()))
        except Exception:  # noqa: S112  `decode` reports it
            continue
    return None if highest is None else 8 if highest < 256 else 16


@contextmanager
def quiet_about_size() -> Iterator[None]:
    """Reading without Pillow's warning of large pictures: the memory of all images is limited as a whole."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def why_not(path: Path, error: Exception) -> str:
    """Why a file could not be read, in a few words that are the same for files of the same fault."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"larger than Pillow's limit of {most} pixels (PIL.Image.MAX_IMAGE_PIXELS)"
    if isinstance(error, MemoryError):
        return "larger than the memory"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EACCES):
        return "not permitted to be read"
    if isinstance(error, FileNotFoundError):
        return "links to nothing"
    if isinstance(error, OSError) and path.is_file() and path.stat().st_size == 0:
        return "empty"
    if isinstance(error, UnidentifiedImageError):
        return "no image"
    if isinstance(error, UnfitError):
        return error.short
    return "damaged"


class UnfitError(ValueError):
    """Pixels of no known range, bits or colours, or too many of them; `short` says it without numbers."""

    def __init__(self, short: str, message: str) -> None:
        super().__init__(message)
        self.short = short


def _converted(image: Image.Image, mode: str) -> Image.Image:
    try:
        return image.convert(mode) if image.mode != "LAB" else image.convert("RGB").convert(mode)
    except ValueError:
        expected = f"expected colours that become {mode}; got mode {image.mode}"
        raise UnfitError(f"colours of the mode {image.mode}", expected) from None


def _check_plausible(file: Image.Image, held: int) -> None:
    """UnfitError for a header of so many pixels that the bytes of the file cannot hold them: memory is for them all."""
    pixels = file.width * file.height
    if pixels > max(SMALL, MOST_PIXELS * held):
        got = f"{file.width}x{file.height} in {held} bytes"
        raise UnfitError("a size that the file cannot hold", f"expected pixels that the file can hold; got {got}")


def _eight_bits(
    image: Image.Image, kind: str | None, bits: int | None, bits32: int | None
) -> tuple[Image.Image, int | None, int | None]:
    """(image, its largest value, its bits), of grey values that may have more than 8 bits.

    `convert` would clip them instead of scaling.
    """
    from PIL import Image

    mode = image.mode
    if mode != "F" and not mode.startswith("I"):
        return image, None, None
    array = np.asarray(image)
    if mode == "F":
        if bits is None:
            got = "floats (mode F), whose range is not known; --bits says how many bits whole numbers have"
            raise UnfitError("floats, whose range is not known", f"expected pixels of 8 or 16 bits; got {got}")
        if not np.array_equal(array, np.floor(array)):  # also where it is not finite
            raise UnfitError("floats that are no whole numbers", "expected whole numbers, as --bits says; got floats")
    values = array.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    most, expected = bits or 16, "8 or 16" if bits is None else bits
    if low < 0 or high >= 2**most:
        got = f"values from {low} to {high} (mode {mode})"
        raise UnfitError(f"values that need more than {most} bits", f"expected pixels of {expected} bits; got {got}")
    if bits is None:  # only a TIFF has 32 bits, whatever mode Pillow gives the others
        bits = (bits32 or (8 if high < 256 else 16)) if mode == "I" and kind == "TIFF" else 16
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8)), high, bits


def _has_more(file: Image.Image) -> bool:
    if file.format not in ANIMATED:
        return False
    try:
        file.seek(1)
    except Exception:  # EOFError, or what the parser of a damaged second frame raises
        return False
    return True
