"""The Gaussian latent variable as a layer."""

import torch
from torch import nn

from genfast import ops


class GaussianLatent(nn.Module):
    """Draws z ~ N(mean, exp(log_variance)) by reparameterisation, and gives the KL divergence from N(0, I).

    In training and evaluation alike the seed of the noise comes from torch's generator of the CPU, so that
    `torch.manual_seed` repeats it; `seed` overrides it. Drawing that seed breaks the graph of
    `torch.compile(fullgraph=True)`, here and in `VAE.loss`; with a given `seed` the layer compiles whole.

    Args:
        samples: S, draws of every image.
        per_latent: whether to leave the KL divergence unsummed.
    Shape: mean, log_variance [B, ...] -> z [B S, ...], the draws of an image one after the other, and kl [B] nats, or
        like mean if per_latent.
    Paper: Auto-Encoding Variational Bayes, section 2.4, arXiv 1312.6114.
    Example: `GaussianLatent()(torch.zeros(2, 8), torch.zeros(2, 8))`
    """

    def __init__(self, samples=1, per_latent=False):
        super().__init__()
        self.samples, self.per_latent = samples, per_latent

    def forward(self, mean, log_variance, seed=None):
        seed = drawn_seed() if seed is None else seed
        return ops.gaussian_latent(mean, log_variance, seed, samples=self.samples, per_latent=self.per_latent)

    def extra_repr(self):
        return f"samples={self.samples}, per_latent={self.per_latent}"


def drawn_seed():
    """A seed in [0, 2**63) from torch's generator of the CPU, which every device shares."""
    return int(torch.randint(2**63 - 1, ()))
