"""Image files into one array, and what a user should know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genfast._text import shown
from genfast.data._budget import check_size
from genfast.data._images import quantise
from genfast.data._text import counted, reason
from genfast.data.image_file import MOST_BITS, Decoded, common_bits, decode, quiet_about_size, why_not

MOST_NAMED = 50  # files in a message


def checked_options(name: str, size: int | None, levels: int | None, bits: int | None) -> int:
    """The number of levels. ValueError for options that image files cannot follow."""
    levels = levels or 256
    if not 2 <= levels <= 256:
        raise ValueError(f"{name}: expected 2 to 256 levels; got {levels}")
    if size is not None and size < 1:
        raise ValueError(f"{name}: expected a size of at least 1 pixel; got {size}")
    if bits is not None and not 8 <= bits <= MOST_BITS:
        raise ValueError(f"{name}: expected 8 to {MOST_BITS} bits; got {bits}")
    return levels


def read_images(
    paths: Iterable[str | Path],
    channels: int,
    levels: int,
    bits: int | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> Tensor:
    """Image files of one size as levels: uint8 [N, C, H, W], quantised as those of a folder are.

    `tell` is called with what a user should know of the reading.

    Raises: FileNotFoundError for a file that is not there; ValueError for one that is broken or of another size.
    """
    files = [Path(path) for path in paths]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected an image file; got none")
    checked_options("images", None, levels, bits)
    reading = Reading("images", channels, None, levels, bits, common_bits(files))
    images = reading.read(files)
    for path, (_, message) in reading.wrong.items():
        raise ValueError(f"{path}: expected a readable image; got {message}")
    for note in reading.notes(len(files)):
        tell(note)
    return torch.from_numpy(images)


@dataclass
class Reading:
    """Reads files into one array, and counts what a user should know of them.

    Attributes:
        name: of the data, for errors.
        channels, size, bits, bits32: as `decode`.
        levels: of a channel.
        max_gb: as `check_size`.
        wrong: the fault of each file that could not be read, in short and in full.
        deep, deepest, depth: how many files have more than 8 bits, their largest value, and how many bits were read.
        animated: how many files have more than one frame.
    """

    name: str
    channels: int
    size: int | None
    levels: int
    bits: int | None = None
    bits32: int | None = None
    max_gb: float | None = None
    wrong: dict[Path, tuple[str, str]] = field(default_factory=dict)
    deep: int = 0
    deepest: int = 0
    depth: int = 0
    animated: int = 0

    def read(self, files: list[Path]) -> np.ndarray:
        """The levels of the readable files, uint8 [N, C, H, W]. ValueError for two sizes, or too many pixels."""
        images: np.ndarray | None = None
        first, count = files[0] if files else None, 0
        with quiet_about_size():
            for path in files:
                pixels = self.pixels(path)
                if pixels is None:
                    continue
                if images is None:
                    check_size(
                        len(files) * pixels.size, f"{self.name}: {len(files)} images {_size(pixels)}", self.max_gb
                    )
                    first, images = path, np.empty((len(files), *pixels.transpose(2, 0, 1).shape), np.uint8)
                if pixels.shape[:2] != images.shape[2:]:
                    expected = f"one size, {images.shape[3]}x{images.shape[2]} as in {first and first.name}, or --size"
                    raise ValueError(f"{path}: expected {expected}; got {_size(pixels)}")
                images[count] = quantise(pixels, self.levels).transpose(2, 0, 1)
                count += 1
        return np.empty((0, self.channels, 1, 1), np.uint8) if images is None else images[:count]

    def pixels(self, path: Path) -> np.ndarray | None:
        """An image file as uint8 0..255 [H, W, C]; None for one that cannot be read, which is counted."""
        try:
            decoded = decode(path, self.channels, self.size, self.bits, self.bits32)
        except Exception as error:  # Pillow's decoders raise whatever their format's parser raises
            self.wrong[path] = why_not(path, error), reason(error)
            return None
        self.see(decoded)
        return decoded.pixels

    def see(self, decoded: Decoded) -> None:
        """Count what a user should know of a file."""
        self.animated += decoded.has_more
        if decoded.deepest is not None and decoded.bits is not None:
            self.deep += 1
            self.deepest, self.depth = max(self.deepest, decoded.deepest), max(self.depth, decoded.bits)

    def refuse(self, folder: Path, split: str, files: list[Path], strict: bool, read: int) -> None:
        """ValueError if no file could be read, or with `strict` not all."""
        if strict and self.wrong:
            named = [f"{shown(path.relative_to(folder))} ({text})" for path, (_, text) in self.wrong.items()]
            more = f", and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
            got = f"{len(named)} of {len(files)} that are not: {', '.join(named[:MOST_NAMED])}{more}"
            raise ValueError(f"{folder}: expected readable images; got {got}")
        if not read:
            got = f"{len(self.wrong)} broken files of {len(files)}"
            got += "".join(f", {shown(path)}: {text}" for path, (_, text) in list(self.wrong.items())[:1])
            raise ValueError(f"{folder}: expected at least one readable image for {split!r}; got {got}")

    def notes(self, count: int) -> tuple[str, ...]:
        """What a user should know of the files that were read, and of the others."""
        notes = []
        if self.wrong:
            reasons = Counter(short for short, _ in self.wrong.values()).most_common()
            each = ", ".join(f"{number} {why}" for why, number in reasons)
            notes += [
                f"{self.name}: {len(self.wrong)} of {counted(count, 'file')} skipped: {each} (--strict names them)"
            ]
        if self.animated:
            notes += [
                f"{self.name}: {counted(self.animated, 'file')} of several frames or pages: the first of each is used"
            ]
        if self.deep and self.bits is None:
            held, read = max(8, self.deepest.bit_length()), f"read as {self.depth} bits"
            # A bit less may be a dark picture; 12 bits of 16 are another format.
            dark = f", which makes them dark: --bits {held}, if that is what they have"
            how = dark if held < self.depth - 1 else ", of which the upper 8 are kept" if self.depth > 8 else ""
            found = f"{counted(self.deep, 'file')} of more than 8 bits, largest value {self.deepest}"
            notes += [f"{self.name}: {found}: {read}{how}"]
        return tuple(notes)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
