"""What a model knows of images, as latents: of a VAE its own, of a VQ-VAE the main components of its codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.engine.calling import evaluating
from genfast.engine.protocols import CodeModel, LatentModel, device_of
from genfast.tasks._latent import check_call
from genfast.tasks.embed import embed
from genfast.tasks.interpolate import expected_images
from genfast.tasks.traverse import kl_per_latent

CARRIED = 0.01  # nats, or share of the variance, from which on a latent carries information
COMPONENTS = 16  # of the codes of a VQ-VAE
ROUNDS = 4  # of subspace iteration

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Latents:
    """Images as vectors of the latents that carry information, the most informative first.

    Attributes:
        values: float32 [n, Z].
        numbers: which latents of the model these are.
        information: of each, float64 [Z], in `unit`.
        unit: "nats" (KL from the prior, a mean over images) or "share" (of the variance of the codes).
        total: latents of the model.
        decode: float [m, Z] -> images, float [m, C, H, W] in levels.
        encode: images, levels uint8 [m, C, H, W] -> these latents of them, float32 [m, Z].
    """

    values: Tensor
    numbers: tuple[int, ...]
    information: Tensor
    unit: str
    total: int
    decode: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor]


def check_audited(model: Any) -> None:
    """TypeError for a model without latents or codes; ValueError for a conditional one."""
    if not isinstance(model, (LatentModel, CodeModel)):
        expected = "latents or codes, as genfast.models.VAE and VQVAE have"
        raise TypeError(f"audit: model must have {expected}; got {type(model).__name__}")
    if model.spec.classes:
        why = "what it is told, its latents leave out"
        raise ValueError(f"audit: model must be unconditional ({why}); got one of {model.spec.classes} classes")


def latents_of(model: Any, images: Tensor, progress: Progress | None = None, *, seed: int = 0) -> Latents:
    """The latents of images, levels uint8 [n, C, H, W]; `progress` is called with the images of each batch."""
    check_audited(model)
    if isinstance(model, LatentModel):
        return _of_vae(model, images, progress)
    return _of_codes(model, images, progress, seed)


def _of_vae(model: LatentModel, images: Tensor, progress: Progress | None) -> Latents:
    means, log_variances = embed(model, images, log_variance=True, progress=progress)
    kl = kl_per_latent(means, log_variances).double()
    order = kl.argsort(descending=True, stable=True)
    order = order[: max(2, int((kl >= CARRIED).sum()))]

    @torch.no_grad()
    def decode(z: Tensor) -> Tensor:
        full = torch.zeros(len(z), model.latent_size, dtype=torch.float32, device=device_of(model))
        full[:, order.to(full.device)] = z.float().to(full.device)
        return expected_images(model, full[:, None], check_call("audit", model, len(z)))[:, 0].cpu()

    def encode(x: Tensor) -> Tensor:
        means: Any = embed(model, x)
        return means[:, order]

    return Latents(means[:, order], tuple(order.tolist()), kl[order], "nats", model.latent_size, decode, encode)


@torch.no_grad()
def _of_codes(model: CodeModel, images: Tensor, progress: Progress | None, seed: int) -> Latents:
    """The main components of the codes as indicators, by subspace iteration: no matrix of [n, places K] is made."""

    def codes(x: Tensor, progress: Progress | None = None) -> Tensor:
        """Codes int64 [n, h, w]."""
        parts = []
        with evaluating(model):
            for part in x.split(check_call("audit", model, len(x)).size):
                parts.append(model.encode(part.to(device_of(model))).cpu())
                if progress is not None:
                    progress(len(part))
        return torch.cat(parts)

    grid, count = codes(images[:1]).shape[1:], model.code_count
    places = grid[0] * grid[1]
    offsets = count * torch.arange(places, dtype=torch.int64, device="cpu")
    flat = codes(images, progress).flatten(1) + offsets
    mean = torch.bincount(flat.flatten(), minlength=places * count).float() / len(flat)
    generator = torch.Generator("cpu").manual_seed(seed)
    width = min(COMPONENTS + 8, len(flat))
    basis = torch.randn(places * count, width, generator=generator, dtype=torch.float32, device="cpu")
    for _ in range(ROUNDS):
        scores = torch.linalg.qr(_times(flat, basis, mean))[0]
        basis = torch.linalg.qr(_transposed(flat, scores, mean))[0]
    scores = _times(flat, basis, mean)
    u, s, v = torch.linalg.svd(scores, full_matrices=False)
    total = places - float(mean.square().sum())  # variance of the indicators
    share = (s.double().square() / len(flat) / max(total, 1e-9))[:COMPONENTS]
    kept = share[: max(2, int((share >= CARRIED).sum()))]
    z, axes = (u * s)[:, : len(kept)], (basis @ v.T)[:, : len(kept)]

    @torch.no_grad()
    def decode(z: Tensor) -> Tensor:
        near = (mean + z.float() @ axes.T).view(len(z), *grid, count).argmax(-1).to(device_of(model))
        with evaluating(model):
            return torch.cat([model.likelihood.expected(model.decode(part)).float().cpu() for part in near.split(256)])

    def encode(x: Tensor) -> Tensor:
        return _times(codes(x).flatten(1) + offsets, axes, mean)

    return Latents(z, tuple(range(len(kept))), kept, "share", min(COMPONENTS, len(s)), decode, encode)


def _times(flat: Tensor, basis: Tensor, mean: Tensor) -> Tensor:
    """(indicators - mean) @ basis, of the columns [n, places] at which the indicators are 1."""
    return F.embedding_bag(flat, basis, mode="sum") - mean @ basis


def _transposed(flat: Tensor, scores: Tensor, mean: Tensor) -> Tensor:
    out = torch.zeros(len(mean), scores.shape[1], dtype=torch.float32, device="cpu")
    for column in flat.unbind(1):
        out.index_add_(0, column, scores)
    return out - mean[:, None] * scores.sum(0)


def traversals(latents: Latents, steps: int = 7, span: float = 3.0) -> Tensor:
    """Images in which one latent moves from -span to span standard deviations, the others at rest, float
    [Z, steps, C, H, W]; it begins at the image whose latents are nearest to their means."""
    z = latents.values
    middle, spread = z.mean(0), z.std(0, correction=0).clamp(min=1e-6)
    start = z[((z - middle) / spread).square().sum(1).argmin()]
    values = torch.linspace(-span, span, steps, dtype=torch.float32, device="cpu")
    rows = start.repeat(z.shape[1], steps, 1)
    for latent in range(z.shape[1]):
        rows[latent, :, latent] = middle[latent] + values * spread[latent]
    return latents.decode(rows.flatten(0, 1)).unflatten(0, (-1, steps))
