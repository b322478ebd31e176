"""Importance-sampled likelihoods beside a loop; `python benchmarks/importance.py` writes results/*-importance.md.

The loop is what a tutorial has: image by image and draw by draw, by torch.distributions; and the same by hand. The
models are those of `genfast train vae`, untrained, which changes no time. A loop of a few hundred draws stands for one
of 5000.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal
from torch.nn import functional as F

from genfast import models
from genfast.benchmarks import machine
from genfast.io import write_bytes

CASES = {
    "MLP, 2 x 200 units, 50 latents": {"network": "mlp", "hidden": 200, "layers": 2, "latent": 50},
    "MLP, 2 x 500 units, 50 latents": {"network": "mlp", "hidden": 500, "layers": 2, "latent": 50},
    "the mnist preset: conv, 16 features, 32 latents": {"network": "conv", "hidden": 16, "layers": 1, "latent": 32},
}
SAMPLES, LOOPED = 5000, 300


def by_distributions(model: models.VAE, x: Tensor, draws: int) -> Tensor:
    mean, log_variance = model.encode(x)
    q, prior = Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    weights = []
    for _ in range(draws):
        z = q.sample()
        likelihood = Bernoulli(logits=model.decode(z)).log_prob(x.float()).sum()
        weights.append(likelihood + prior.log_prob(z).sum() - q.log_prob(z).sum())
    return torch.stack(weights).logsumexp(0) - math.log(draws)


def by_hand(model: models.VAE, x: Tensor, draws: int) -> Tensor:
    mean, log_variance = model.encode(x)
    weights = []
    for _ in range(draws):
        e = torch.randn_like(mean)
        z = mean + e * (log_variance / 2).exp()
        likelihood = -F.binary_cross_entropy_with_logits(model.decode(z), x.float(), reduction="sum")
        weights.append(likelihood + 0.5 * (e * e - z * z + log_variance).sum())
    return torch.stack(weights).logsumexp(0) - math.log(draws)


@torch.no_grad()
def rates(config: dict, images: int) -> dict[str, float]:
    """Images a second of genfast and of both loops, and their estimates for the same image."""
    torch.manual_seed(0)
    model = models.build("vae", **config).eval()
    x = (torch.rand(images, 1, 28, 28) < 0.13).to(torch.uint8)
    model.log_prob(x[:1], samples=200)
    seconds, batched = _timed(lambda: model.log_prob(x, samples=SAMPLES))
    measured = {"genfast": images / seconds}
    for loop in (by_distributions, by_hand):
        loop(model, x[:1], 20)
        seconds, alone = _timed(lambda: loop(model, x[:1], LOOPED))  # noqa: B023
        measured[loop.__name__] = LOOPED / SAMPLES / seconds
        # The estimates of fewer draws lie lower; a wrong formula would be tens of nats away.
        assert abs(float(alone) - float(batched[0])) < 5, (float(alone), float(batched[0]))
    return measured


def _timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="cores and threads to keep to (2)")
    parser.add_argument("--images", type=int, default=8, help="images of one batch (8)")
    options = parser.parse_args()
    about = machine.describe(machine.pin(options.threads), options.threads)
    lines = [
        f"# Importance-sampled likelihoods, {SAMPLES} draws of every image",
        "",
        ", ".join(f"{key} {value}" for key, value in about.items()),
        "",
        "| VAE of 28x28 binary images | genfast, images/s | loop by torch.distributions | loop by hand |",
        "|---|---|---|---|",
    ]
    for name, config in CASES.items():
        row = rates(config, options.images)
        ratio = {key: row["genfast"] / row[key] for key in row}
        loops = (f"{row[key]:.3f}, {ratio[key]:.1f}x" for key in ("by_distributions", "by_hand"))
        lines.append(f"| {name} | {row['genfast']:.1f} | {' | '.join(loops)} |")
        print(lines[-1], flush=True)
    path = Path(__file__).parent / "results" / f"{machine.slug(about)}-importance.md"
    write_bytes(path, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
