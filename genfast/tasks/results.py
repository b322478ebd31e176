"""What the verbs return beside plain tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Inpainting:
    """What `inpaint` returns.

    Attributes:
        images: uint8 [n, C, H, W].
        acceptance: share of the proposals that were accepted, by kind: blocks of values ("all" unknown ones, a
            "window", a "pixel"), or latents (from the "posterior", by a "walk"); empty where there were none.
        mean: float32 [n, C, H, W] in levels, the mean of each unknown value given the known ones, of a model with
            latents; else None.
    """

    images: Tensor
    acceptance: dict[str, float]
    mean: Tensor | None = None


@dataclass
class Denoised:
    """What `denoise` returns.

    Attributes:
        images: uint8 [n, C, H, W], as `method` says.
        samples: uint8 [samples, n, C, H, W], draws from the posterior: the last states of the chains.
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
        latents: int64 [K], which latents these are, the most active first.
        kl: float32 [K], nats that each of them carries: its mean KL divergence from the prior over the images.
        values: float32 [steps], what the latent was set to.
    """

    images: Tensor
    latents: Tensor
    kl: Tensor
    values: Tensor
