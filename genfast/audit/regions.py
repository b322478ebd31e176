"""Thin and crowded regions of latent space, and properties of the pixels that latents follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genfast import ops
from genfast.audit.clusters import clusters
from genfast.audit.latents import Latents
from genfast.audit.pixels import blocks

REGIONS = 24
NEIGHBOURS = 10
NEAREST = 6  # real images beside an archetype
FOLLOWED = 0.25  # share of the variance from which on a latent is said to follow a property


@dataclass(frozen=True)
class Region:
    """A region of latent space.

    Attributes:
        count: images in it.
        density: images there, over the number at the median image of the set in as much of the space.
        archetype: the decoded centre, float [C, H, W] in levels.
        nearest: numbers of the real images nearest to the centre, the nearest first.
    """

    count: int
    density: float
    archetype: Tensor
    nearest: tuple[int, ...]


def regions_of(latents: Latents, seed: int = 0) -> tuple[list[Region], Tensor]:
    """Regions by k-means in the latents that carry information, the thinnest first; and that of each image, int64 [n].

    The density of a region is the median over its images of r^-D, with r the distance to the 10th neighbour and D the
    number of dimensions that the images fill (Levina and Bickel's estimate), relative to the median of all images.
    """
    z = latents.values
    count = max(2, min(REGIONS, len(z) // 20))
    codes, centres = clusters(z, count, seed)
    k = min(NEIGHBOURS, len(z) - 1)
    squared, _ = ops.nearest_neighbors(z, z, k + 1)
    distances = squared[:, 1:].double().clamp(min=1e-20).sqrt()
    dimension = 1 / float((distances[:, -1:] / distances[:, :-1]).log().mean(1).median().clamp(min=1e-2))
    logs = -dimension * distances[:, -1].log()
    middle = logs.median()
    decoded = latents.decode(centres)
    near = ops.nearest_neighbors(centres, z, min(NEAREST, len(z)))[1]
    found = []
    for region in range(len(centres)):
        ours = codes == region
        density = float((logs[ours].median() - middle).exp())
        found.append(Region(int(ours.sum()), density, decoded[region], tuple(near[region].tolist())))
    order = sorted(range(len(found)), key=lambda region: found[region].density)
    places = torch.tensor(order, dtype=torch.int64, device="cpu").argsort()
    return [found[region] for region in order], places[codes]


def properties(images: Tensor, levels: int) -> dict[str, Tensor]:
    """Properties of images that have a name, {name: float [n]}, of levels uint8 [n, C, H, W]."""
    found = [_properties(part) for part in blocks(images, levels)]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def _properties(x: Tensor) -> dict[str, Tensor]:
    grey = x.mean(1)
    height, width = grey.shape[1:]
    mass = (grey - grey.flatten(1).amin(1)[:, None, None]).clamp(min=0)
    total = mass.sum((1, 2)).clamp(min=1e-6)
    down = torch.linspace(-1, 1, height, dtype=torch.float32, device="cpu")[:, None]
    across = torch.linspace(-1, 1, width, dtype=torch.float32, device="cpu")
    x_mean, y_mean = ((mass * axis).sum((1, 2)) / total for axis in (across, down))
    dx, dy = across - x_mean[:, None, None], down - y_mean[:, None, None]
    xx, yy, xy = ((mass * product).sum((1, 2)) / total for product in (dx * dx, dy * dy, dx * dy))
    found = {
        "brightness": grey.mean((1, 2)),
        "contrast": grey.flatten(1).std(1, correction=0),
        "place across": x_mean,
        "place down": y_mean,
        "width": xx.clamp(min=0).sqrt(),
        "height": yy.clamp(min=0).sqrt(),
        "slant": xy / yy.clamp(min=1e-6),
    }
    if x.shape[1] == 3:
        red, green, blue = x.mean((2, 3)).unbind(1)
        found |= {"red - green": red - green, "yellow - blue": (red + green) / 2 - blue}
    return found


def followed(values: Tensor, named: dict[str, Tensor]) -> list[tuple[str, float]]:
    """The property that each latent follows most, and the share of its variance by rank, 0 to 1; "" for none."""

    def ranks(x: Tensor) -> Tensor:
        r = x.argsort(0).argsort(0).double()
        return (r - r.mean(0)) / r.std(0, correction=0).clamp(min=1e-9)

    varying = {name: value for name, value in named.items() if float(value.std()) > 1e-6}
    if not varying:
        return [("", 0.0)] * values.shape[1]
    z = ranks(values)
    shares = torch.stack([(z * ranks(value)[:, None]).mean(0).square() for value in varying.values()])
    best, which = shares.max(0)
    names = list(varying)
    return [(names[i] if share >= FOLLOWED else "", share) for i, share in zip(which.tolist(), best.tolist())]
