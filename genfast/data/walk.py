"""The image files below a folder: links are followed, loops are not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
# Endings of images and of arrays that are not read: their files are told.
FOREIGN = {
    *(".avif", ".heic", ".heif", ".jfif", ".jp2", ".j2k", ".jpe", ".jxl"),
    *(".ico", ".pcx", ".pnm", ".psd", ".svg", ".tga"),
    *(".cr2", ".dng", ".nef", ".raw", ".dcm", ".exr", ".hdr", ".nii", ".h5", ".mat", ".npy", ".npz"),
}
MOST_LINKS = 100_000  # folders that links may lead to: a few that link to one another make endlessly many paths


@dataclass
class Found:
    """`images`, sorted; `others`: how many files of each ending are `FOREIGN`, or no files but devices; `closed`:
    folders that may not be read."""

    images: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    closed: list[Path] = field(default_factory=list)


def image_files(folder: Path) -> list[Path]:
    """The files below a folder with the suffix of an image, sorted.

    Hidden files and folders, whose names begin with a dot, are left out. Links to files and to folders are followed,
    but not to a folder that the link lies in.
    """
    return walk(folder).images


def walk(folder: Path) -> Found:
    """As `image_files`, with what is left out. ValueError for links without end."""
    found, links = Found(), 0
    todo = [(folder, frozenset({_identity(folder)}))]
    while todo:
        here, above = todo.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            found.closed.append(here)
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                links += entry.is_symlink()
                if links > MOST_LINKS:
                    raise ValueError(f"{folder}: expected at most {MOST_LINKS} linked folders; got more, as at {path}")
                if (identity := _identity(path)) not in above:
                    todo.append((path, above | {identity}))
            elif path.suffix.lower() in SUFFIXES and (entry.is_file() or not path.exists()):
                found.images.append(path)
            elif path.suffix.lower() in SUFFIXES | FOREIGN:
                found.others[path.suffix.lower()] += 1
    found.images.sort()
    return found


def names_below(folder: Path, files: Iterable[Path]) -> tuple[str, ...]:
    """The names of files below a folder, with `/`; bytes that are no UTF-8 are escaped."""
    names = (path.relative_to(folder).as_posix() for path in files)
    return tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in names)


def _identity(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return about.st_dev, about.st_ino
