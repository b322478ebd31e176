"""The importance-weighted autoencoder: a VAE trained on a tighter bound."""

from dataclasses import dataclass
from typing import Literal

from genfast import ops
from genfast.models._importance import log_weights
from genfast.models.vae import VAE, VAEConfig
from genfast.nn.gaussian_latent import drawn_seed


@dataclass
class IWAEConfig(VAEConfig):
    """Sizes and objective of an `IWAE`.

    Attributes:
        channels: 1 for grey, 3 for R, G, B.
        height, width: of the images, in pixels.
        levels: values of a channel, 2 to 256.
        classes: number of labels that the model is conditional on, 0 for none.
        latent: size Z of the latent vector.
        network: conv (at half and a quarter of the resolution) or mlp (dense layers).
        hidden: features of conv at half the resolution, twice as many at a quarter; or units of a dense layer.
        layers: residual blocks of conv at each resolution, at least 0; or hidden dense layers, at least 1.
        likelihood: bernoulli (2 levels), gaussian, mixture (discretised logistics), or auto: bernoulli or mixture.
        mixtures: logistics of a pixel's mixture.
        dropout: of feature maps or units of the encoder.
        decoder_dropout: the same of the decoder.
        samples: S, importance samples of every image.
        estimator: iwae (of the gradient), or dreg: doubly reparameterised, of less variance for the encoder.
    """

    samples: int = 50
    estimator: Literal["iwae", "dreg"] = "iwae"

    def least(self):
        return super().least() | {"samples": 1}

    def __post_init__(self):
        super().__post_init__()
        if self.estimator not in ("iwae", "dreg"):
            raise ValueError(f"IWAEConfig: estimator must be one of iwae, dreg; got {self.estimator!r}")
        if self.objective != "elbo" or self.beta != 1 or self.free_bits:
            got = f"{self.objective}, {self.beta} and {self.free_bits}"
            raise ValueError(f"IWAEConfig: objective, beta and free_bits must be elbo, 1 and 0; got {got}")


class IWAE(VAE):
    """A `VAE` trained on `E log 1/S sum_s p(x, z_s) / q(z_s | x)`, which lies between the ELBO and log p(x).

    `bound` is that of S = `samples`; everything else is as of a `VAE`.

    Paper: Importance Weighted Autoencoders, equation 8, arXiv 1509.00519; the estimator dreg: Doubly Reparameterized
        Gradient Estimators, equation 8, arXiv 1810.04152.
    Example: `IWAE(IWAEConfig(latent=8, samples=5)).sample(4)`
    """

    name = "iwae"
    config_type = IWAEConfig

    def loss(self, x, labels=None):
        """What training minimises: [B] nats. Arguments and errors as `encode`."""
        path = [] if self.config.estimator == "dreg" else None
        mean, log_variance = self.encode(x, labels)
        weights = log_weights(
            self, x, labels, mean, log_variance, seed=drawn_seed(), samples=self.config.samples, path=path
        )
        # Without a gradient there is nothing to hook.
        return -ops.importance_bound(weights, path[0] if path and path[0].requires_grad else None)

    def bound(self, x, labels=None, *, seed=0, first=0):
        """What evaluation reports: the importance-weighted bound of `samples` draws, the same at every call."""
        return ops.importance_bound(self.log_weights(x, labels, samples=self.config.samples, seed=seed, first=first))
