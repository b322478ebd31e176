"""Clean images from noisy ones: the posterior of a model with latents, and a model of the noise."""

import torch

from genfast.engine.engine import check_evidence
from genfast.engine.full_forward import evaluating
from genfast.engine.latents import batches, check_call, describe, part_of
from genfast.tasks.chains.latents import WARM_UP, LatentChains, Noisy, rates
from genfast.tasks.denoise import Denoised, check_noisy, nothing_denoised


@torch.no_grad()
def clean(
    model, noisy, noise_model, *, method="sample", samples=None, steps=200, seed=0, first=0, labels=None,
    batch_size=None, progress=None,
):  # fmt: skip
    """Clean images, from the posterior p(x | noisy): what `genfast.denoise` does for a model with latents.

    Chains over (z, x) (`genfast.tasks.chains.latents`) draw from it: p(x | noisy) is proportional to the integral of
    p(z) p(x | z) p(noisy | x).
    "sample" is the last x of the first chain. "mean" and "map" rest on the probability of each level given the z of the
    second half of all chains: its mean, rounded to a level, and the level where it is highest. A model whose channels
    depend on each other given z (a mixture in colour) counts the states of the chains instead, and needs more steps.

    Args:
        model: with latents (`genfast.engine.latents.is_latent`).
        noisy, noise_model, method, samples, steps, seed, first, labels, batch_size, progress: as `genfast.denoise`; a
            quarter of the steps, up to 20, take every proposal.
    Returns: `genfast.tasks.denoise.Denoised`; the kinds of proposals are "posterior" and "walk".
    Raises: TypeError or ValueError for an argument that does not fit, and those of the noise model.
    Example: `genfast.tasks.clean(vae, noise.corrupt(images, 2), noise := genfast.BitFlip(0.1), method="mean")`
    """
    call, network = "denoise", describe("denoise", model)
    samples, most = check_noisy(network, noisy, noise_model, method, samples, steps)
    n = len(noisy)
    first, seed, labels, size = check_call(
        call, network, n, first=first, seed=seed, labels=labels, batch_size=batch_size
    )  # fmt: skip
    size = size if batch_size else min(size, most)
    images, drawn = [], []
    counts = torch.zeros(2, 2, dtype=torch.int64)
    with evaluating(model):
        for part in batches(n, size):
            evidence = noise_model.log_likelihood(noisy[part], network.levels)
            check_evidence(call, evidence, network, len(noisy[part]))
            seen = Noisy(model, network, evidence.to(network.device))
            settings = {"seed": seed, "first": first + part.start, "labels": part_of(labels, part)}
            settings["warm_up"] = min(WARM_UP, steps // 4)
            found = _posterior(model, network, seen, settings, method, samples, steps, progress, counts)
            images.append(found[0])
            drawn.append(found[1])
    if not images:
        return nothing_denoised(network, samples)
    return Denoised(torch.cat(images), torch.cat(drawn, 1), rates(*counts))


def _posterior(model, network, seen, settings, method, samples, steps, progress, counts):
    """The estimate, and the last states, of a batch; adds to the counts of accepted and proposed latents."""
    total, last = torch.zeros_like(seen.log_g), []
    for chain in range(samples):
        chains = LatentChains(model, network, seen, len(seen.log_g), chain=chain, **settings)
        for number in range(steps + 1):
            if number:
                chains.step(number)
                if progress is not None:
                    progress(1)
            if method != "sample" and (2 * number > steps or number == steps):
                if network.coupled:
                    total.scatter_add_(-1, chains.x[..., None].long(), torch.ones_like(total[..., :1]))
                else:
                    total += seen.levels(chains.parameters)
        last.append(chains.x)
        counts += torch.stack((chains.accepted, chains.proposed))
    if method == "sample":
        return last[0], torch.stack(last)
    share = total / total.sum(-1, keepdim=True)
    levels = torch.arange(network.levels, device=share.device, dtype=share.dtype)
    estimate = share.argmax(-1) if method == "map" else (share * levels).sum(-1).round()
    return estimate.to(torch.uint8), torch.stack(last)
