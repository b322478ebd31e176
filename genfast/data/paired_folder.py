"""A folder of pairs of images: of the same names in A and B, or side by side in one picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from genfast._text import shown
from genfast.data._budget import check_size
from genfast.data._images import quantise
from genfast.data._registry import DataRequest, register_dataset
from genfast.data._text import reason
from genfast.data.folder import split_folders
from genfast.data.image_file import common_bits, decode, is_grey, quiet_about_size
from genfast.data.pair_data import PairData
from genfast.data.reading import Reading, checked_options
from genfast.data.splits import ALL, CHOICES, check_split, choose, notes_of
from genfast.data.walk import SUFFIXES, image_files, names_below

PREFIX = "pairs:"
# The files of a pair, the source first; one file for two pictures side by side.
Pair = tuple[Path, ...]


@register_dataset(
    f"{PREFIX}FOLDER",
    "pairs of images, of the same names in FOLDER/A and FOLDER/B, or side by side in one picture",
    options=("size", "levels", "bits"),
    reads_all=True,
)
def _read(request: DataRequest) -> PairData:
    return load_paired_folder(
        request.name.removeprefix(PREFIX),
        request.split,
        size=request.size,
        levels=request.levels or 256,
        bits=request.bits,
        max_gb=request.max_gb,
    )


def load_paired_folder(
    folder: str | Path,
    split: str,
    *,
    size: int | None = None,
    levels: int = 256,
    bits: int | None = None,
    max_gb: float | None = None,
) -> PairData:
    """Pairs of the images in `folder`/A, the source, and `folder`/B, the target, that have the same name.

    Names are paths below A and B without their ending: A/x/1.jpg is the source of B/x/1.png. Without the subfolders A
    and B, each image below the folder is a pair: its left half is the source, its right half the target.

    The pairs of a split are those below `folder`/train, `folder`/valid or `folder`/test if there are such subfolders,
    else 80 / 10 / 10 per cent of all. One channel where all files of a side are grey, else three. `size` crops both
    images of a pair to a centred square and resizes them; `levels` reduces the 256 values of a channel to so many;
    `bits` and `max_gb` are as of `load_folder`.

    Raises: FileNotFoundError, LookupError (no such split); ValueError that names every file without a partner, every
        file that cannot be read, or every pair of two sizes.
    """
    check_split(split, CHOICES)
    folder = Path(folder)
    checked_options(str(folder), size, levels, bits)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with the subfolders A and B; got none")
    roots = split_folders(folder) or {ALL: folder}
    parts = dict(zip(roots, _partners(folder, list(roots.values())), strict=True))
    counts = {part: len(pairs) for part, pairs in parts.items()}
    pairs = [parts[part][i] for part, rows in choose(counts, split, str(folder), "subfolder") for i in rows]
    everything = [pair for pairs in parts.values() for pair in pairs]
    if not pairs:
        raise ValueError(f"{folder}: expected at least one pair for {split!r}; got none of {len(everything)}")
    channels = [1 if all(is_grey(pair[side]) for pair in everything) else 3 for side in (0, -1)]
    bits32 = common_bits({path for pair in everything for path in pair})
    reading = Reading(f"{folder}[{split}]", 3, size, levels, bits, bits32, max_gb)
    source, target = _read_pairs(folder, pairs, channels, reading)
    return PairData(
        torch.from_numpy(source),
        torch.from_numpy(target),
        levels,
        reading.name,
        files=names_below(folder, [pair[0] for pair in pairs]),
        notes=(*notes_of(counts, split, str(folder)), *reading.notes(len(pairs))),
    )


def _partners(root: Path, folders: list[Path]) -> list[list[Pair]]:
    """The pairs of files below each folder, sorted by name. One error names all files without a partner."""
    pairs: list[list[Pair]] = []
    several: list[Path] = []
    alone: list[Path] = []
    if not any((folder / side).is_dir() for folder in folders for side in "AB"):
        pairs = [[(path,) for path in image_files(folder)] for folder in folders]
        if not any(pairs):
            expected = f"the subfolders A (source) and B (target), or image files ({', '.join(sorted(SUFFIXES))})"
            raise FileNotFoundError(f"{root}: expected {expected} with both side by side; got none")
        return pairs
    for folder in folders:
        if missing := [side for side in "AB" if not (folder / side).is_dir()]:
            raise FileNotFoundError(f"{folder}: expected the subfolders A (source) and B (target); got no {missing[0]}")
        source, target = (_by_name(folder / side) for side in "AB")
        several += [path for side in (source, target) for paths in side.values() if len(paths) > 1 for path in paths]
        for one, other in ((source, target), (target, source)):
            alone += [path for name, paths in one.items() if name not in other for path in paths]
        pairs.append([(source[name][0], target[name][0]) for name in sorted(source) if name in target])
    if several:
        raise ValueError(f"{root}: expected one file of a name in A and in B; got {_listed(root, several)}")
    if alone:
        expected = "a file of the same name in A and in B"
        raise ValueError(f"{root}: expected {expected}; got {len(alone)} without a partner: {_listed(root, alone)}")
    if not any(pairs):
        raise ValueError(f"{root}: expected image files ({', '.join(sorted(SUFFIXES))}) in A and B; got none")
    return pairs


def _by_name(side: Path) -> dict[str, list[Path]]:
    names = defaultdict(list)
    for path in image_files(side):
        names[path.relative_to(side).with_suffix("").as_posix()].append(path)
    return names


def _read_pairs(root: Path, pairs: list[Pair], channels: list[int], reading: Reading) -> list[np.ndarray]:
    """The levels of sources and targets, each [N, C, H, W]. One error names all broken files, or all odd pairs."""
    stacks: list[np.ndarray] = []
    broken: list[str] = []
    differing: list[str] = []
    other: str | None = None
    with quiet_about_size():
        for number, pair in enumerate(pairs):
            sizes, images, fault = _decode_pair(pair, channels, reading)
            broken += [f"{shown(path.relative_to(root))} ({text})" for path, text in fault]
            if fault:
                continue
            if len(set(sizes)) > 1:
                several = (f"{path.relative_to(root)} {_size(shape)}" for path, shape in zip(pair, sizes, strict=True))
                differing.append(", ".join(several))
                continue
            if not stacks:
                shape = images[0].shape[:2]
                total = len(pairs) * sum(image.size for image in images)
                check_size(total, f"{root}: {len(pairs)} pairs of {_size(shape)}", reading.max_gb)
                stacks = [np.empty((len(pairs), count, *shape), np.uint8) for count in channels]
            if images[0].shape[:2] != (first := stacks[0].shape[2:]):
                expected = f"one size, {_size(first)} as in {pairs[0][0].name}, or --size"
                other = other or f"{pair[0]}: expected {expected}; got {_size(images[0].shape)}"
                continue
            for stack, image in zip(stacks, images, strict=True):
                stack[number] = quantise(image, reading.levels).transpose(2, 0, 1)
    if broken:
        raise ValueError(f"{root}: expected readable images; got {len(broken)} that are not: {', '.join(broken)}")
    if differing:
        raise ValueError(f"{root}: expected one size of both images of a pair; got {'; '.join(differing)}")
    if other:
        raise ValueError(other)
    return stacks


def _decode_pair(
    pair: Pair, channels: list[int], reading: Reading
) -> tuple[list[Sequence[int]], list[np.ndarray], list[tuple[Path, str]]]:
    """(sizes of both images as they are in the files, the images, [(file, what is wrong with it)])."""
    size, bits, bits32 = reading.size, reading.bits, reading.bits32
    sizes: list[Sequence[int]] = []
    images: list[np.ndarray] = []
    wrong: list[tuple[Path, str]] = []
    for path, count in zip(pair, channels, strict=False):
        try:
            decoded = decode(path, count, None, bits, bits32)
            reading.see(decoded)
            whole = decoded.pixels
            sizes.append(whole.shape[:2])
            if len(pair) == 1:
                images = [_fitted(half, size) for half in _halves(whole)]
            else:
                images.append(whole if size is None else decode(path, count, size, bits, bits32).pixels)
        except Exception as error:  # Pillow's decoders raise whatever their format's parser raises
            wrong.append((path, reason(error)))
    return sizes, images, wrong


def _halves(image: np.ndarray) -> list[np.ndarray]:
    width = image.shape[1]
    if width % 2:
        raise ValueError(f"expected two images of one width side by side; got {width} pixels in all")
    return [image[:, : width // 2], image[:, width // 2 :]]


def _fitted(image: np.ndarray, size: int | None) -> np.ndarray:
    """An image [H, W, C] cropped to a centred square of `size` pixels, as image files are."""
    if size is None:
        return image
    from PIL import Image, ImageOps

    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))
    fitted = np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BOX))
    return fitted.reshape(size, size, image.shape[2])


def _listed(folder: Path, paths: list[Path]) -> str:
    return ", ".join(shown(path.relative_to(folder)) for path in paths)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
