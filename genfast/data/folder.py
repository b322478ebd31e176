"""A folder of image files, read with Pillow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genfast.data._images import SPLITS, ImageData, check_split, image_data, quantise, split_indices
from genfast.data._registry import DataRequest, register_dataset

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
GREY = {"1", "L", "I", "I;16", "I;16B", "I;16L", "LA"}


@register_dataset("a folder", "its image files", options=("size", "levels"), matches=Path.is_dir)
def _read(request: DataRequest) -> ImageData:
    path, split = Path(request.name), request.split
    return load_folder(path, split, strict=request.strict, size=request.size, levels=request.levels)


def load_folder(
    folder: str | Path, split: str, *, strict: bool = False, size: int | None = None, levels: int | None = None
) -> ImageData:
    """Images below `folder`, from its subfolder `split` if it has such subfolders, else split 80 / 10 / 10.

    One channel if all are grey, else three. `size` crops each to a centred square and resizes it; `levels` reduces the
    256 values of a channel to so many. Broken files are skipped and counted; with `strict` the first of them raises.
    `read_image` says how alpha, 16 bits and the EXIF orientation are read.
    """
    check_split(split)
    folder = Path(folder)
    levels = levels or 256
    if not 2 <= levels <= 256:
        raise ValueError(f"{folder}: expected 2 to 256 levels; got {levels}")
    if size is not None and size < 1:
        raise ValueError(f"{folder}: expected a size of at least 1 pixel; got {size}")
    named = [name for name in SPLITS if (folder / name).is_dir()]
    if named and split not in named:
        raise LookupError(f"{folder}: expected a subfolder {split!r}; got only {', '.join(named)}")
    everything = image_files(folder)
    if not everything:
        raise ValueError(f"{folder}: expected image files ({', '.join(sorted(SUFFIXES))}); got none")
    indices = split_indices(len(everything), split)
    files = image_files(folder / split) if named else [everything[i] for i in indices]
    channels = 1 if all(is_grey(path) for path in everything) else 3
    images, broken = _decode(files, channels, size, strict)
    if not images:
        got = f"{len(broken)} broken files of {len(files)}" + (f", {files[0]}: {broken[0]}" if broken else "")
        raise ValueError(f"{folder}: expected at least one readable image for {split!r}; got {got}")
    stack = np.stack([image for _, image in _same_size(images)])
    return image_data(quantise(stack, levels).transpose(0, 3, 1, 2), levels, f"{folder}[{split}]", len(broken))


def read_images(paths: Iterable[str | Path], channels: int, levels: int) -> Tensor:
    """Image files of one size as levels: uint8 [N, C, H, W], quantised as those of a folder are.

    Raises: FileNotFoundError for a file that is not there; ValueError for one that is broken or of another size.
    """
    files = [Path(path) for path in paths]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected an image file; got none")
    images, _ = _decode(files, channels, None, strict=True)
    stack = np.stack([image for _, image in _same_size(images)])
    return torch.from_numpy(np.ascontiguousarray(quantise(stack, levels).transpose(0, 3, 1, 2)))


def image_files(folder: Path) -> list[Path]:
    """The files below a folder with the suffix of an image, sorted.

    Hidden files and folders, whose names begin with a dot, are left out. Links to folders are not followed.
    """
    images = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in images if not any(part[0] == "." for part in path.relative_to(folder).parts))


def is_grey(path: str | Path) -> bool:
    """Whether an image file has no colours; True for a broken file, which says nothing about the others."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode == "P":
                palette = np.asarray(image.getpalette()).reshape(-1, 3)
                return bool((palette == palette[:, :1]).all())
            return image.mode in GREY
    except Exception:  # _decode reports it
        return True


def _decode(
    files: list[Path], channels: int, size: int | None, strict: bool
) -> tuple[list[tuple[Path, np.ndarray]], list[str]]:
    """([(path, image)] of the readable files, the error of each of the others)."""
    images, broken = [], []
    for path in files:
        try:
            images.append((path, read_image(path, channels, size)))
        except Exception as error:  # Pillow's decoders raise whatever their format's parser raises
            if strict:
                raise ValueError(f"{path}: expected a readable image; got {error}") from None
            broken.append(str(error).replace("\n", " "))
    return images, broken


def read_image(path: str | Path, channels: int, size: int | None = None) -> np.ndarray:
    """An image file as uint8 [H, W, C] of 1 or 3 channels; cropped to a centred square of `size` pixels if given.

    The EXIF orientation is applied. Transparent pixels are composited on black. Of 16-bit grey the upper 8 bits are
    kept; 32-bit values count as 8-bit if none is above 255, else as 16-bit.

    Raises: ValueError for pixels that are floats or need more than 16 bits; what Pillow raises for a broken file.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = _eight_bits(ImageOps.exif_transpose(file))
        if image.mode[-1] in "Aa" or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        image = image.convert("L" if channels == 1 else "RGB")
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BOX)
        return np.asarray(image).reshape(image.height, image.width, channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image whose grey values may have more than 8 bits, which `convert` would clip instead of scaling."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("expected pixels of 8 or 16 bits; got floats (mode F), whose range is not known")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**16:
        raise ValueError(f"expected pixels of 8 or 16 bits; got values from {low} to {high} (mode {image.mode})")
    shift = 0 if image.mode == "I" and high < 256 else 8
    return Image.fromarray((values >> shift).astype(np.uint8))


def _same_size(images: list[tuple[Path, np.ndarray]]) -> list[tuple[Path, np.ndarray]]:
    first_path, first = images[0]
    for path, image in images:
        if image.shape != first.shape:
            expected = f"one size, {_size(first)} as in {first_path.name}, or --size"
            raise ValueError(f"{path}: expected {expected}; got {_size(image)}")
    return images


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
