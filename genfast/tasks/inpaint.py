"""Inpainting: the unknown values of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_batch_size, check_count, check_int, check_labels, check_partly_known
from genfast.engine.engine import Engine
from genfast.engine.request import SampleRequest, check_first
from genfast.engine.wrappers import unwraps
from genfast.random.streams import MOST_STEPS
from genfast.tasks._latent import check_latent_model, is_latent, refuse_codes, refuse_engine_options
from genfast.tasks.chains import acceptance_rates
from genfast.tasks.chains.pixels import KINDS, Chains
from genfast.tasks.impute import impute
from genfast.tasks.results import Inpainting

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords

ORDERS = ("raster", "exact")
# The orders of a model with latents, whose values have none: order -> method of `impute`.
LATENT_ORDERS = {"exact": "metropolis", "pseudo-gibbs": "pseudo-gibbs"}


def check_order(model: Any, order: str) -> None:
    """TypeError for a model that `inpaint` does not take; ValueError for an order that does not fit the model."""
    refuse_codes("inpaint", model)
    orders, of = (LATENT_ORDERS, " for a model with latents") if is_latent(model) else (ORDERS, "")
    if order not in orders:
        raise ValueError(f"inpaint: order must be one of {', '.join(orders)}{of}; got {order!r}")


@unwraps
def inpaint(
    model: nn.Module | Engine,
    images: Tensor,
    mask: Tensor,
    *,
    order: str = "exact",
    steps: int = 500,
    seed: int = 0,
    first: int = 0,
    labels: int | Tensor | None = None,
    batch_size: int | None = None,
    backend: str = "auto",
    progress: Callable[[int], None] | None = None,
    **keywords: Unpack[Keywords],
) -> Inpainting:
    """Draw the unknown values of images, given the known ones.

    "raster" draws every unknown value given the values before it, as `genfast.sample(given=, mask=)` does; this is
    exact if all unknown values come last. "exact" continues from there by `steps` steps of a Metropolis-Hastings chain
    (`genfast.tasks.chains.pixels`), whose limit is the distribution of the model given all known values. An image whose
    unknown values come last needs no steps.

    A model with latents, such as `genfast.models.VAE`, has no order of values. For it "exact" is Metropolis within
    Gibbs over latents and unknown values, and "pseudo-gibbs" an approximation that accepts every draw
    (`genfast.tasks.impute`).

    The result of an image depends on (seed, first + its index) alone, as for `genfast.sample`.

    Args:
        model, seed, first, labels, batch_size: as `genfast.sample`, or a model with latents.
        backend, keywords: as `genfast.sample`; not for a model with latents.
        images: levels, integers [n, C, H, W]; unknown values may be any.
        mask: bool [n or 1, C or 1, H, W], True where a value is known.
        order: "raster" or "exact"; for a model with latents "exact" or "pseudo-gibbs".
        steps: of the chain, each one pass of the engine.
        progress: called with 1 after each step of a batch, and with `steps` for a batch that needs no chain (not for
            "raster").
    Returns: `Inpainting`.
    Raises: as `genfast.sample`.
    Example: `genfast.inpaint(model, images, torch.arange(28).view(1, 1, 28, 1) >= torch.full((1, 1, 1, 28), 14))`
    """
    of, model = model, model.model if isinstance(model, Engine) else model
    check_order(model, order)
    settings: Any = {"steps": steps, "seed": seed, "first": first, "labels": labels}
    if is_latent(model):
        refuse_engine_options("inpaint", model, backend, keywords)
        method = LATENT_ORDERS[order]
        return impute(
            check_latent_model("inpaint", model),
            images,
            mask,
            method=method,
            batch_size=batch_size,
            progress=progress,
            **settings,
        )
    engine = Engine.of(of, backend=backend, **keywords)
    spec, likelihood, device = engine.network.spec, engine.network.likelihood, engine.network.device
    images, known = check_partly_known("inpaint", "images", images, mask, spec, likelihood)
    n, first, seed = check_count("inpaint", len(images), first, seed)
    labels = check_labels("inpaint", labels, spec, n, device)
    check_int("inpaint", "steps", steps, 0, MOST_STEPS)
    size = check_batch_size("inpaint", batch_size, engine.batch_size)
    request = SampleRequest(n, seed, first, labels=labels, given=images, known=known)
    check_first("inpaint", engine.network.delay, request)
    parts, counts = [images[:0].to(device)], torch.zeros(2, 3, dtype=torch.int64, device="cpu")
    for start in range(0, n, size):
        chains = Chains(engine, request.part(start, min(start + size, n)).to(device))
        if order == "exact" and chains.moving.any():
            for number in range(1, steps + 1):
                chains.step(number)
                if progress is not None:
                    progress(1)
        elif order == "exact" and progress is not None:
            progress(steps)
        parts.append(chains.images)
        counts += torch.stack((chains.accepted, chains.proposed))
    return Inpainting(torch.cat(parts), acceptance_rates(KINDS, *counts))
