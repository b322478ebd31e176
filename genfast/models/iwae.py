"""The importance-weighted autoencoder: a VAE trained on a tighter bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genfast import ops
from genfast._config import option
from genfast.models._importance import log_weights
from genfast.models.base import register_model
from genfast.models.vae import VAE, VAEConfig
from genfast.nn.gaussian_latent import drawn_seed


@dataclass
class IWAEConfig(VAEConfig):
    """Settings of an `IWAE`."""

    samples: int = option(50, "importance samples S per image", ge=1, le=2**20)
    estimator: Literal["iwae", "dreg"] = option(
        "iwae", "gradient estimator: iwae, or dreg (doubly reparameterised), which has less variance in the encoder"
    )
    resampled: int = option(
        0,
        "samples per image that are used for the gradient, drawn by their importance weights; 0: all of them",
        ge=0,
        le=2**20,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "elbo" or self.beta != 1 or self.free_bits:
            got = f"{self.objective}, {self.beta} and {self.free_bits}"
            raise ValueError(f"IWAEConfig: objective, beta and free_bits must be elbo, 1 and 0; got {got}")


@register_model
class IWAE(VAE):
    """A `VAE` trained on the bound `E log 1/S sum_s p(x, z_s) / q(z_s | x)`, between the ELBO and log p(x).

    `bound` is this bound with S = `samples`; all else is as in a `VAE`. With `resampled` = R, all S samples are decoded
    without a gradient; then R of them, drawn by their normalised weights, are decoded with one. The expectation is the
    gradient of all samples, at a third of the time and R / S of the memory. A trained `VAE` of the same sizes is a good
    initialisation: `genfast train iwae --init-from RUN`.

    Paper: Importance Weighted Autoencoders, equation 8, arXiv 1509.00519; the estimator dreg: Doubly Reparameterized
        Gradient Estimators, equation 8, arXiv 1810.04152.
    Example: `IWAE(IWAEConfig(latent=8, samples=5)).sample(4)`
    """

    name = "iwae"
    config_type = IWAEConfig
    config: IWAEConfig

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The training loss, [B] in nats. Arguments and errors as `encode`."""
        c, (mean, log_variance) = self.config, self.encode(x, labels)
        samples = c.samples
        z, _ = ops.gaussian_latent(mean, log_variance, drawn_seed(), samples=samples)
        dreg = c.estimator == "dreg" and z.requires_grad  # dreg hooks the gradient of z
        q = (mean.detach(), log_variance.detach()) if dreg else (mean, log_variance)
        if not 0 < c.resampled < samples:
            return -ops.importance_bound(log_weights(self, x, labels, z, *q), z if dreg else None)
        with torch.no_grad():
            weights = log_weights(self, x, labels, z, mean, log_variance)
            bound, shares = ops.importance_bound(weights), weights.softmax(1)
            # multinomial refuses NaN. If a weight is not finite, the loss is not either: any sample will do.
            shares = torch.where(shares.isfinite().all(1, keepdim=True), shares, 1 / samples)
            indices = torch.multinomial(shares, c.resampled, replacement=True)
        z = z.unflatten(0, (-1, samples)).gather(1, indices[..., None].expand(-1, -1, c.latent)).flatten(0, 1)
        if dreg:
            z.register_hook(lambda grad: grad * shares.gather(1, indices).view(-1, 1))
        # Minus the bound, with the gradient of minus the mean log-weight of the resampled latents.
        mean_weight = log_weights(self, x, labels, z, *q).mean(1)
        return mean_weight.detach() - mean_weight - bound

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """The importance-weighted bound with `samples` draws, [B] in nats, which evaluation reports.

        The noise of image i depends on (seed, first + i) alone. Arguments and errors as `encode`.
        """
        return ops.importance_bound(self.log_weights(x, labels, samples=self.config.samples, seed=seed, first=first))
