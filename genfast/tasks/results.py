"""The results of tasks that return more than a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Check:
    """What `check` returns.

    Attributes:
        ok: whether the engine agrees with the author's loss, see `check`.
        difference: the largest difference between the two, in nats per value; inf where the engine refuses the model as
            it was described.
        remedy: what would make them agree, such as "input_range=(-1, 1) makes them agree (difference 2e-08)", or what
            was tried and the most likely reason; None if they agree.
    """

    ok: bool
    difference: float
    remedy: str | None


@dataclass
class FileInfo:
    """What a file of `compress` says of itself, see `file_info`.

    Attributes:
        kind: "lossless" or "codes".
        version: of the format.
        count, channels, height, width, levels, classes: of the images; classes is 0 without labels.
        size: bytes of the file.
        block, blocks: images of a stream that is read as a whole, and how many there are.
        model: fingerprint of what wrote the file, in hexadecimal digits.
        model_size: bytes of the model that the file holds; 0 for none.
    """

    kind: str
    version: int
    count: int
    channels: int
    height: int
    width: int
    levels: int
    classes: int
    size: int
    block: int
    blocks: int
    model: str
    model_size: int

    @property
    def bits_per_dim(self) -> float:
        """Bits of the file for a value of the images; NaN without images."""
        values = self.count * self.channels * self.height * self.width
        return 8 * self.size / values if values else math.nan

    def __str__(self) -> str:
        images = f"{self.count} images of {self.width}x{self.height}, {self.channels} channels, {self.levels} levels"
        images += f", labels of {self.classes} classes" if self.classes else ""
        blocks = f", in {self.blocks} blocks of {self.block} images" if self.kind == "lossless" else ""
        size = f"{self.size} bytes, {self.bits_per_dim:.4f} bits a dimension{blocks}"
        held = f", held in {self.model_size} bytes of the file" if self.model_size else ""
        return f"{self.kind}, version {self.version}: {images}\n{size}\nmodel {self.model}{held}"


@dataclass
class Inpainting:
    """What `inpaint` returns.

    Attributes:
        images: levels [n, C, H, W].
        acceptance: share of the proposals that were accepted, by kind: blocks of values ("all" unknown ones, a
            "window", a "pixel"), or latents (from the "posterior", by a "walk"); empty without proposals.
        mean: for a model with latents the mean of each value given the known ones, float32 [n, C, H, W] in levels; else
            None.
    """

    images: Tensor
    acceptance: dict[str, float]
    mean: Tensor | None = None


@dataclass
class Denoised:
    """What `denoise` returns.

    Attributes:
        images: levels [n, C, H, W], the estimate of `method`.
        samples: levels [samples, n, C, H, W], from the posterior: the last states of the chains.
        acceptance: share of the proposals that were accepted, by kind: blocks of values ("all", a "window", a
            "pixel"), or latents (from the "posterior", by a "walk").
    """

    images: Tensor
    samples: Tensor
    acceptance: dict[str, float]


@dataclass
class Traversal:
    """What `traverse` returns.

    Attributes:
        images: float32 [n, K, steps, C, H, W] in levels: latent k of image n at each of the steps.
        latents: int64 [K], the indices of these latents, the most active first.
        kl: float32 [K], the mean KL divergence of each from the prior over the images, in nats.
        values: float32 [steps], of the latent.
    """

    images: Tensor
    latents: Tensor
    kl: Tensor
    values: Tensor
