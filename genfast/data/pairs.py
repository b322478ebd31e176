"""Pairs of images, of a source and a target domain: paired folders, and two examples that need no download."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from genfast.data._images import SPLITS, check_split, quantise, split_indices
from genfast.data.folder import SUFFIXES, image_files, is_grey, read_image
from genfast.data.photos import photo_patches

PREFIX = "pairs:"
EXAMPLES = ("digit-outlines", "photo-edges")
VISIBLE = 32  # of an edge map: a gradient of 4 levels a pixel
LEAST_EDGES = 0.02  # share of the pixels of a photo's patch


@dataclass(frozen=True)
class PairData:
    """Images of two domains, pair by pair.

    `source` uint8 [N, S, H, W] and `target` uint8 [N, C, H, W], both with values in 0..levels-1; S and C are 1 or 3.

    Raises: TypeError for another dtype; ValueError for sizes that are not those of pairs.
    """

    source: torch.Tensor
    target: torch.Tensor
    levels: int
    name: str
    skipped: int = 0
    labels = None
    classes = 0

    def __post_init__(self):
        for what in ("source", "target"):
            images = getattr(self, what)
            if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
                got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
                raise TypeError(f"{self.name}: {what} must hold levels as torch.uint8; got {got}")
            if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
                expected = "[N, C, H, W] with C 1 or 3, not empty"
                raise ValueError(f"{self.name}: {what} must have shape {expected}; got {tuple(images.shape)}")
        if len(self.source) != len(self.target) or self.source.shape[2:] != self.target.shape[2:]:
            got = f"{tuple(self.source.shape)} and {tuple(self.target.shape)}"
            raise ValueError(f"{self.name}: source and target must have the same N, H and W; got {got}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"{self.name}: expected 2 to 256 levels; got {self.levels}")
        if (top := int(torch.maximum(self.source.max(), self.target.max()))) >= self.levels:
            raise ValueError(f"{self.name}: expected whole numbers from 0 to {self.levels - 1}; got {top}")

    @property
    def images(self):
        """The targets: what a model of these pairs generates."""
        return self.target

    def __len__(self):
        return len(self.target)


def is_pairs(name):
    """Whether data of this name are pairs: an example, or `pairs:FOLDER`."""
    return str(name) in EXAMPLES or str(name).startswith(PREFIX)


def load_pairs(name, split="train", *, size=None, levels=None):
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
    if not is_pairs(name):
        raise ValueError(f"pairs: expected {', '.join(EXAMPLES)} or {PREFIX}FOLDER; got {name}")
    return load_paired_folder(str(name).removeprefix(PREFIX), split, size=size, levels=levels)


def load_paired_folder(folder, split, *, size=None, levels=256):
    """Pairs of the images in `folder`/A, the source, and `folder`/B, the target, that have the same name.

    Names are paths below A and B without their ending: A/x/1.jpg is the source of B/x/1.png. The pairs of a split are
    those below `folder`/train, `folder`/valid or `folder`/test if there are such subfolders, else 80 / 10 / 10 per cent
    of all. One channel where all files of a side are grey, else three. `size` crops both images of a pair to a centred
    square and resizes them; `levels` keeps the top of the 256 values.

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
    chosen = split_indices(len(everything), split)
    pairs = parts[named.index(split)] if named else [everything[i] for i in chosen]
    if not pairs:
        raise ValueError(f"{folder}: expected at least one pair for {split!r}; got none of {len(everything)}")
    channels = [1 if all(is_grey(pair[side]) for pair in everything) else 3 for side in (0, 1)]
    decoded = _decoded(folder, pairs, channels, size)
    source, target = (np.stack(side).transpose(0, 3, 1, 2) for side in zip(*decoded, strict=True))
    return _pairs(torch.from_numpy(source), torch.from_numpy(target), levels, f"{folder}[{split}]")


def edge_map(images):
    """How strong the edges of images are, one pixel wide: uint8 [N, C, H, W] of 0..255 -> uint8 [N, 1, H, W].

    Of the mean of the channels, blurred by [1, 2, 1] / 4 both ways, 16 times the root of the length of Sobel's gradient
    in levels per pixel, so that faint edges show; 0 where a neighbour along the gradient is longer, as Canny thins it.
    Beyond the border the image goes on as it ends.
    """
    grey = F.pad(images.float().mean(1, keepdim=True), (2, 2, 2, 2), mode="replicate")
    ramp, bell = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
    grey = F.conv2d(grey, (bell[:, None] * bell)[None, None] / 16)
    sobel = torch.stack((bell[:, None] * ramp, ramp[:, None] * bell))[:, None]
    across, down = F.conv2d(grey, sobel / 8).unbind(1)
    length = (across**2 + down**2).sqrt()
    # The gradient's direction in eighths of a turn, half of which are the other half's opposites.
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


def _digit_outlines(split, size):
    """Outlines and digits: scikit-learn's 8x8 digits enlarged, bicubic; the outline is the pixels around the ink."""
    from genfast.data import load_digits  # which is defined where the readers of this module are gathered

    if size < 8:
        raise ValueError(f"digit-outlines: expected a size of at least 8 pixels; got {size}")
    digits = load_digits(split).images.float() / 15
    digits = F.interpolate(digits, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    ink = (digits > 0.5).float()
    outline = F.max_pool2d(ink, 3, stride=1, padding=1) - ink
    return (255 * outline).to(torch.uint8), (255 * digits).round().to(torch.uint8)


def _photo_edges(split, size):
    """Edge maps and patches of scikit-learn's photographs, from the columns of blocks of `load_photos`' splits.

    Patches overlap, a quarter of their size apart, in every split; of training patches the mirror images follow. Those
    with an edge on less than one pixel in fifty are left out: an empty map may be of any sky or shade.
    """
    patches = torch.from_numpy(photo_patches(split, size, max(1, size // 4)))
    # Each patch by itself: no pixel of one split, nor of its neighbourhood, is in another.
    edges = torch.cat([edge_map(part) for part in patches.split(256)])
    drawn = (edges >= VISIBLE).float().mean((1, 2, 3)) >= LEAST_EDGES
    edges, patches = edges[drawn], patches[drawn]
    if split == "train":
        patches = torch.cat((patches, patches.flip(3)))
        edges = torch.cat([edge_map(part) for part in patches.split(256)])
    return edges, patches


def _pairs(source, target, levels, name):
    kept = (torch.from_numpy(np.ascontiguousarray(quantise(side.numpy(), levels))) for side in (source, target))
    return PairData(*kept, levels, name)


def _partners(root, folders):
    """The pairs of files below A and B of each folder, in the order of their names; all that have none in one error."""
    found, several, alone = [], [], []
    for folder in folders:
        if missing := [side for side in "AB" if not (folder / side).is_dir()]:
            raise FileNotFoundError(f"{folder}: expected the subfolders A (source) and B (target); got no {missing[0]}")
        source, target = (_by_name(folder / side) for side in "AB")
        several += [path for side in (source, target) for paths in side.values() if len(paths) > 1 for path in paths]
        for one, other in ((source, target), (target, source)):
            alone += [path for name, paths in one.items() if name not in other for path in paths]
        found.append([(source[name][0], target[name][0]) for name in sorted(source) if name in target])
    if several:
        raise ValueError(f"{root}: expected one file of a name in A and in B; got {_listed(root, several)}")
    if alone:
        expected = "a file of the same name in A and in B"
        raise ValueError(f"{root}: expected {expected}; got {len(alone)} without a partner: {_listed(root, alone)}")
    if not any(found):
        raise ValueError(f"{root}: expected image files ({', '.join(sorted(SUFFIXES))}) in A and B; got none")
    return found


def _by_name(side):
    names = defaultdict(list)
    for path in image_files(side):
        names[path.relative_to(side).with_suffix("").as_posix()].append(path)
    return names


def _decoded(root, pairs, channels, size):
    """The arrays of pairs of files, each [H, W, C]; all broken files, or all pairs of two sizes, are in one error."""
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


def _decode(path, channels, size):
    """The height and width of an image file, and the image, cropped and resized if there is a size."""
    array = read_image(path, channels)
    return array.shape[:2], array if size is None else read_image(path, channels, size)


def _listed(folder, paths):
    return ", ".join(str(path.relative_to(folder)) for path in paths)


def _size(shape):
    return f"{shape[1]}x{shape[0]}"
