"""Denoising: the posterior of a model of images under a model of the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_batch_size, check_count, check_labels
from genfast.engine.engine import Engine
from genfast.engine.request import SampleRequest, check_evidence
from genfast.engine.wrappers import unwraps
from genfast.tasks._latent import check_latent_model, is_latent, refuse_codes, refuse_engine_options
from genfast.tasks._noisy import METHODS, check_noisy
from genfast.tasks.chains import acceptance_rates
from genfast.tasks.chains.pixels import KINDS, Chains
from genfast.tasks.clean import clean
from genfast.tasks.noise import Noise
from genfast.tasks.results import Denoised

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords

__all__ = ["METHODS", "denoise"]


@unwraps
def denoise(
    model: nn.Module | Engine,
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
    backend: str = "auto",
    progress: Callable[[int], None] | None = None,
    **keywords: Unpack[Keywords],
) -> Denoised:
    """Clean images from the posterior p(x | noisy), which is proportional to p(x) p(noisy | x).

    Metropolis-Hastings chains (`genfast.tasks.chains.pixels`) sample from the posterior. They begin at a draw in raster
    order in which every value is weighted by its own noisy value. The methods are:

    - "sample": the last state of the first chain;
    - "mean": the mean over the second half of all chains, rounded to a level, which minimises the squared error;
    - "map": the mode of each value over these states, which minimises the number of wrong values.

    The proposals of a mixture of logistics do not depend on the noisy values, so such a model needs more steps. A model
    with latents, such as `genfast.models.VAE`, uses the chains of `genfast.tasks.clean`.

    The result of an image depends on (seed, first + its index) alone, as for `genfast.sample`.

    Args:
        model, seed, first, labels, batch_size: as `genfast.sample`, or a model with latents.
        backend, keywords: as `genfast.sample`; not for a model with latents.
        noisy: [n, C, H, W], of the kind of `noise_model`: levels, integers (`BitFlipNoise`), or floats, where 1 is
            the highest level (`GaussianNoise`).
        noise_model: `BitFlipNoise(p)`, `GaussianNoise(sigma)`, or another object with `log_likelihood(noisy, levels)`.
        method: "sample", "mean" or "map".
        samples: chains of each image, 1 to 64; None: 1 for "sample", else 4.
        steps: of each chain, each one pass of the engine.
        progress: called with 1 after each step of a batch.
    Returns: `Denoised`.
    Raises: as `genfast.sample`, and those of the noise model.
    Example: `noise = genfast.BitFlipNoise(0.1); genfast.denoise(model, noise.corrupt(images, 2), noise, method="map")`
    """
    of, model = model, model.model if isinstance(model, Engine) else model
    refuse_codes("denoise", model)
    if is_latent(model):
        refuse_engine_options("denoise", model, backend, keywords)
        settings: Any = {"steps": steps, "seed": seed, "first": first, "labels": labels, "batch_size": batch_size}
        return clean(
            check_latent_model("denoise", model),
            noisy,
            noise_model,
            method=method,
            samples=samples,
            progress=progress,
            **settings,
        )
    engine = Engine.of(of, backend=backend, **keywords)
    network = engine.network
    if network.likelihood.case is None:
        raise ValueError(f"denoise: the model must have a known head; got {type(model).__name__}, with its own draws")
    samples, most = check_noisy(network.spec, noisy, noise_model, method, samples, steps)
    n, first, seed = check_count("denoise", len(noisy), first, seed)
    labels = check_labels("denoise", labels, network.spec, n, network.device)
    size = check_batch_size("denoise", batch_size, min(engine.batch_size, most))
    images, states = [], []
    counts = torch.zeros(2, 3, dtype=torch.int64, device="cpu")
    for start in range(0, n, size):
        part = slice(start, min(start + size, n))
        evidence = noise_model.log_likelihood(noisy[part], network.spec.levels)
        check_evidence("denoise", evidence, network.spec, len(noisy[part]))
        given = torch.zeros(evidence.shape[:-1], dtype=network.spec.dtype, device="cpu")
        known = torch.zeros_like(given, dtype=torch.bool)
        of_part = None if labels is None else labels[part]
        request = SampleRequest(
            len(given), seed, first + start, labels=of_part, given=given, known=known, evidence=evidence
        ).to(network.device)
        estimate, last = _posterior(engine, request, method, samples, steps, progress, counts)
        images.append(estimate)
        states.append(last)
    if not images:
        empty = torch.zeros(0, *network.spec.shape, dtype=network.spec.dtype, device=network.device)
        return Denoised(empty, empty.expand(samples, *empty.shape), {})
    return Denoised(torch.cat(images), torch.cat(states, 1), acceptance_rates(KINDS, *counts))


def _posterior(
    engine: Engine,
    request: SampleRequest,
    method: str,
    samples: int,
    steps: int,
    progress: Callable[[int], None] | None,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """The estimate and the last states of a batch; adds to the counts of accepted and proposed blocks."""
    last: list[Tensor] = []
    assert request.evidence is not None
    # The sum of many states of many levels is no float32.
    total = torch.zeros_like(request.evidence if method == "map" else request.evidence[..., 0].double())
    for chain in range(samples):
        chains = Chains(engine, request, chain)
        for number in range(steps + 1):
            if number:
                chains.step(number)
                if progress is not None:
                    progress(1)
            if 2 * number > steps or number == steps:
                if method == "map":
                    total.scatter_add_(-1, chains.images[..., None].long(), torch.ones_like(total[..., :1]))
                elif method == "mean":
                    total += chains.images
        last.append(chains.images)
        counts += torch.stack((chains.accepted, chains.proposed))
    states = samples * (steps - steps // 2 if steps else 1)
    if method == "sample":
        estimate = last[0]
    else:
        estimate = total.argmax(-1) if method == "map" else (total / states).round()
    return estimate.to(chains.images.dtype), torch.stack(last)
