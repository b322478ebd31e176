"""The results of tasks that return more than a tensor."""

from __future__ import annotations

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
