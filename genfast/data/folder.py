"""A folder of image files: its splits, its classes, and what is left out of it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genfast._text import shown
from genfast.data._images import ImageData
from genfast.data._registry import DataRequest, register_dataset
from genfast.data._text import counted
from genfast.data.image_file import common_bits, is_grey, read_image
from genfast.data.reading import Reading, checked_options, read_images
from genfast.data.splits import ALL, CHOICES, SPLIT_NAMES, SPLITS, check_split, choose, notes_of
from genfast.data.walk import SUFFIXES, image_files, names_below, walk

__all__ = ["SUFFIXES", "image_files", "is_grey", "load_folder", "read_image", "read_images"]


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
            notes += [
                f"{self.folder}: {counted(len(self.outside), 'image')} outside of {', '.join(self.parts)} not used"
            ]
        if self.closed:
            notes += [f"{self.folder}: {counted(len(self.closed), 'folder')} skipped: not permitted to be read"]
        if self.others:
            kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(self.others.items()))
            skipped = counted(sum(self.others.values()), "file")
            notes += [f"{self.folder}: {skipped} skipped: of a kind that is not read ({kinds})"]
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
        labels = torch.tensor([number[of_file[path]] for path in files], dtype=torch.int64, device="cpu")
        named = tuple(shown(os.fsencode(name).decode("utf-8", "backslashreplace")) for name in names)
        return replace(data, labels=labels, classes=len(names), class_names=named)

    def _beside(self) -> list[str]:
        """A note for each split whose images lie partly in subfolders, which then are no classes."""
        notes = []
        for split, files in self.parts.items():
            depth = len(self.roots[split].parts)
            subfolders = {path.parts[depth] for path in files if len(path.parts) > depth + 1}
            alone = sum(len(path.parts) == depth + 1 for path in files)
            if alone and len(subfolders) > 1:
                beside = f"{counted(alone, 'image')} beside its {len(subfolders)} subfolders"
                notes += [f"{self.roots[split]}: no labels, as {beside}"]
        return notes


def _numbers_first(name: str) -> tuple[int, int, str]:
    """The order of classes: numbers by their value, so that label 10 is the folder 10, then other names."""
    return (0, int(name), name) if name.isascii() and name.isdecimal() else (1, 0, name)
