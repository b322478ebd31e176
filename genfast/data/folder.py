"""A folder of image files: its splits, its classes, and what is left out of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genfast.data._budget import check_size
from genfast.data._images import ImageData, quantise
from genfast.data._registry import DataRequest, register_dataset
from genfast.data._text import printable, reason
from genfast.data.image_file import (
    MOST_BITS,
    common_bits,
    decode,
    is_grey,
    quiet_about_size,
    read_image,
    why_not,
)
from genfast.data.splits import ALL, CHOICES, SPLIT_NAMES, SPLITS, check_split, choose, notes_of
from genfast.data.walk import SUFFIXES, image_files, names_below, walk

__all__ = ["SUFFIXES", "image_files", "is_grey", "load_folder", "read_image", "read_images"]

MOST_NAMED = 50  # files in a message


@register_dataset(
    "a folder", "its image files", options=("size", "levels", "bits"), matches=Path.is_dir, reads_all=True
)
def _read(request: DataRequest) -> ImageData:
    return load_folder(
        Path(request.name),
        request.split,
        strict=request.strict,
        size=request.size,
        levels=request.levels,
        bits=request.bits,
        max_gb=request.max_gb,
    )


def load_folder(
    folder: str | Path,
    split: str,
    *,
    strict: bool = False,
    size: int | None = None,
    levels: int | None = None,
    bits: int | None = None,
    max_gb: float | None = None,
) -> ImageData:
    """Images below `folder`, from the subfolder of the split if it has such subfolders, else split 80 / 10 / 10.

    One channel if all are grey, else three. `size` crops each to a centred square and resizes it; `levels` reduces the
    256 values of a channel to so many. Subfolders, of the folder or of each split, are classes if every image lies in
    one. Files that cannot be read are skipped, counted and told in `notes`; with `strict` an error names them.
    `read_image` says how alpha and the EXIF orientation are read. Of files of more than 8 bits one scale is kept for
    all: `bits`, or 16; or 8, if none of 32-bit values exceeds 255.

    Args: split ("train", "valid", "test" or "all"); max_gb (memory of the images, in 10**9 bytes; None: half).
    """
    check_split(split, CHOICES)
    folder = Path(folder)
    levels = checked_options(str(folder), size, levels, bits)
    tree = Tree.of(folder)
    files = tree.files(split)
    channels = 1 if all(is_grey(path) for path in tree.every) else 3
    name = f"{folder}[{split}]"
    reading = Reading(name, channels, size, levels, bits, common_bits(tree.every), max_gb)
    images = reading.read(files)
    reading.refuse(folder, split, files, strict, len(images))
    kept = [path for path in files if path not in reading.wrong]
    data = ImageData(
        torch.from_numpy(images),
        levels,
        name,
        len(reading.wrong),
        files=names_below(folder, kept),
        notes=(*tree.notes(split), *reading.notes(len(files))),
    )
    return tree.with_labels(data, kept)


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


def read_images(paths: Iterable[str | Path], channels: int, levels: int) -> Tensor:
    """Image files of one size as levels: uint8 [N, C, H, W], quantised as those of a folder are.

    Raises: FileNotFoundError for a file that is not there; ValueError for one that is broken or of another size.
    """
    files = [Path(path) for path in paths]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected an image file; got none")
    reading = Reading("images", channels, None, levels, bits32=common_bits(files))
    images = reading.read(files)
    for path, (_, message) in reading.wrong.items():
        raise ValueError(f"{path}: expected a readable image; got {message}")
    return torch.from_numpy(images)


def split_folders(folder: Path) -> dict[str, Path]:
    """The subfolders of a folder that are splits, in the order of `SPLITS`. ValueError for two of one split."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(path.name.lower())
        if split is None or not path.is_dir():
            continue
        if split in found:
            raise ValueError(f"{folder}: expected one subfolder {split!r}; got {found[split].name} and {path.name}")
        found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


@dataclass
class Tree:
    """The image files of a folder by split, or all of them as `all`; and those outside of its splits."""

    folder: Path
    roots: dict[str, Path]
    parts: dict[str, list[Path]]
    outside: list[Path]
    others: Counter[str]
    closed: list[Path]

    @classmethod
    def of(cls, folder: Path) -> Tree:
        """Raises: FileNotFoundError for a missing folder; ValueError for one without images."""
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of images; got none")
        found, roots = walk(folder), split_folders(folder) or {ALL: folder}
        if not found.images:
            others = ", ".join(f"{count} {ending}" for ending, count in sorted(found.others.items()))
            raise ValueError(f"{folder}: expected image files ({', '.join(sorted(SUFFIXES))}); got {others or 'none'}")
        parts: dict[str, list[Path]] = {split: [] for split in roots}
        outside: list[Path] = []
        split_of = {root: split for split, root in roots.items()}
        depth = len(folder.parts)
        for path in found.images:
            top = folder if ALL in roots else folder / path.parts[depth]
            (parts[split_of[top]] if top in split_of else outside).append(path)
        return cls(folder, roots, parts, outside, found.others, found.closed)

    @property
    def every(self) -> list[Path]:
        """All files."""
        return [path for part in (*self.parts.values(), self.outside) for path in part]

    def files(self, split: str) -> list[Path]:
        """The files of a split, as `choose` says; of "all", every one, sorted."""
        if split == ALL:
            return sorted(self.every)
        counts = {part: len(files) for part, files in self.parts.items()}
        chosen = choose(counts, split, str(self.folder), "subfolder")
        return [self.parts[part][i] for part, rows in chosen for i in rows]

    def notes(self, split: str) -> tuple[str, ...]:
        """What a user should know of the files that are not read, whatever is in them."""
        notes = list(notes_of({part: len(files) for part, files in self.parts.items()}, split, str(self.folder)))
        if self.outside and split != ALL:
            notes += [f"{self.folder}: {len(self.outside)} images outside of {', '.join(self.parts)} are not used"]
        if self.closed:
            notes += [f"{self.folder}: {len(self.closed)} folders skipped: not permitted to be read"]
        if self.others:
            kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(self.others.items()))
            notes += [f"{self.folder}: {sum(self.others.values())} files skipped: of a kind that is not read ({kinds})"]
        return (*notes, *self._beside())

    def classes(self) -> dict[str, list[str]]:
        """The class of each file, by split: the first subfolder; of splits all of whose files lie in one."""
        of_split = {}
        for split, files in self.parts.items():
            depth = len(self.roots[split].parts)
            if files and all(len(path.parts) > depth + 1 for path in files):
                of_split[split] = [path.parts[depth] for path in files]
        return of_split if len({name for names in of_split.values() for name in names}) > 1 else {}

    def with_labels(self, data: ImageData, files: list[Path]) -> ImageData:
        """The data with the classes of their files, which are `files`, as labels."""
        of_split = self.classes()
        of_file = {p: name for s, names in of_split.items() for p, name in zip(self.parts[s], names, strict=True)}
        if not of_file or any(path not in of_file for path in files):
            return data
        names = sorted(set(of_file.values()), key=_numbers_first)
        number = {name: label for label, name in enumerate(names)}
        labels = torch.tensor([number[of_file[path]] for path in files])
        shown = tuple(printable(os.fsencode(name).decode("utf-8", "backslashreplace")) for name in names)
        return replace(data, labels=labels, classes=len(names), class_names=shown)

    def _beside(self) -> list[str]:
        """A note for each split whose images lie partly in subfolders, which then are no classes."""
        notes = []
        for split, files in self.parts.items():
            depth = len(self.roots[split].parts)
            subfolders = {path.parts[depth] for path in files if len(path.parts) > depth + 1}
            alone = sum(len(path.parts) == depth + 1 for path in files)
            if alone and len(subfolders) > 1:
                beside = f"{alone} images lie beside its {len(subfolders)} subfolders"
                notes += [f"{self.roots[split]}: no labels, as {beside}"]
        return notes


def _numbers_first(name: str) -> tuple[int, int, str]:
    """The order of classes: numbers by their value, so that label 10 is the folder 10, then other names."""
    return (0, int(name), name) if name.isascii() and name.isdecimal() else (1, 0, name)


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
        self.animated += decoded.has_more
        if decoded.deepest is not None and decoded.bits is not None:
            self.deep += 1
            self.deepest, self.depth = max(self.deepest, decoded.deepest), max(self.depth, decoded.bits)
        return decoded.pixels

    def refuse(self, folder: Path, split: str, files: list[Path], strict: bool, read: int) -> None:
        """ValueError if no file could be read, or with `strict` not all."""
        if strict and self.wrong:
            named = [f"{path.relative_to(folder)} ({text})" for path, (_, text) in self.wrong.items()]
            more = f", and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
            got = f"{len(named)} of {len(files)} that are not: {', '.join(named[:MOST_NAMED])}{more}"
            raise ValueError(f"{folder}: expected readable images; got {got}")
        if not read:
            got = f"{len(self.wrong)} broken files of {len(files)}"
            got += "".join(f", {path}: {text}" for path, (_, text) in list(self.wrong.items())[:1])
            raise ValueError(f"{folder}: expected at least one readable image for {split!r}; got {got}")

    def notes(self, count: int) -> tuple[str, ...]:
        """What a user should know of the files that were read, and of the others."""
        notes = []
        if self.wrong:
            reasons = Counter(short for short, _ in self.wrong.values()).most_common()
            each = ", ".join(f"{number} {why}" for why, number in reasons)
            notes += [f"{self.name}: {len(self.wrong)} of {count} files skipped: {each} (--strict names them)"]
        if self.animated:
            notes += [f"{self.name}: {self.animated} files of several frames or pages: the first of each is used"]
        if self.deep and self.bits is None:
            held, read = max(8, self.deepest.bit_length()), f"read as {self.depth} bits"
            # A bit less may be a dark picture; 12 bits of 16 are another format.
            dark = f", which makes them dark: --bits {held}, if that is what they have"
            how = dark if held < self.depth - 1 else ", of which the upper 8 are kept" if self.depth > 8 else ""
            notes += [f"{self.name}: {self.deep} files of more than 8 bits, largest value {self.deepest}: {read}{how}"]
        return tuple(notes)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
