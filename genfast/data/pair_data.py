"""Pairs of images, of a source and a target domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairData:
    """Images of two domains, pair by pair.

    `source` uint8 [N, S, H, W] and `target` uint8 [N, C, H, W], both with values in 0..levels-1; S and C are 1 or 3.
    `files` and `notes`: as of ImageData; the files are those of the sources.

    Raises: TypeError for another dtype; ValueError for sizes that are not those of pairs.
    """

    source: Tensor
    target: Tensor
    levels: int
    name: str
    skipped: int = 0
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labels = None
    classes = 0

    def __post_init__(self) -> None:
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
    def images(self) -> Tensor:
        """The targets: what a model of these pairs generates."""
        return self.target

    def select(self, rows: slice | Tensor, name: str) -> PairData:
        """The pairs of these rows, with all that belongs to them."""
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        files = tuple(self.files[i] for i in numbers) if self.files else ()
        return replace(self, source=self.source[rows], target=self.target[rows], files=files, name=name)

    def __len__(self) -> int:
        return len(self.target)
