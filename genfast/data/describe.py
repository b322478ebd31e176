"""Data in one line, and the parts of a data set as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from genfast.data._images import ImageData
from genfast.data.pair_data import PairData

MOST_NAMED = 12  # classes in the line


def describe(data: ImageData | PairData) -> str:
    """Which data these are: name and split, how many images, their size, colours, levels and classes, in one line."""
    height, width = data.images.shape[2:]
    colour = "grey" if data.images.shape[1] == 1 else "colour"
    if isinstance(data, PairData):
        source = "grey" if data.source.shape[1] == 1 else "colour"
        return f"{data.name}: {len(data)} pairs of {width}x{height}, {source} and {colour}, {data.levels} levels"
    images = f"{len(data)} image{'s' * (len(data) != 1)} of {width}x{height}"
    line = f"{data.name}: {images}, {colour}, {data.levels} levels"
    if data.labels is None:
        return f"{line}, no labels"
    more = ", ..." if len(data.class_names) > MOST_NAMED else ""
    names = f" ({', '.join(data.class_names[:MOST_NAMED])}{more})" if data.class_names else ""
    return f"{line}, {data.classes} classes{names}"


def joined(parts: Sequence[ImageData | PairData], name: str) -> ImageData | PairData:
    """The images of several parts of a data set, one after the other."""
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    files = tuple(file for part in parts for file in part.files)
    if all(isinstance(part, PairData) for part in parts):
        pairs = [part for part in parts if isinstance(part, PairData)]
        source, target = (torch.cat(side) for side in zip(*((pair.source, pair.target) for pair in pairs), strict=True))
        return replace(pairs[0], source=source, target=target, name=name, notes=notes, files=files)
    images = [part for part in parts if isinstance(part, ImageData)]
    labels = [part.labels for part in images if part.labels is not None]
    return replace(
        images[0],
        images=torch.cat([part.images for part in images]),
        labels=torch.cat(labels) if len(labels) == len(images) else None,
        classes=max(part.classes for part in images) if len(labels) == len(images) else 0,
        name=name,
        notes=notes,
        files=files,
        skipped=sum(part.skipped for part in images),
    )
