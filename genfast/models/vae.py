"""The variational autoencoder: images as decoded Gaussian latents."""

from dataclasses import dataclass
from typing import Literal

import torch

from genfast import ops
from genfast._config import option
from genfast.engine.arguments import check_int
from genfast.likelihoods import Likelihood, decoder_likelihoods, default_likelihood, likelihood
from genfast.models._importance import importance_log_prob, log_weights
from genfast.models._prior import prior_blocks
from genfast.models.base import ImageConfig, ImageModel, register_model
from genfast.nn import ConvDecoder, ConvEncoder, DenseCoder
from genfast.nn.gaussian_latent import drawn_seed
from genfast.random.streams import POSTERIOR


@dataclass
class VAEConfig(ImageConfig):
    """Sizes and objective of a `VAE`."""

    classes: int = option(0, "number of labels that the model is conditional on, 0 for none", ge=0, from_data=True)
    latent: int = option(32, "size Z of the latent vector", ge=1)
    network: Literal["conv", "mlp"] = option(
        "conv", "conv (at half and a quarter of the resolution) or mlp (dense layers)"
    )
    hidden: int = option(
        32, "features of conv at half the resolution, twice as many at a quarter; or units of a dense layer", ge=1
    )
    layers: int = option(
        1, "residual blocks of conv at each resolution, at least 0; or hidden dense layers, at least 1", ge=0
    )
    likelihood: str = option(
        "auto",
        "bernoulli (2 levels), gaussian, mixture (discretised logistics), or auto: bernoulli or mixture",
        choices=("auto", *decoder_likelihoods()),
    )
    mixtures: int = option(5, "logistics of a pixel's mixture", ge=1)
    objective: Literal["elbo", "beta-tc"] = option(
        "elbo", "elbo, or beta-tc, where beta weighs the total correlation of the latents alone"
    )
    beta: float = option(
        1.0, "weight of the KL divergence, or of the total correlation; 1 for a lower bound on log p(x)", ge=0
    )
    free_bits: float = option(
        0.0, "nats of each latent's KL divergence, on average over a batch, that cost nothing (elbo only)", ge=0
    )
    dropout: float = option(0.0, "of feature maps or units of the encoder", ge=0, lt=1)
    decoder_dropout: float = option(0.0, "the same of the decoder", ge=0, lt=1)
    examples: int = option(
        0,
        "training images N, which beta-tc needs to weigh a minibatch; set from the data by training",
        ge=0,
        from_data=True,
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        if self.network == "mlp" and self.layers < 1:
            raise ValueError(f"{name}: layers must be at least 1; got {self.layers}")
        if self.free_bits and self.objective != "elbo":
            raise ValueError(f"{name}: free_bits must be 0 for the objective {self.objective}; got {self.free_bits}")
        try:
            self.decoder_likelihood()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    @classmethod
    def fixed_by(cls, data):
        return super().fixed_by(data) | {"examples": len(data)}

    def decoder_likelihood(self) -> Likelihood:
        """That of the decoder's output."""
        if self.likelihood == "auto":
            return default_likelihood(self.channels, self.levels, self.mixtures)
        return likelihood(self.likelihood, self.channels, self.levels, self.mixtures)


@register_model
class VAE(ImageModel):
    """`p(x) = E_{z ~ N(0, I)} p(x | z)`, trained through `q(z | x)`, a diagonal Gaussian.

    ::

        elbo(x) = E_{z ~ q(z | x)} log p(x | z) - beta KL(q(z | x) || N(0, I)) <= log p(x)   for beta >= 1

    With the objective beta-tc the KL divergence is split into the mutual information of x and z, the total correlation
    of the latents, weighted by beta, and the divergence of each latent from the prior; q(z) is estimated from the
    minibatch, each image of it standing for N / B (minibatch-weighted sampling). With `classes` both networks are
    given the label: `p(x | label)`. All noise in training is drawn by seeds of torch's generator of the CPU.

    Paper: Auto-Encoding Variational Bayes, arXiv 1312.6114; beta: Isolating Sources of Disentanglement, section 4,
        arXiv 1802.04942; free bits: Improved Variational Inference with Inverse Autoregressive Flow, arXiv 1606.04934.
    Example: `VAE(VAEConfig(latent=8)).sample(4)`
    """

    name = "vae"
    config_type = VAEConfig

    def __init__(self, config):
        super().__init__(config)
        c = config
        size, outputs = (c.height, c.width), self.likelihood.parameters
        if c.network == "conv":
            sizes = {"features": c.hidden, "blocks": c.layers, "classes": c.classes}
            self.encoder = ConvEncoder(c.channels, *size, 2 * c.latent, dropout=c.dropout, **sizes)
            self.decoder = ConvDecoder(c.latent, outputs, *size, dropout=c.decoder_dropout, **sizes)
        else:
            sizes = {"hidden": c.hidden, "layers": c.layers, "classes": c.classes}
            values = c.height * c.width
            self.encoder = DenseCoder(c.channels * values, 2 * c.latent, dropout=c.dropout, **sizes)
            self.decoder = DenseCoder(c.latent, outputs * values, dropout=c.decoder_dropout, **sizes)

    @property
    def likelihood(self) -> Likelihood:
        """Of the values of a pixel, given the parameters that `decode` returns."""
        return self.config.decoder_likelihood()

    @property
    def latent_size(self) -> int:
        """Z."""
        return self.config.latent

    def encode(self, x, labels=None):
        """Mean and log-variance of q(z | x), each float [B, Z], float32 or wider.

        Args: x (uint8 [B, C, H, W], levels), labels (integers [B], of a conditional model).
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a label
            that is missing, or one given to an unconditional model.
        """
        self._check_images(x)
        x = self.likelihood.scaled(x, next(self.parameters()).dtype)
        x = x.flatten(1) if self.config.network == "mlp" else x
        q = self.encoder(x, self._check_labels(labels, len(x)))
        return q.to(torch.promote_types(q.dtype, torch.float32)).chunk(2, 1)

    def decode(self, z, labels=None):
        """Parameters of the likelihood, [B, P, H, W], of latents float [B, Z]; labels and errors as of `encode`."""
        c = self.config
        if not isinstance(z, torch.Tensor) or not z.is_floating_point():
            got = z.dtype if isinstance(z, torch.Tensor) else type(z).__name__
            raise TypeError(f"{type(self).__name__}: z must be a float tensor; got {got}")
        if z.dim() != 2 or z.shape[1] != c.latent:
            raise ValueError(f"{type(self).__name__}: z must have shape [B, {c.latent}]; got {tuple(z.shape)}")
        y = self.decoder(z.to(next(self.parameters()).dtype), self._check_labels(labels, len(z)))
        return y.view(len(z), self.likelihood.parameters, c.height, c.width) if c.network == "mlp" else y

    def nll(self, x, parameters, weight=None):
        """`-log p(x | parameters)`, [B] nats; `weight` [B, C, H, W] of missing values as of `genfast.bernoulli_nll`.

        Raises: ValueError for a weight that differs between the channels of a pixel, if the likelihood is a mixture.
        """
        return self.likelihood.nll(x, parameters, weight)

    def expected(self, parameters):
        """The likelihood's mean as levels, float [B, C, H, W] from 0 to levels - 1."""
        return self.likelihood.expected(parameters)

    def draw(self, parameters, seed, first=0):
        """Images drawn from the likelihood, uint8 [B, C, H, W]: image i depends on (seed, first + i) alone."""
        return self.likelihood.draw(parameters, seed, first)

    def forward(self, x, labels=None):
        """Parameters of the likelihood at the mean of q(z | x): [B, P, H, W]. Arguments and errors as `encode`."""
        return self.decode(self.encode(x, labels)[0], labels)

    def loss(self, x, labels=None):
        """What training minimises: [B] nats. Arguments and errors as `encode`."""
        c, (mean, log_variance) = self.config, self.encode(x, labels)
        split = bool(c.free_bits)
        z, kl = ops.gaussian_latent(mean, log_variance, drawn_seed(), per_latent=split)
        nll = self.nll(x, self.decode(z, labels))
        if c.objective == "beta-tc":
            return nll + self._divergences(z, mean, log_variance)
        if split:
            kl = kl.mean(0).clamp(min=c.free_bits).sum()
        return nll + c.beta * kl

    def _divergences(self, z, mean, log_variance):
        """Mutual information + beta * total correlation + the divergences of the single latents, [B] nats."""
        c = self.config
        if c.examples < 1:
            raise ValueError(f"{type(self).__name__}: examples must be N, at least 1, for beta-tc; got {c.examples}")
        zero, total = torch.zeros_like(z), torch.log(torch.tensor(float(c.examples) * max(1, len(z)))).item()
        inside, prior = -ops.gaussian_nll(z, mean, log_variance), -ops.gaussian_nll(z, zero, zero)
        joint, marginals = ops.aggregate_posterior(z, mean, log_variance)
        joint, marginals = joint - total, (marginals - total).sum(1)
        return (inside - joint) + c.beta * (joint - marginals) + (marginals - prior)

    def elbo(self, x, labels=None, *, seed, first=0, samples=1):
        """The evidence lower bound with `samples` draws and the exact KL divergence: [B] nats.

        The noise of image i depends on (seed, first + i) alone. Other arguments and errors as `encode`.
        """
        mean, log_variance = self.encode(x, labels)
        z, kl = ops.gaussian_latent(mean, log_variance, seed, first, samples, first_sample=POSTERIOR)
        x = x.repeat_interleave(samples, 0)
        labels = None if labels is None else labels.repeat_interleave(samples)
        return -self.nll(x, self.decode(z, labels)).view(-1, samples).mean(1) - kl

    def bound(self, x, labels=None, *, seed=0, first=0):
        """What evaluation reports: `elbo` with one draw, whose noise is the same at every call."""
        return self.elbo(x, labels, seed=seed, first=first)

    def log_weights(self, x, labels=None, *, samples, seed, first=0):
        """`log p(x, z) - log q(z | x)` of `samples` draws of every image: [B, S] nats. Arguments as `elbo`."""
        q = self.encode(x, labels)
        z, _ = ops.gaussian_latent(*q, seed, first, samples, first_sample=POSTERIOR)
        return log_weights(self, x, labels, z, *q)

    @torch.no_grad()
    def log_prob(self, x, labels=None, *, samples=5000, seed=0, first=0):
        """Importance-sampled estimate of log p(x): float64 [B] nats, a lower bound in expectation.

        `log 1/S sum_s p(x, z_s) / q(z_s | x)` over S = `samples` draws, in constant memory whatever B and S are. The
        same for the same seed, image and `first`, but for rounding. Without a gradient; dropout as the model's mode
        has it. Other arguments and errors as `encode`.
        """
        check_int("log_prob", "samples", samples, 1)
        return importance_log_prob(self, x, labels, samples=samples, seed=seed, first=first)

    @torch.no_grad()
    def reconstruct(self, x, labels=None):
        """The likelihood's mean at the mean of q(z | x), as the nearest levels: uint8 [B, C, H, W]."""
        return self.expected(self.forward(x, labels)).round().to(torch.uint8)

    @torch.no_grad()
    def sample_images(self, n, *, seed, first, temperature, labels):
        """What `genfast.sample` calls, with arguments that were checked: uint8 [n, C, H, W].

        The prior's standard deviation is multiplied by the temperature.
        """
        parts, device = [], next(self.parameters()).device
        blocks = prior_blocks(n, self.config.latent, seed=seed, first=first, labels=labels, device=device)
        for begin, z, chosen, part in blocks:
            parts.append(self.draw(self.decode(temperature * z, chosen), seed, begin)[part])
        c = self.config
        empty = torch.empty(0, c.channels, c.height, c.width, dtype=torch.uint8, device=device)
        return torch.cat(parts) if n else empty
