"""Sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from genfast.data.grid import grid, png
from genfast.reports.blocks import Picture

NARROW = 340  # pixels of the page on a telephone


def sheet(
    name: str,
    images: ArrayLike,
    levels: int,
    *,
    alt: str,
    caption: str = "",
    columns: int,
    heads: Sequence[tuple[str, int]] = (),
) -> Picture:
    """A sheet of images, row by row, as small as the pixels allow: the page enlarges it.

    Args:
        name: of the file, FILE.png.
        images: uint8 [N, C, H, W], levels.
        levels: values of a channel.
        alt, caption: of the `Picture`.
        columns: images side by side.
        heads: (text, columns below it), which are `columns` together, or none.
    Returns: Picture.
    Raises: ValueError for heads of another number of columns.
    """
    if heads and sum(count for _, count in heads) != columns:
        raise ValueError(f"sheet: heads must be of {columns} columns; got {sum(count for _, count in heads)}")
    side = max(1, NARROW // columns - 2)
    return Picture(name, png(grid(images, levels, columns=columns, side=side)), alt, caption, heads)
