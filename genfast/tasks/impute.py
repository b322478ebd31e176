"""Imputation by a model with latents: unknown values, drawn given the known ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genfast.engine.arguments import check_int, check_partly_known
from genfast.engine.calling import evaluating
from genfast.engine.protocols import LatentModel, device_of
from genfast.engine.wrappers import unwraps
from genfast.likelihoods import Likelihood
from genfast.random.streams import MOST_STEPS
from genfast.tasks._latent import check_call, check_latent_model
from genfast.tasks.chains import acceptance_rates
from genfast.tasks.chains.latents import KINDS, WARM_UP, Known, LatentChains
from genfast.tasks.results import Inpainting

METHODS = ("metropolis", "pseudo-gibbs")


@unwraps
@torch.no_grad()
def impute(
    model: LatentModel,
    images: Tensor,
    mask: Tensor,
    *,
    method: str = "metropolis",
    steps: int = 500,
    seed: int = 0,
    first: int = 0,
    labels: int | Tensor | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Inpainting:
    """Draw the unknown values of images, given the known ones: `genfast.inpaint` for a model with latents.

    "metropolis" samples from p(x_unknown | x_known) of the model, by Metropolis within Gibbs and by steps that depend
    on the known values alone (`genfast.tasks.chains.latents`). "pseudo-gibbs" is the approximation of Rezende et al. It
    draws z ~ q(z | x) and x_unknown ~ p(x | z) in turn, and accepts every draw; its limit is right only if q is exact.

    The result of an image depends on (seed, first + its index) alone, not on the batches, except for a decision within
    rounding.

    Args:
        model: a `genfast.engine.protocols.LatentModel`.
        images: levels, integers [n, C, H, W]; unknown values may be any.
        mask: bool [n or 1, C or 1, H, W], True where a value is known.
        method: "metropolis" or "pseudo-gibbs".
        steps: of the chain; a quarter of them, up to 20, are pseudo-Gibbs whatever the method.
        seed: int in [0, 2**64).
        first: index of the first image.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
        progress: called with 1 after each step of a batch.
    Returns: `genfast.tasks.Inpainting`; its `mean` of the unknown values is over the second half of the steps.
    Raises: TypeError or ValueError for an argument that does not fit, before any work.
    Paper: Leveraging the exact likelihood of deep latent variable models, Mattei and Frellsen 2018, arXiv 1802.04826.
    Example: `genfast.tasks.impute(vae, images, mask).images`
    """
    name, model = "inpaint", check_latent_model("inpaint", model)
    images, known = check_partly_known(name, "images", images, mask, model.spec, model.likelihood)
    call = check_call(name, model, len(images), first=first, seed=seed, labels=labels, batch_size=batch_size)
    check_int(name, "steps", steps, 0, MOST_STEPS)
    if method not in METHODS:
        raise ValueError(f"{name}: method must be one of {', '.join(METHODS)}; got {method!r}")
    device, exact = device_of(model), method == "metropolis"
    drawn, means, counts = [images[:0].to(device)], [], torch.zeros(2, 2, dtype=torch.int64, device="cpu")
    with evaluating(model):
        for part in call.batches():
            given, there = images[part].to(device), known[part].to(device)
            settings = {"seed": call.seed, "first": call.first + part.start, "labels": call.labels_of(part)}
            warm_up = min(WARM_UP, steps // 4)
            evidence = Known(model, given, there)
            chains = LatentChains(model, evidence, len(given), exact=exact, warm_up=warm_up, **settings)
            drawn.append(given)
            means.append(given.float())
            if there.all():
                if progress is not None:
                    progress(steps)
                continue
            mean = _run(chains, steps, progress, model.likelihood)
            drawn[-1] = chains.x
            means[-1] = torch.where(there, means[-1], mean)
            counts += torch.stack((chains.accepted, chains.proposed))
    mean = torch.cat(means) if means else drawn[0].float()
    return Inpainting(torch.cat(drawn), acceptance_rates(KINDS, *counts), mean)


def _run(chains: LatentChains, steps: int, progress: Callable[[int], None] | None, likelihood: Likelihood) -> Tensor:
    """The mean over the second half of the steps, float [n, C, H, W].

    It averages the expectation given z if that is exact, else x.
    """
    total: Any = 0.0
    states = 0
    for number in range(steps + 1):
        if number:
            chains.step(number)
            if progress is not None:
                progress(1)
        if 2 * number > steps or number == steps:
            state = likelihood.expected(chains.parameters) if likelihood.expected_is_exact else chains.x
            total, states = total + state.float(), states + 1
    mean: Tensor = total / states
    return mean
