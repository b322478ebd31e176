"""Pairs of images, of a source and a target domain: paired folders, and two examples that need no download."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.data._images import SPLITS, check_split, quantise, split_indices
from genfast.data._registry import DataRequest, register_dataset
from genfast.data.digits import load_digits
from genfast.data.folder import SUFFIXES, image_files, is_grey, read_image
from genfast.data.pair_data import PairData
from genfast.data.photos import photo_patches

PREFIX = "pairs:"
EXAMPLES = ("digit-outlines", "photo-edges")
VISIBLE = 32  # value of an edge map: a gradient of 4 levels per pixel
LEAST_EDGES = 0.02  # share of the pixels of a patch that must be visible edges


@register_dataset("digit-outlines", "pairs of digits and their outlines, for a pix2pix", options=("size", "levels"))
@register_dataset("photo-edges", "pairs of patches of photos and their edges", options=("size", "levels"))
@register_dataset(
    f"{PREFIX}FOLDER", "pairs of images, of the same names in FOLDER/A and FOLDER/B", options=("size", "levels")
)
def _read(request: DataRequest) -> PairData:
    return load_pairs(request.name, request.split, size=request.size, levels=request.levels)


def load_pairs(
    name: str | Path, split: str = "train", *, size: int | None = None, levels: int | None = None
) -> PairData:
    """One split of the example `digit-outlines` or `photo-edges`, or of the paired folder of `pairs:FOLDER`.

    Args: name; split ("train", "valid", "test"); size (pixels of a side; 32 of digits, 64 of photos; crop and resize a
    folder's images); levels (values kept of a channel, 256).
    Returns: PairData. Raises: ValueError, FileNotFoundError, LookupError (no such split).
    """
    check_split(split)
    levels = levels or 256
    if not 2 <= levels <= 256:
        raise ValueError(f"{name}: expected 2 to 256 levels; got {levels}")
    if name == "digit-outlines":
        return _pairs(*_digit_outlines(split, size or 32), levels, f"{name}[{split}]")
    if name == "photo-edges":
        return _pairs(*_photo_edges(split, size or 64), levels, f"{name}[{split}]")
    if not str(name).startswith(PREFIX):
        raise ValueError(f"pairs: expected {', '.join(EXAMPLES)} or {PREFIX}FOLDER; got {name}")
    return load_paired_folder(str(name).removeprefix(PREFIX), split, size=size, levels=levels)


def load_paired_folder(folder: str | Path, split: str, *, size: int | None = None, levels: int = 256) -> PairData:
    """Pairs of the images in `folder`/A, the source, and `folder`/B, the target, that have the same name.

    Names are paths below A and B without their ending: A/x/1.jpg is the source of B/x/1.png. The pairs of a split are
    those below `folder`/train, `folder`/valid or `folder`/test if there are such subfolders, else 80 / 10 / 10 per cent
    of all. One channel where all files of a side are grey, else three. `size` crops both images of a pair to a centred
    square and resizes them; `levels` reduces the 256 values of a channel to so many.

    Raises: FileNotFoundError, LookupError (no such split); ValueError that names every file without a partner, every
        file that cannot be read, or every pair of two sizes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with the subfolders A and B; got none")
    named = [part for part in SPLITS if (folder / part).is_dir()]
    if named and split not in named:
        raise LookupError(f"{folder}: expected a subfolder {split!r}; got only {', '.join(named)}")
    parts = _partners(folder, [folder / part for part in named] or [folder])
    everything = [pair for pairs in parts for pair in pairs]
    indices = split_indices(len(everything), split)
    pairs = parts[named.index(split)] if named else [everything[i] for i in indices]
    if not pairs:
        raise ValueError(f"{folder}: expected at least one pair for {split!r}; got none of {len(everything)}")
    channels = [1 if all(is_grey(pair[side]) for pair in everything) else 3 for side in (0, 1)]
    decoded = _decoded(folder, pairs, channels, size)
    source, target = (np.stack(side).transpose(0, 3, 1, 2) for side in zip(*decoded, strict=True))
    return _pairs(torch.from_numpy(source), torch.from_numpy(target), levels, f"{folder}[{split}]")


def edge_map(images: Tensor) -> Tensor:
    """The strength of the edges of images, one pixel wide: uint8 [N, C, H, W] of 0..255 -> uint8 [N, 1, H, W].

    The mean of the channels is blurred by [1, 2, 1] / 4 in both directions. The strength is 16 times the square root of
    the length of its Sobel gradient, in levels per pixel: the root makes faint edges visible. It is 0 where a neighbour
    along the gradient is stronger (Canny's non-maximum suppression). The border is padded by replication.
    """
    grey = F.pad(images.float().mean(1, keepdim=True), (2, 2, 2, 2), mode="replicate")
    ramp, bell = (grey.new_tensor(taps) for taps in ([-1.0, 0.0, 1.0], [1.0, 2.0, 1.0]))
    grey = F.conv2d(grey, (bell[:, None] * bell)[None, None] / 16)
    sobel = torch.stack((bell[:, None] * ramp, ramp[:, None] * bell))[:, None]
    across, down = F.conv2d(grey, sobel / 8).unbind(1)
    length = (across**2 + down**2).sqrt()
    # The gradient's direction in eighths of a turn; opposite directions are one.
    eighth = (torch.atan2(down, across) * (4 / torch.pi)).round().long() % 4
    thinned, around = length, F.pad(length, (1, 1, 1, 1))
    height, width = length.shape[1:]
    for number, (i, j) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = around[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width]
        behind = around[:, 1 - i : 1 - i + height, 1 - j : 1 - j + width]
        # An edge between two pixels is as strong in both: the first of them keeps it.
        hidden = (eighth == number) & ((ahead > length) | (behind >= length))
        thinned = thinned.masked_fill(hidden, 0)
    return (16 * thinned.sqrt()).round().clamp(0, 255).to(torch.uint8)[:, None]


def _digit_outlines(split: str, size: int) -> tuple[Tensor, Tensor]:
    """Outlines and digits: scikit-learn's 8x8 digits enlarged, bicubic; the outline is the pixels around the ink."""
    if size < 8:
        raise ValueError(f"digit-outlines: expected a size of at least 8 pixels; got {size}")
    digits = load_digits(split).images.float() / 15
    digits = F.interpolate(digits, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    ink = (digits > 0.5).float()
    outline = F.max_pool2d(ink, 3, stride=1, padding=1) - ink
    return (255 * outline).to(torch.uint8), (255 * digits).round().to(torch.uint8)


def _photo_edges(split: str, size: int) -> tuple[Tensor, Tensor]:
    """Edge maps and patches of scikit-learn's photographs, from the columns of blocks of `load_photos`' splits.

    Patches overlap, a quarter of their size apart, in every split. The mirror images of the training patches follow
    them. Patches with fewer visible edges than `LEAST_EDGES` are left out: an empty map says nothing of the colours.
    """
    patches = torch.from_numpy(photo_patches(split, size, max(1, size // 4)))
    # Of each patch alone: an edge map of the photograph would use pixels of another split.
    edges = torch.cat([edge_map(part) for part in patches.split(256)])
    drawn = (edges >= VISIBLE).float().mean((1, 2, 3)) >= LEAST_EDGES
    edges, patches = edges[drawn], patches[drawn]
    if split == "train":
        patches = torch.cat((patches, patches.flip(3)))
        edges = torch.cat([edge_map(part) for part in patches.split(256)])
    return edges, patches


def _pairs(source: Tensor, target: Tensor, levels: int, name: str) -> PairData:
    sides = [torch.from_numpy(np.ascontiguousarray(quantise(side.numpy(), levels))) for side in (source, target)]
    return PairData(sides[0], sides[1], levels, name)


def _partners(root: Path, folders: list[Path]) -> list[list[tuple[Path, Path]]]:
    """The pairs of files below A and B of each folder, sorted by name. One error names all files without a partner."""
    pairs: list[list[tuple[Path, Path]]] = []
    several: list[Path] = []
    alone: list[Path] = []
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


def _decoded(
    root: Path, pairs: list[tuple[Path, Path]], channels: list[int], size: int | None
) -> list[list[np.ndarray]]:
    """The arrays of pairs of files, each [H, W, C]. One error names all broken files, or all pairs of two sizes."""
    if size is not None and size < 1:
        raise ValueError(f"{root}: expected a size of at least 1 pixel; got {size}")
    decoded, broken, differing = [], [], []
    for pair in pairs:
        images = []
        for path, count in zip(pair, channels, strict=True):
            try:
                images.append((*_decode(path, count, size), path))
            except Exception as error:  # Pillow's decoders raise whatever their format's parser raises
                broken.append(f"{path.relative_to(root)} ({error})".replace("\n", " "))
        if len(images) == 2 and images[0][0] != images[1][0]:
            differing.append(", ".join(f"{path.relative_to(root)} {_size(shape)}" for shape, _, path in images))
        decoded.append([array for _, array, _ in images])
    if broken:
        raise ValueError(f"{root}: expected readable images; got {len(broken)} that are not: {', '.join(broken)}")
    if differing:
        raise ValueError(f"{root}: expected one size of both images of a pair; got {'; '.join(differing)}")
    first = decoded[0][0].shape[:2]
    for (path, _), (image, _) in zip(pairs, decoded, strict=True):
        if image.shape[:2] != first:
            expected = f"one size, {_size(first)} as in {pairs[0][0].name}, or --size"
            raise ValueError(f"{path}: expected {expected}; got {_size(image.shape)}")
    return decoded


def _decode(path: Path, channels: int, size: int | None) -> tuple[tuple[int, ...], np.ndarray]:
    """The height and width of an image file, and the image, cropped and resized if there is a size."""
    array = read_image(path, channels)
    return array.shape[:2], array if size is None else read_image(path, channels, size)


def _listed(folder: Path, paths: list[Path]) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
