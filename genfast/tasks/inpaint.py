"""Filling in the unknown values of images."""

from dataclasses import dataclass

import torch

from genfast.engine.arguments import check_count, check_labels, check_partly, check_whole
from genfast.engine.engine import Engine
from genfast.engine.latents import is_latent, refuse_codes, refuse_engine_options
from genfast.tasks.chains.pixels import MOST_STEPS, Chains, rates

ORDERS = ("raster", "exact")
# Of a model with latents, whose values have no order.
LATENT_ORDERS = {"exact": "metropolis", "pseudo-gibbs": "pseudo-gibbs"}


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

    images: torch.Tensor
    acceptance: dict
    mean: torch.Tensor | None = None


def check_order(model, order):
    """Refuse a model that `inpaint` does not take (TypeError) and an order that is not the model's (ValueError)."""
    refuse_codes("inpaint", model)
    orders, of = (LATENT_ORDERS, " for a model with latents") if is_latent(model) else (ORDERS, "")
    if order not in orders:
        raise ValueError(f"inpaint: order must be one of {', '.join(orders)}{of}; got {order!r}")


def inpaint(
    model, images, mask, *, order="exact", steps=500, seed=0, first=0, labels=None, batch_size=None, backend="auto",
    shape=None, levels=None, input_range=None, head=None, progress=None,
):  # fmt: skip
    """Draw the unknown values of images, given the known ones.

    "raster" draws every unknown value from what comes before it alone, as `genfast.sample(given=, mask=)` does: exact
    where all unknown values come last. "exact" goes on from there by `steps` steps of a Metropolis-Hastings chain, with
    the model's exact likelihood ratio (`genfast.tasks.chains.pixels`), whose limit is the model's distribution given
    all known values; an image whose unknown values come last is left as it is.

    A model with latents, such as `genfast.models.VAE`, has no order: "exact" is Metropolis within Gibbs over its
    latents and the unknown values, "pseudo-gibbs" its approximation without decisions (`genfast.tasks.impute`).

    The result of an image depends on (seed, first + its index) alone, as for `genfast.sample`.

    Args:
        model, seed, first, labels, batch_size: as `genfast.sample`, or a model with latents.
        backend, shape, levels, input_range, head: as `genfast.sample`; not for a model with latents.
        images: uint8 [n, C, H, W], levels; what is unknown may be any byte.
        mask: bool [n or 1, C or 1, H, W], True where a value is known.
        order: "raster" or "exact"; of a model with latents "exact" or "pseudo-gibbs".
        steps: of the chain, each one pass of the engine.
        progress: called with 1 after each step of a batch, and with `steps` for a batch that needs no chain (not for
            "raster").
    Returns: `Inpainting`.
    Raises: as `genfast.sample`.
    Example: `genfast.inpaint(model, images, torch.arange(28).view(1, 1, 28, 1) >= torch.full((1, 1, 1, 28), 14))`
    """
    check_order(model, order)
    if is_latent(model):
        refuse_engine_options(
            "inpaint", model, backend=backend, shape=shape, levels=levels, input_range=input_range, head=head
        )  # fmt: skip
        from genfast.tasks.impute import impute  # which knows what an Inpainting is

        return impute(
            model, images, mask, method=LATENT_ORDERS[order], steps=steps, seed=seed, first=first, labels=labels,
            batch_size=batch_size, progress=progress,
        )  # fmt: skip
    engine = Engine(model, backend=backend, shape=shape, levels=levels, input_range=input_range, head=head)
    network = engine.network
    images, known = check_partly("inpaint", "images", images, mask, network)
    n, first, seed = check_count("inpaint", len(images), first, seed)
    labels = check_labels("inpaint", labels, network, n, network.device)
    check_whole("inpaint", "steps", steps, 0, MOST_STEPS)
    if batch_size is not None:
        check_whole("inpaint", "batch_size", batch_size, 1)
    size = batch_size or engine.batch_size
    parts, counts = [images[:0].to(network.device)], torch.zeros(2, 3, dtype=torch.int64)
    for start in range(0, n, size):
        part = slice(start, min(start + size, n))
        chains = Chains(
            engine, images[part].to(network.device), known[part].to(network.device), seed=seed, first=first + start,
            labels=None if labels is None else labels[part],
        )  # fmt: skip
        if order == "exact" and chains.moving.any():
            for number in range(1, steps + 1):
                chains.step(number)
                if progress is not None:
                    progress(1)
        elif order == "exact" and progress is not None:
            progress(steps)
        parts.append(chains.images)
        counts += torch.stack((chains.accepted, chains.proposed))
    return Inpainting(torch.cat(parts), rates(*counts))
