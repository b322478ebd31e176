"""Missing pixels, drawn from a model with latents given those that are there."""

import torch

from genfast import metrics
from genfast.engine.arguments import check_partly, check_whole
from genfast.engine.full_forward import evaluating
from genfast.engine.latents import batches, check_call, describe, part_of
from genfast.tasks.chains.latents import WARM_UP, Known, LatentChains, rates
from genfast.tasks.chains.pixels import MOST_STEPS
from genfast.tasks.inpaint import Inpainting

METHODS = ("metropolis", "pseudo-gibbs")


@torch.no_grad()
def impute(
    model, images, mask, *, method="metropolis", steps=500, seed=0, first=0, labels=None, batch_size=None,
    progress=None,
):  # fmt: skip
    """Draw the unknown values of images, given the known ones: what `genfast.inpaint` does for a model with latents.

    "metropolis" draws from p(x_unknown | x_known) of the model: Metropolis within Gibbs, and in between steps that look
    at the known values alone (`genfast.tasks.chains.latents`). "pseudo-gibbs" is the approximation of Rezende et al.:
    it draws z ~ q(z | x) and x_unknown ~ p(x | z) in turn and decides nothing; its limit is the same only if q is
    exact.

    The result of an image depends on (seed, first + its index) alone, whatever the batches, but for a decision within
    rounding.

    Args:
        model: with latents (`genfast.engine.latents.is_latent`).
        images: uint8 [n, C, H, W], levels; what is unknown may be any byte.
        mask: bool [n or 1, C or 1, H, W], True where a value is known.
        method: "metropolis" or "pseudo-gibbs".
        steps: of the chain; a quarter of them, up to 20, are pseudo-Gibbs whatever the method.
        seed: int in [0, 2**64).
        first: index of the first image.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
        progress: called with 1 after each step of a batch.
    Returns: `genfast.tasks.inpaint.Inpainting`; its `mean` is that of the unknown values over the second half of
        the steps.
    Raises: TypeError or ValueError for an argument that does not fit, before any work.
    Paper: Leveraging the exact likelihood of deep latent variable models, Mattei and Frellsen 2018, arXiv 1802.04826.
    Example: `genfast.tasks.impute(vae, images, mask).images`
    """
    call, network = "inpaint", describe("inpaint", model)
    images, known = check_partly(call, "images", images, mask, network)
    n = len(images)
    first, seed, labels, size = check_call(
        call, network, n, first=first, seed=seed, labels=labels, batch_size=batch_size
    )  # fmt: skip
    check_whole(call, "steps", steps, 0, MOST_STEPS)
    if method not in METHODS:
        raise ValueError(f"{call}: method must be one of {', '.join(METHODS)}; got {method!r}")
    drawn, means, counts = [images[:0].to(network.device)], [], torch.zeros(2, 2, dtype=torch.int64)
    with evaluating(model):
        for part in batches(n, size):
            given, there = images[part].to(network.device), known[part].to(network.device)
            chains = LatentChains(
                model, network, Known(model, network, given, there), len(given), seed=seed, first=first + part.start,
                labels=part_of(labels, part), exact=method == "metropolis", warm_up=min(WARM_UP, steps // 4),
            )  # fmt: skip
            drawn.append(given)
            means.append(given.float())
            if there.all():
                if progress is not None:
                    progress(steps)
                continue
            mean = _run(chains, steps, progress, model.expected if network.head == "bernoulli" else None)
            drawn[-1] = chains.x
            means[-1] = torch.where(there, means[-1], mean)
            counts += torch.stack((chains.accepted, chains.proposed))
    mean = torch.cat(means) if means else drawn[0].float()
    return Inpainting(torch.cat(drawn), rates(*counts), mean)


def _run(chains, steps, progress, expected):
    """The mean over the second half of the steps, float [n, C, H, W], of what is expected given z, or of x without."""
    total, states = 0.0, 0
    for number in range(steps + 1):
        if number:
            chains.step(number)
            if progress is not None:
                progress(1)
        if 2 * number > steps or number == steps:
            state = chains.x if expected is None else expected(chains.parameters)
            total, states = total + state.float(), states + 1
    return total / states


def imputation_error(images, truth, mask, levels):
    """How far imputed values are from the truth, over the unknown values alone.

    Args:
        images: [n, C, H, W], levels (uint8), or means between them (float), which are rounded to count wrong ones.
        truth: uint8 [n, C, H, W].
        mask: bool [n or 1, C or 1, H, W], True where a value was known.
        levels: L.
    Returns: a dict: "wrong", the share of unknown values whose level is not that of the truth (of 2 levels: the bit
        error); "psnr" in dB, with L - 1 the peak.
    Raises: ValueError where nothing is unknown.
    """
    unknown = ~mask.expand_as(truth).cpu()
    if not unknown.any():
        raise ValueError("imputation_error: mask must leave a value unknown; got none")
    found, true = images.cpu()[unknown], truth.cpu()[unknown]
    wrong = (found.float().round() != true.float()).double().mean()
    return {"wrong": float(wrong), "psnr": metrics.psnr(found, true, levels)}
