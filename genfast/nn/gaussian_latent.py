"""The Gaussian latent variable as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genfast import ops


class GaussianLatent(nn.Module):
    """Draws z ~ N(mean, exp(log_variance)) by reparameterisation, and computes the KL divergence from N(0, I).

    The seed of the noise comes from torch's CPU generator, in training and in evaluation mode, so `torch.manual_seed`
    makes it reproducible; the argument `seed` overrides it. Drawing the seed breaks the graph of
    `torch.compile(fullgraph=True)`, here and in `VAE.loss`; with a given `seed` the layer compiles in one graph.

    Args:
        samples: S, draws per image.
        per_latent: whether to return the KL divergence of each latent instead of the sum.
    Shape: mean, log_variance [B, ...] -> z [B S, ...], the draws of one image after another, and kl [B] in nats, or of
        the shape of mean if per_latent.
    Paper: Auto-Encoding Variational Bayes, section 2.4, arXiv 1312.6114.
    Example: `GaussianLatent()(torch.zeros(2, 8), torch.zeros(2, 8))`
    """

    def __init__(self, samples: int = 1, per_latent: bool = False) -> None:
        super().__init__()
        self.samples, self.per_latent = samples, per_latent

    def forward(self, mean: Tensor, log_variance: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor]:
        seed = drawn_seed() if seed is None else seed
        return ops.gaussian_latent(mean, log_variance, seed, samples=self.samples, per_latent=self.per_latent)

    def extra_repr(self) -> str:
        return f"samples={self.samples}, per_latent={self.per_latent}"


def drawn_seed() -> int:
    """A seed in [0, 2**63) from torch's CPU generator, whatever the device of the model."""
    return int(torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu"))
