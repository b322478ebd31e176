"""An image as two parts that share no information by construction: its two main colours, and what is drawn in them.

An image of two colours is x = background + v (ink - background) with v in [0, 1] at each pixel. The map v, its content,
is the projection on the main axis of the colours of the image, scaled to [0, 1]. It does not change with the colours,
nor they with it. So if a set of images was coloured without regard to what they show, the two are independent, whatever
the images are; where they are found to depend on each other, the set has the dependence and not the way it is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.audit.clusters import clusters, principal

FLOOR = 0.1  # colours that are nearer than this, in units of the whole range, are one
BETWEEN = 0.02  # largest share of two groups of colours in the middle between them
RARE = 0.01  # share of the images below which a colour is left out
MOST_COLOURS = 24
SIDE = 16  # pixels of the content, at most
BLOCK = 2**22  # values of images at a time
CONTENT = 30  # its principal components, at most
GRAINS = (4, 8, 16, 32, 64)  # numbers of kinds of content


@dataclass(frozen=True)
class Parts:
    """Images taken apart by `take_apart`.

    Attributes:
        content: v, float [n, 1, H, W].
        ink, ground: the colours at v = 1 and v = 0, float [n, C] in [0, 1] but for extrapolation.
    """

    content: Tensor
    ink: Tensor
    ground: Tensor


@dataclass(frozen=True)
class Factor:
    """A property of the pixels that does not depend on what an image shows.

    Attributes:
        name: "colour" or "lighting".
        codes: int64 [n], the group of each image; -1 for none.
        centres: float [groups, 2, C], the colours of ink and ground of each group.
        continuous: whether the groups are cut out of values without gaps.
    """

    name: str
    codes: Tensor
    centres: Tensor
    continuous: bool


def take_apart(images: Tensor, levels: int) -> Parts:
    """Colours and content of levels uint8 [n, C, H, W]; the ground is the colour of the larger part of an image."""
    return Parts(*(torch.cat(part) for part in zip(*map(_apart, blocks(images, levels)), strict=True)))


def blocks(images: Tensor, levels: int) -> Iterator[Tensor]:
    """Images as floats from 0 to 1, as many at a time as do not matter to memory."""
    for part in images.split(max(1, BLOCK // images[0].numel())):
        yield part.cpu().float() / (levels - 1)


def _apart(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Content, ink and ground."""
    n, channels, height, width = x.shape
    pixels = x.flatten(2)
    middle = pixels.mean(2, keepdim=True)
    centred = pixels - middle
    if channels > 1:
        axis = torch.linalg.eigh((centred @ centred.transpose(1, 2)).double())[1][:, :, -1].float()
    else:
        axis = torch.ones(n, 1, dtype=torch.float32, device="cpu")
    v = (axis[:, None] @ pixels)[:, 0]
    low, high = v.amin(1, keepdim=True), v.amax(1, keepdim=True)
    v = (v - low) / (high - low).clamp(min=1e-6)
    v = torch.where((v.median(1, keepdim=True).values > 0.5) & (high - low > 1e-6), 1 - v, v)
    spread = v.var(1, correction=0).clamp(min=1e-9)
    slope = (centred * (v - v.mean(1, keepdim=True))[:, None]).mean(2) / spread[:, None]
    ground = middle[..., 0] - slope * v.mean(1, keepdim=True)
    return v.view(n, 1, height, width), ground + slope, ground


def content_features(parts: Parts) -> Tensor:
    """Principal components of the contents, float [n, at most CONTENT]."""
    return principal(reduced(parts.content).flatten(1), CONTENT)


def reduced(x: Tensor) -> Tensor:
    """Images [n, C, H, W] of at most 16x16 pixels."""
    height, width = x.shape[2:]
    return F.adaptive_avg_pool2d(x, (min(SIDE, height), min(SIDE, width)))


def content_kinds(features: Tensor, seed: int = 0) -> Tensor:
    """The kind of each content at every grain that leaves 10 images to a kind: int64 [grains, n]."""
    grains = [grain for grain in GRAINS if grain == GRAINS[0] or 10 * grain <= len(features)]
    return torch.stack([clusters(features, grain, seed)[0] for grain in grains])


def factors(parts: Parts, seed: int = 0) -> list[Factor]:
    """Colour and lighting, each if it varies.

    Colour is what remains of ink and ground when each is divided by its brightness, lighting their brightness. Groups
    with gaps between them are taken as they are; colours without gaps are cut into 8. Lighting without gaps is left
    out: the brightness of ink varies with what is drawn.
    """
    found, both = [], torch.stack((parts.ink, parts.ground), 1)
    bright = both.mean(2)
    if both.shape[2] == 3:
        hue = both / (bright[..., None] + FLOOR)
        red, yellow = hue[..., 0] - hue[..., 1], hue[..., 0] + hue[..., 1] - 2 * hue[..., 2]
        axes = torch.cat((red / 2**0.5, yellow / 6**0.5), 1)
        codes, continuous = groups(axes, seed), False
        if int(codes.max()) < 1 and float(axes.std(0).max()) > FLOOR:
            codes, continuous = clusters(axes, min(8, len(axes)), seed)[0], True
        if int(codes.max()) >= 1:
            found.append(Factor("colour", codes, _centres(both, codes), continuous))
    codes = groups(bright, seed)
    if int(codes.max()) >= 1:
        found.append(Factor("lighting", codes, _centres(both, codes), False))
    return found


def groups(values: Tensor, seed: int = 0) -> Tensor:
    """Groups of vectors with gaps between them, the largest first; -1 for those of a rare group. int64 [n].

    Many small clusters are joined where they touch: where the middle fifth of the way between two of them is not empty.
    """
    n = len(values)
    if float((values.amax(0) - values.amin(0)).max()) < FLOOR:
        return torch.zeros(n, dtype=torch.int64, device="cpu")
    codes, centres = clusters(values, min(MOST_COLOURS, n), seed)
    owner = list(range(len(centres)))

    def root(i: int) -> int:
        while owner[i] != i:
            i = owner[i]
        return i

    for i in range(len(centres)):
        for j in range(i):
            if root(i) != root(j) and _touch(values, codes, centres, i, j):
                owner[root(i)] = root(j)
    joined = torch.tensor([root(i) for i in range(len(centres))], dtype=torch.int64, device="cpu")[codes]
    kinds, counts = joined.unique(return_counts=True)
    result = torch.full((n,), -1, dtype=torch.int64, device="cpu")
    for number, at in enumerate(counts.argsort(descending=True, stable=True).tolist()):
        if counts[at] >= RARE * n:
            result[joined == kinds[at]] = number
    return result


def _touch(values: Tensor, codes: Tensor, centres: Tensor, i: int, j: int) -> bool:
    way = centres[j] - centres[i]
    length = float(way.norm())
    if length < FLOOR:
        return True
    ours = (codes == i) | (codes == j)
    place = (values[ours] - centres[i]) @ way / length**2
    counts = int((codes == i).sum()), int((codes == j).sum())
    return int(((place > 0.4) & (place < 0.6)).sum()) > BETWEEN * min(counts)


def _centres(both: Tensor, codes: Tensor) -> Tensor:
    """Mean colours of each group, clamped to the range, float [groups, 2, C]."""
    return torch.stack([both[codes == group].mean(0) for group in range(int(codes.max()) + 1)]).clamp(0, 1)
