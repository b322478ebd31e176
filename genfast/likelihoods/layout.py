"""Layouts: which dimension of an output is the batch, the channels, the rows, the columns and the levels.

A layout is written as a pattern of letters, one entry for each dimension: B the batch, C the channels, H the rows, W
the columns, L the levels, P the parameters of a pixel. Letters in parentheses share a dimension, the first varying
slowest: "B (H W) L" is an output [B, H * W, L]. Of a tuple or a dict "0: B L H W" or "logits: B L H W" names the entry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

LETTERS = "BCHWLP"
Dims = tuple[str, ...]  # of each dimension its letters
Sizes = dict[str, int]  # of each letter

# What people return: images with features first or last, sequences of pixels or of values, flat lists of either.
_PATTERNS = (
    *("B P H W", "B L C H W", "B C L H W", "B (C L) H W", "B (L C) H W", "B C H W", "B H W C"),
    *("B C H W L", "B H W C L", "B H W L C", "B H W (C L)", "B H W (L C)", "B H W P"),
    *("B (H W) P", "B P (H W)", "B (H W) C L", "B L (C H W)", "B (C H W) L", "B L (H W C)", "B (H W C) L"),
    *("B C L (H W)", "B L C (H W)", "B (C H W)", "B (H W C)", "B C (H W)", "B (H W) C"),
    *("(B H W) P", "(B H W) C L", "(B H W C) L", "(B C H W) L", "(B C H W)", "(B H W C)", "(B H W) C"),
    *("B (C H W L)", "B (L C H W)", "B (H W C L)", "B (C L H W)"),
)


@dataclass(frozen=True)
class Layout:
    """The letters of each dimension of an output.

    Attributes:
        dims: such as ("B", "L", "HW").
        entry: of a tuple (an int) or a dict (a string); None for a tensor.
    """

    dims: Dims
    entry: str | int | None = None

    @property
    def letters(self) -> str:
        """All letters, in the order of memory."""
        return "".join(self.dims)

    @property
    def features(self) -> set[str]:
        """The letters of the features of a pixel."""
        return set(self.letters) - set("BHW")

    def fits(self, shape: Sequence[int], sizes: Sizes) -> bool:
        """Whether an output of this shape has this layout. Letters without a size have any."""
        if len(shape) != len(self.dims):
            return False
        for n, dim in zip(shape, self.dims):
            known = math.prod(sizes.get(letter, 1) for letter in dim)
            free = any(letter not in sizes for letter in dim)
            if n % known if free else n != known:
                return False
        return True

    def free(self, shape: Sequence[int], sizes: Sizes, letter: str) -> int:
        """The size of a letter that has none in `sizes`, of an output that fits."""
        n, dim = next((n, dim) for n, dim in zip(shape, self.dims) if letter in dim)
        return n // math.prod(sizes.get(other, 1) for other in dim)

    def order(self) -> list[int]:
        """The places in `letters` of B, C, L, P, H and W, as far as there are such."""
        return [self.letters.index(letter) for letter in "BCLPHW" if letter in self.letters]

    def ordered(self, output: Tensor, sizes: Sizes, place: tuple[int, int] | None = None) -> Tensor:
        """An output as [B, features, H, W], or that of one pixel as [B, features].

        Where C and L are named, the features of a channel lie together.
        """
        if place is not None and all(len(dim) == 1 for dim in self.dims) and output.dim() == len(self.dims):
            # Most outputs: one dimension for each letter. A single row of a crop may have been squeezed.
            at = {"H": place[0], "W": place[1]}
            picked = output[tuple(at.get(letter, slice(None)) for letter in self.letters)]
            left = self.letters.replace("H", "").replace("W", "")
            if left not in ("B", "BC", "BL", "BP", "BCL"):
                picked = picked.permute([left.index(letter) for letter in "BCLP" if letter in left])
            return picked.reshape(len(picked), -1)
        split = output.reshape([sizes.get(letter, -1) for letter in self.letters])
        moved = split.permute(self.order())
        if place is not None:
            return moved[..., place[0], place[1]].reshape(len(moved), -1)
        return moved.flatten(1, moved.dim() - 3) if moved.dim() > 3 else moved.unsqueeze(1)

    def __str__(self) -> str:
        text = " ".join(dim if len(dim) == 1 else f"({' '.join(dim)})" for dim in self.dims)
        return text if self.entry is None else f"{self.entry}: {text}"


def parse_layout(call: str, pattern: str) -> Layout:
    """The layout of a pattern. Raises: TypeError or ValueError for what is none."""
    if not isinstance(pattern, str):
        raise TypeError(f"{call}: output must be a pattern such as 'B H W L'; got {type(pattern).__name__}")
    name, colon, text = pattern.rpartition(":")
    name = name.strip()
    entry = (int(name) if name.lstrip("-").isdecimal() else name) if colon else None
    parts = re.findall(r"\([^()]*\)|[^\s()]+", text)
    dims = tuple("".join(part.strip("()").split()) for part in parts)
    letters = "".join(dims)
    legal = set(letters) <= set(LETTERS) and len(set(letters)) == len(letters) and {"B", "H", "W"} <= set(letters)
    if not legal or ("P" in letters and {"C", "L"} & set(letters)) or text.count("(") != text.count(")"):
        expected = (
            "of the letters B, C, H, W and L (or P for all parameters of a pixel), such as 'B H W L' or 'B L (H W)'"
        )
        raise ValueError(f"{call}: output must be a pattern {expected}; got {pattern!r}")
    return Layout(dims, entry)


def layouts_of(shape: Sequence[int], sizes: Sizes, wanted: Sequence[str]) -> list[Layout]:
    """The layouts that an output of this shape may have, one for each order in memory.

    Args:
        sizes: of B, C, H, W and L.
        wanted: the letters of the features: "CL" for logits of all levels, "C" for one number of each value, "P" for
            the parameters of a pixel in an order of their own.
    """
    found: dict[str, Layout] = {}
    for pattern in _PATTERNS:
        dims = tuple("".join(part.strip("()").split()) for part in re.findall(r"\([^()]*\)|\S+", pattern))
        for one in _variants(dims, sizes, wanted):
            if one.fits(shape, sizes):
                found.setdefault("".join(letter for letter in one.letters if sizes.get(letter) != 1), one)
    return list(found.values())


def _variants(dims: Dims, sizes: Sizes, wanted: Sequence[str]) -> list[Layout]:
    """A pattern as it is, and what it is for images of one channel: most outputs then have no C."""
    layouts = [Layout(dims)]
    if sizes["C"] == 1:
        layouts.append(Layout(tuple(rest for dim in dims if (rest := dim.replace("C", "")))))
        layouts.append(Layout(tuple(dim.replace("P", "L") for dim in dims)))
    every = set(wanted)
    return [one for one in layouts if one.features == every or sizes["C"] == 1 and one.features == every - {"C"}]
