"""Reconstruction: images after encoding and decoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_images
from genfast.engine.calling import evaluating
from genfast.engine.protocols import Reconstructor, device_of
from genfast.engine.wrappers import unwraps
from genfast.tasks._latent import check_call


@unwraps
@torch.no_grad()
def reconstruct(
    model: nn.Module, images: Tensor, labels: int | Tensor | None = None, *, batch_size: int | None = None
) -> Tensor:
    """Encode images to latents or codes, and decode these: the mean, rounded to levels.

    Args:
        model: a `genfast.engine.protocols.Reconstructor`, as `genfast.models.VAE` and `VQVAE` are.
        images: levels, integers [n, C, H, W].
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
    Returns: uint8 [n, C, H, W], on the device of the model.
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.reconstruct(vae, images)`
    """
    if not isinstance(model, nn.Module) or not isinstance(model, Reconstructor):
        raise TypeError(f"reconstruct: model must have latents or codes; got {type(model).__name__}")
    device = device_of(model)
    images = check_images("reconstruct", "images", images, model.spec)
    call = check_call("reconstruct", model, len(images), labels=labels, batch_size=batch_size)
    parts = [torch.zeros(0, *model.spec.shape, dtype=torch.uint8, device=device)]
    with evaluating(model):
        for part in call.batches():
            parts.append(model.reconstruct(images[part].to(device), call.labels_of(part)))
    return torch.cat(parts)
