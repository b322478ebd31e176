"""Measures of models with Gaussian latents: how many latents are in use, and what an image costs in nats."""

import torch

from genfast.engine.full_forward import evaluating

ACTIVE = 0.01


@torch.no_grad()
def active_units(model, batches, threshold=ACTIVE):
    """Which latents depend on the image: `Var_x(E[z | x]) > threshold`, over all images.

    Args:
        model: with `encode(images[, labels]) -> (mean [B, Z], log_variance)`; evaluated without dropout.
        batches: of images, uint8 [B, C, H, W], or of tuples (images, labels) for a conditional model.
        threshold: of the variance.
    Returns: bool [Z].
    Raises: ValueError for no images.
    Paper: Importance Weighted Autoencoders, section 5.2, arXiv 1509.00519.
    """
    with evaluating(model):
        means = [model.encode(*_arguments(batch))[0].double() for batch in batches]
    if not sum(map(len, means)):
        raise ValueError("active_units: batches must hold at least one image; got none")
    return torch.cat(means).var(0, correction=0) > threshold


@torch.no_grad()
def latent_nll(model, batches, *, samples=5000, seed=0):
    """Nats per image under a `VAE`, from the tightest estimate to the loosest bound.

    Args: model; batches (as of `active_units`); samples, seed (of the importance-sampled likelihood).
    Returns: {"model": importance-sampled, "model, bound": as training has it, where that is not the ELBO,
        "model, ELBO": with one draw}, each a float.
    Raises: ValueError for no images.
    """
    totals, count = {}, 0
    with evaluating(model):
        for batch in batches:
            arguments, first = _arguments(batch), {"seed": seed, "first": count}
            elbo, bound = model.elbo(*arguments, **first), model.bound(*arguments, **first)
            found = {"model": model.log_prob(*arguments, samples=samples, **first)}
            if not torch.equal(elbo, bound):
                found["model, bound"] = bound
            found["model, ELBO"] = elbo
            for name, nats in found.items():
                totals[name] = totals.get(name, 0.0) - nats.double().sum().item()
            count += len(arguments[0])
    if not count:
        raise ValueError("latent_nll: batches must hold at least one image; got none")
    return {name: total / count for name, total in totals.items()}


def _arguments(batch):
    return batch if isinstance(batch, tuple) else (batch,)
