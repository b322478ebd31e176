"""Latent traversal: images along single latents."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast import ops
from genfast.engine.arguments import check_images, check_int
from genfast.engine.protocols import LatentModel
from genfast.engine.wrappers import unwraps
from genfast.tasks._latent import check_call, check_latent_model
from genfast.tasks.embed import posteriors
from genfast.tasks.interpolate import expected_images
from genfast.tasks.results import Traversal


@unwraps
@torch.no_grad()
def traverse(
    model: LatentModel,
    x: Tensor,
    *,
    steps: int = 9,
    span: float = 3.0,
    count: int | None = None,
    reference: Tensor | None = None,
    labels: int | Tensor | None = None,
    batch_size: int | None = None,
) -> Traversal:
    """The effect of each latent: images in which only this latent varies, the others at their posterior mean.

    The latents are sorted by their KL divergence from the prior, the mean over images of KL(q(z_l | x) || N(0, 1)), the
    largest first. It is 0 for a latent that the model does not use.

    Args:
        model: a `genfast.engine.protocols.LatentModel`.
        x: images, integers [n, C, H, W].
        steps: values of a latent, equally spaced from -span to span, at least 2.
        span: in standard deviations of the prior.
        count: how many latents, the most active ones; None: all.
        reference: images for the KL divergence, integers [m, C, H, W]; only for an unconditional model; None: x.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
    Returns: `Traversal`.
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.traverse(model, images[:1], reference=images, count=10).images`
    """
    name, model = "traverse", check_latent_model("traverse", model)
    check_int(name, "steps", steps, 2)
    count = model.latent_size if count is None else count
    check_int(name, "count", count, 1, model.latent_size + 1)
    if not isinstance(span, (int, float)) or not 0 < span < float("inf"):
        raise ValueError(f"{name}: span must be positive and finite; got {span!r}")
    if reference is not None and model.spec.classes:
        raise ValueError(f"{name}: reference must be None for a conditional model; got a value")
    x = check_images(name, "x", x, model.spec)
    call = check_call(name, model, len(x), labels=labels, batch_size=batch_size)
    mean, log_variance = posteriors(model, x, call)
    about = mean, log_variance
    if reference is not None:
        reference = check_images(name, "reference", reference, model.spec)
        about = posteriors(model, reference, check_call(name, model, len(reference), batch_size=batch_size))
    kl = kl_per_latent(*about)
    order = kl.argsort(descending=True, stable=True)[:count]
    values = torch.linspace(-span, span, steps, device=mean.device, dtype=torch.float32)
    latents = mean[:, None, None].expand(-1, count, steps, -1).clone()
    moved = order.view(1, -1, 1, 1).expand(len(x), -1, steps, 1)
    latents.scatter_(-1, moved, values.view(1, 1, -1, 1).expand(len(x), count, -1, 1))
    images = expected_images(model, latents.flatten(1, 2), call).unflatten(1, (count, steps))
    return Traversal(images, order, kl[order], values)


def kl_per_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over images of KL(N(mean, exp(log_variance)) || N(0, 1)), nats: [n, Z] each -> float32 [Z]."""
    _, kl = ops.gaussian_latent(mean.double(), log_variance.double(), 0, per_latent=True)
    return kl.sum(0).div(max(1, len(mean))).float()
