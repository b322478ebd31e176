"""The importance-weighted autoencoder: a VAE trained on a tighter bound."""

from dataclasses import dataclass
from typing import Literal

import torch

from genfast import ops
from genfast._config import option
from genfast.models._importance import log_weights
from genfast.models.base import register_model
from genfast.models.vae import VAE, VAEConfig
from genfast.nn.gaussian_latent import drawn_seed


@dataclass
class IWAEConfig(VAEConfig):
    """Sizes and objective of an `IWAE`."""

    samples: int = option(50, "S, importance samples of every image", ge=1)
    estimator: Literal["iwae", "dreg"] = option(
        "iwae", "iwae (of the gradient), or dreg: doubly reparameterised, of less variance for the encoder"
    )
    resampled: int = option(
        0, "samples of an image that the gradient is taken of, drawn by their weights; 0 for all of them", ge=0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.objective != "elbo" or self.beta != 1 or self.free_bits:
            got = f"{self.objective}, {self.beta} and {self.free_bits}"
            raise ValueError(f"IWAEConfig: objective, beta and free_bits must be elbo, 1 and 0; got {got}")


@register_model
class IWAE(VAE):
    """A `VAE` trained on `E log 1/S sum_s p(x, z_s) / q(z_s | x)`, which lies between the ELBO and log p(x).

    `bound` is that of S = `samples`; everything else is as of a `VAE`. With `resampled` R all samples are decoded
    without a gradient, and R of them, drawn with the probabilities of the normalised weights, once more with one: its
    mean is the gradient of all, at a third of the time and R / S of the memory. A trained `VAE` of the same sizes is a
    good start: `genfast train iwae --init-from RUN`.

    Paper: Importance Weighted Autoencoders, equation 8, arXiv 1509.00519; the estimator dreg: Doubly Reparameterized
        Gradient Estimators, equation 8, arXiv 1810.04152.
    Example: `IWAE(IWAEConfig(latent=8, samples=5)).sample(4)`
    """

    name = "iwae"
    config_type = IWAEConfig

    def loss(self, x, labels=None):
        """What training minimises: [B] nats. Arguments and errors as `encode`."""
        c, (mean, log_variance) = self.config, self.encode(x, labels)
        samples = c.samples
        z, _ = ops.gaussian_latent(mean, log_variance, drawn_seed(), samples=samples)
        dreg = c.estimator == "dreg" and z.requires_grad  # without a gradient there is nothing to hook
        q = (mean.detach(), log_variance.detach()) if dreg else (mean, log_variance)
        if not 0 < c.resampled < samples:
            return -ops.importance_bound(log_weights(self, x, labels, z, *q), z if dreg else None)
        with torch.no_grad():
            weights = log_weights(self, x, labels, z, mean, log_variance)
            bound, shares = ops.importance_bound(weights), weights.softmax(1)
            # Any sample of an image whose loss is not finite anyway: multinomial takes no NaN.
            shares = torch.where(shares.isfinite().all(1, keepdim=True), shares, 1 / samples)
            chosen = torch.multinomial(shares, c.resampled, replacement=True)
        z = z.unflatten(0, (-1, samples)).gather(1, chosen[..., None].expand(-1, -1, c.latent)).flatten(0, 1)
        if dreg:
            z.register_hook(lambda grad: grad * shares.gather(1, chosen).view(-1, 1))
        taken = log_weights(self, x, labels, z, *q).mean(1)
        return taken.detach() - taken - bound

    def bound(self, x, labels=None, *, seed=0, first=0):
        """What evaluation reports: the importance-weighted bound of `samples` draws, the same at every call."""
        return ops.importance_bound(self.log_weights(x, labels, samples=self.config.samples, seed=seed, first=first))
