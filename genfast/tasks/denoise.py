"""Clean images from noisy ones: the posterior of a model and a model of the noise."""

from dataclasses import dataclass

import torch

from genfast.engine.arguments import check_count, check_labels, check_whole
from genfast.engine.engine import Engine, check_evidence
from genfast.engine.latents import is_latent, refuse_codes, refuse_engine_options
from genfast.tasks.chains.pixels import MOST_CHAINS, MOST_STEPS, Chains, rates

METHODS = ("sample", "mean", "map")
# Values times levels of a batch: what is known of each level lies in memory.
MOST_VALUES = 2**25


@dataclass
class Denoised:
    """What `denoise` returns.

    Attributes:
        images: uint8 [n, C, H, W], as `method` says.
        samples: uint8 [samples, n, C, H, W], draws from the posterior: the last states of the chains.
        acceptance: share of the proposals that were accepted, by kind: blocks of values ("all", a "window", a
            "pixel"), or latents (from the "posterior", by a "walk").
    """

    images: torch.Tensor
    samples: torch.Tensor
    acceptance: dict


def denoise(
    model, noisy, noise_model, *, method="sample", samples=None, steps=200, seed=0, first=0, labels=None,
    batch_size=None, backend="auto", shape=None, levels=None, input_range=None, head=None, progress=None,
):  # fmt: skip
    """Clean images, from the posterior p(x | noisy), proportional to p(x) p(noisy | x).

    Metropolis-Hastings chains (`genfast.tasks.chains.pixels`) draw from the posterior; they begin at a draw where every
    value knew the noisy values so far. "sample" is the last state of the first chain. "mean" is the mean of the states
    of the second half of all chains, rounded to a level: the least squared error, so the best PSNR. "map" is the
    coordinate-wise maximum a posteriori, the level that each value has most often in these states: the fewest wrong
    values. A model with a mixture of logistics proposes without a look at the noisy values, and so needs more steps.

    For a model with latents, such as `genfast.models.VAE`, the chains are those of `genfast.tasks.clean`.

    The result of an image depends on (seed, first + its index) alone, as for `genfast.sample`.

    Args:
        model, seed, first, labels, batch_size: as `genfast.sample`, or a model with latents.
        backend, shape, levels, input_range, head: as `genfast.sample`; not for a model with latents.
        noisy: [n, C, H, W], as `noise_model` makes them: uint8 levels (`BitFlip`), or float values of which 1 is the
            highest level (`Gaussian`).
        noise_model: `BitFlip(p)`, `Gaussian(sigma)`, or another object with `log_likelihood(noisy, levels)`.
        method: "sample", "mean" or "map".
        samples: chains of each image, 1 to 64; None: 1 for "sample", else 4.
        steps: of each chain, each one pass of the engine.
        progress: called with 1 after each step of a batch.
    Returns: `Denoised`.
    Raises: as `genfast.sample`, and those of the noise model.
    Example: `genfast.denoise(model, genfast.BitFlip(0.1).corrupt(images, 2), genfast.BitFlip(0.1), method="map")`
    """
    refuse_codes("denoise", model)
    if is_latent(model):
        refuse_engine_options(
            "denoise", model, backend=backend, shape=shape, levels=levels, input_range=input_range, head=head
        )  # fmt: skip
        from genfast.tasks.clean import clean  # which knows what a Denoised is

        return clean(
            model, noisy, noise_model, method=method, samples=samples, steps=steps, seed=seed, first=first,
            labels=labels, batch_size=batch_size, progress=progress,
        )  # fmt: skip
    engine = Engine(model, backend=backend, shape=shape, levels=levels, input_range=input_range, head=head)
    network = engine.network
    if network.head is None:
        raise ValueError(f"denoise: the model must have a known head; got {type(model).__name__}, with its own draws")
    samples, most = check_noisy(network, noisy, noise_model, method, samples, steps)
    n, first, seed = check_count("denoise", len(noisy), first, seed)
    labels = check_labels("denoise", labels, network, n, network.device)
    if batch_size is not None:
        check_whole("denoise", "batch_size", batch_size, 1)
    size = batch_size or min(engine.batch_size, most)
    found, counts = [], torch.zeros(2, 3, dtype=torch.int64)
    for start in range(0, n, size):
        part = slice(start, min(start + size, n))
        evidence = noise_model.log_likelihood(noisy[part], network.levels)
        check_evidence("denoise", evidence, network, len(noisy[part]))
        evidence = evidence.to(network.device)
        chosen = None if labels is None else labels[part]
        settings = {"seed": seed, "first": first + start, "labels": chosen, "evidence": evidence}
        found.append(_posterior(engine, settings, method, samples, steps, progress, counts))
    if not found:
        return nothing_denoised(network, samples)
    images, drawn = zip(*found)
    return Denoised(torch.cat(images), torch.cat(drawn, 1), rates(*counts))


def check_noisy(network, noisy, noise_model, method, samples, steps):
    """(samples, the most images of a batch) of arguments of `denoise` that fit a network, whatever its kind.

    Raises: TypeError or ValueError for those that do not, and the noise model's for what it cannot have made.
    """
    if method not in METHODS:
        raise ValueError(f"denoise: method must be one of {', '.join(METHODS)}; got {method!r}")
    samples = (1 if method == "sample" else 4) if samples is None else samples
    check_whole("denoise", "samples", samples, 1, MOST_CHAINS + 1)
    check_whole("denoise", "steps", steps, 0, MOST_STEPS)
    sizes = (network.channels, network.height, network.width)
    if not isinstance(noisy, torch.Tensor) or noisy.dim() != 4 or noisy.shape[1:] != sizes:
        got = tuple(noisy.shape) if isinstance(noisy, torch.Tensor) else type(noisy).__name__
        raise ValueError(f"denoise: noisy must have shape [n, C, H, W] with C, H, W = {sizes}; got {got}")
    check_evidence("denoise", noise_model.log_likelihood(noisy[:1], network.levels), network, len(noisy[:1]))
    return samples, max(1, MOST_VALUES // (torch.Size(sizes).numel() * network.levels))


def nothing_denoised(network, samples):
    """`Denoised` of no images."""
    sizes = (network.channels, network.height, network.width)
    empty = torch.zeros(0, *sizes, dtype=torch.uint8, device=network.device)
    return Denoised(empty, empty.expand(samples, *empty.shape), {})


def _posterior(engine, settings, method, samples, steps, progress, counts):
    """The estimate, and the last states, of a batch; adds to the counts of accepted and proposed blocks."""
    evidence, last = settings["evidence"], []
    total = torch.zeros_like(evidence if method == "map" else evidence[..., 0])
    given = torch.zeros(evidence.shape[:-1], dtype=torch.uint8, device=evidence.device)
    known = torch.zeros_like(given, dtype=torch.bool)
    for chain in range(samples):
        chains = Chains(engine, given, known, chain=chain, **settings)
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
    images = {"sample": lambda: last[0], "map": lambda: total.argmax(-1), "mean": lambda: (total / states).round()}
    return images[method]().to(torch.uint8), torch.stack(last)
