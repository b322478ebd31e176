"""Metrics of models with Gaussian latents: active units, and the likelihood and its bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from genfast.engine.calling import evaluating
from genfast.engine.wrappers import unwraps

ACTIVE = 0.01
Batch = Tensor | tuple[Tensor, ...]


@unwraps
@torch.no_grad()
def active_units(model: Any, batches: Iterable[Batch], threshold: float = ACTIVE) -> Tensor:
    """Active units: the latents that depend on the image, with `Var_x(E[z | x]) > threshold` over all images.

    Args:
        model: with `encode(images[, labels]) -> (mean [B, Z], log_variance)`; in evaluation mode.
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


@unwraps
@torch.no_grad()
def latent_nll(model: Any, batches: Iterable[Batch], *, samples: int = 5000, seed: int = 0) -> dict[str, float]:
    """Negative log-likelihood of a `VAE` and its bounds, in nats per image, the tightest first.

    Args: model; batches (as for `active_units`); samples, seed (of the importance sampling).
    Returns: {"model": by importance sampling, "model, bound": that of training, if it is not the ELBO, "model, ELBO":
        with one draw}, each a float.
    Raises: ValueError for no images.
    """
    totals: dict[str, float] = {}
    count = 0
    with evaluating(model):
        for batch in batches:
            arguments, first = _arguments(batch), {"seed": seed, "first": count}
            elbo, bound = model.elbo(*arguments, **first), model.bound(*arguments, **first)
            values = {"model": model.log_prob(*arguments, samples=samples, **first)}
            if not torch.equal(elbo, bound):
                values["model, bound"] = bound
            values["model, ELBO"] = elbo
            for name, nats in values.items():
                totals[name] = totals.get(name, 0.0) - nats.double().sum().item()
            count += len(arguments[0])
    if not count:
        raise ValueError("latent_nll: batches must hold at least one image; got none")
    return {name: total / count for name, total in totals.items()}


def _arguments(batch: Batch) -> tuple[Tensor, ...]:
    return batch if isinstance(batch, tuple) else (batch,)
