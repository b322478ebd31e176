"""Denoising by a model with latents: its posterior under a model of the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genfast.engine.calling import evaluating
from genfast.engine.protocols import LatentModel, device_of
from genfast.engine.request import check_evidence
from genfast.engine.wrappers import unwraps
from genfast.tasks._latent import check_call, check_latent_model, no_images
from genfast.tasks._noisy import check_noisy
from genfast.tasks.chains import acceptance_rates
from genfast.tasks.chains.latents import KINDS, WARM_UP, LatentChains, Noisy
from genfast.tasks.noise import Noise
from genfast.tasks.results import Denoised


@unwraps
@torch.no_grad()
def clean(
    model: LatentModel,
    noisy: Tensor,
    noise_model: Noise,
    *,
    method: str = "sample",
    samples: int | None = None,
    steps: int = 200,
    seed: int = 0,
    first: int = 0,
    labels: int | Tensor | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Denoised:
    """Clean images from the posterior p(x | noisy): `genfast.denoise` for a model with latents.

    The posterior is proportional to the integral over z of p(z) p(x | z) p(noisy | x). Chains over (z, x) sample from
    it (`genfast.tasks.chains.latents`). "sample" is the last x of the first chain. "mean" and "map" average the
    probabilities of the levels given z over the second half of all chains, and return their mean, rounded to a level,
    and their mode. If the channels of a pixel are coupled given z (a mixture in colour), they average the states x
    instead, which needs more steps.

    Args:
        model: a `genfast.engine.protocols.LatentModel`.
        noisy, noise_model, method, samples, steps, seed, first, labels, batch_size, progress: as `genfast.denoise`; a
            quarter of the steps, up to 20, are warm-up, which accepts every proposal.
    Returns: `genfast.tasks.Denoised`; the kinds of proposals are "posterior" and "walk".
    Raises: TypeError or ValueError for an argument that does not fit, and those of the noise model.
    Example: `genfast.tasks.clean(vae, noise.corrupt(images, 2), noise := genfast.BitFlipNoise(0.1), method="mean")`
    """
    name, model = "denoise", check_latent_model("denoise", model)
    spec = model.spec
    samples, most = check_noisy(spec, noisy, noise_model, method, samples, steps)
    options: Any = {"first": first, "seed": seed, "labels": labels}
    call = check_call(name, model, len(noisy), batch_size=batch_size, **options)
    if batch_size is None and call.size > most:
        call = check_call(name, model, len(noisy), batch_size=most, **options)
    images, states = [], []
    counts = torch.zeros(2, 2, dtype=torch.int64, device="cpu")
    with evaluating(model):
        for part in call.batches():
            evidence = noise_model.log_likelihood(noisy[part], spec.levels)
            check_evidence(name, evidence, spec, len(noisy[part]))
            seen = Noisy(model, evidence.to(device_of(model)))
            settings = {"seed": call.seed, "first": call.first + part.start, "labels": call.labels_of(part)}
            settings["warm_up"] = min(WARM_UP, steps // 4)
            estimate, last = _posterior(model, seen, settings, method, samples, steps, progress, counts)
            images.append(estimate)
            states.append(last)
    if not images:
        empty = no_images(model)
        return Denoised(empty, empty.expand(samples, *empty.shape), {})
    return Denoised(torch.cat(images), torch.cat(states, 1), acceptance_rates(KINDS, *counts))


def _posterior(
    model: LatentModel,
    seen: Noisy,
    settings: dict[str, Any],
    method: str,
    samples: int,
    steps: int,
    progress: Callable[[int], None] | None,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """The estimate and the last states of a batch; adds to the counts of accepted and proposed latents."""
    total, last = torch.zeros_like(seen.log_g), []
    for chain in range(samples):
        chains = LatentChains(model, seen, len(seen.log_g), chain=chain, **settings)
        for number in range(steps + 1):
            if number:
                chains.step(number)
                if progress is not None:
                    progress(1)
            if method != "sample" and (2 * number > steps or number == steps):
                if model.likelihood.couples_channels:
                    total.scatter_add_(-1, chains.x[..., None].long(), torch.ones_like(total[..., :1]))
                else:
                    total += seen.levels(chains.parameters)
        last.append(chains.x)
        counts += torch.stack((chains.accepted, chains.proposed))
    if method == "sample":
        return last[0], torch.stack(last)
    share = total / total.sum(-1, keepdim=True)
    levels = torch.arange(model.spec.levels, device=share.device, dtype=share.dtype)
    estimate = share.argmax(-1) if method == "map" else (share * levels).sum(-1).round()
    return estimate.to(torch.uint8), torch.stack(last)
