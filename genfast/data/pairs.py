"""Pairs of images: examples that need no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.data._images import quantise
from genfast.data._registry import DataRequest, register_dataset
from genfast.data.digits import load_digits
from genfast.data.pair_data import PairData
from genfast.data.paired_folder import PREFIX, load_paired_folder
from genfast.data.photos import photo_patches
from genfast.data.splits import check_split

EXAMPLES = ("digit-outlines", "photo-edges")
VISIBLE = 32  # value of an edge map: a gradient of 4 levels per pixel
LEAST_EDGES = 0.02  # share of the pixels of a patch that must be visible edges


@register_dataset("digit-outlines", "pairs of digits and their outlines, for a pix2pix", options=("size", "levels"))
@register_dataset("photo-edges", "pairs of patches of photos and their edges", options=("size", "levels"))
def _read(request: DataRequest) -> PairData:
    return load_pairs(request.name, request.split, size=request.size, levels=request.levels)


def load_pairs(
    name: str | Path,
    split: str = "train",
    *,
    size: int | None = None,
    levels: int | None = None,
    bits: int | None = None,
    max_gb: float | None = None,
) -> PairData:
    """One split of the example `digit-outlines` or `photo-edges`, or of the paired folder of `pairs:FOLDER`.

    Args: name; split ("train", "valid", "test"; of a folder also "all"); size (pixels of a side; 32 of digits, 64 of
        photos; crop and resize a folder's images); levels (values kept of a channel, 256); bits, max_gb (of a folder,
        as `genfast.data.load`).
    Returns: PairData.
    Raises: ValueError, FileNotFoundError, LookupError (no such split).
    """
    levels = levels or 256
    if not 2 <= levels <= 256:
        raise ValueError(f"{name}: expected 2 to 256 levels; got {levels}")
    if str(name).startswith(PREFIX):
        folder = str(name).removeprefix(PREFIX)
        return load_paired_folder(folder, split, size=size, levels=levels, bits=bits, max_gb=max_gb)
    check_split(split)
    if name == "digit-outlines":
        return _pairs(*_digit_outlines(split, size or 32), levels, f"{name}[{split}]")
    if name == "photo-edges":
        return _pairs(*_photo_edges(split, size or 64), levels, f"{name}[{split}]")
    raise ValueError(f"pairs: expected {', '.join(EXAMPLES)} or {PREFIX}FOLDER; got {name}")


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
