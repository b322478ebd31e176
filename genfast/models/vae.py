"""The variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genfast import ops
from genfast._config import option
from genfast.engine.arguments import check_int
from genfast.likelihoods import Likelihood, decoder_likelihoods, default_likelihood, likelihood
from genfast.models._importance import importance_log_prob, log_weights
from genfast.models._prior import sample_prior
from genfast.models.base import ImageConfig, ImageModel, register_model
from genfast.nn import ConvDecoder, ConvEncoder, DenseCoder
from genfast.nn.gaussian_latent import drawn_seed
from genfast.random.streams import POSTERIOR


@dataclass
class VAEConfig(ImageConfig):
    """Settings of a `VAE`."""

    classes: int = option(
        0, "number of labels that the model is conditional on; 0: unconditional", ge=0, le=2**20, from_data=True
    )
    latent: int = option(32, "size Z of the latent vector", ge=1, le=2**16)
    network: Literal["conv", "mlp"] = option(
        "conv", "architecture: conv (convolutions at half and a quarter of the resolution), or mlp (dense layers)"
    )
    hidden: int = option(
        32,
        "features (channels) of conv at half the resolution, twice as many at a quarter; or units of each layer of mlp",
        ge=1,
        le=2**16,
    )
    layers: int = option(
        1, "residual blocks of conv at each resolution; or hidden layers of mlp, at least 1", ge=0, le=1000
    )
    likelihood: str = option(
        "auto",
        "likelihood of a pixel: bernoulli (2 levels), gaussian, mixture (of logistics), or auto: bernoulli or mixture",
        choices=("auto", *decoder_likelihoods()),
    )
    mixtures: int = option(5, "components of the mixture of logistics", ge=1, le=1024)
    objective: Literal["elbo", "beta-tc"] = option(
        "elbo", "training objective: elbo, or beta-tc, in which beta weights only the total correlation of the latents"
    )
    beta: float = option(
        1.0, "weight of the KL divergence (elbo) or the total correlation (beta-tc); 1: the evidence lower bound", ge=0
    )
    free_bits: float = option(
        0.0,
        "free bits: nats of KL divergence per latent, averaged over a batch, that are not penalised (elbo only)",
        ge=0,
    )
    dropout: float = option(0.0, "dropout of the feature maps (conv) or units (mlp) of the encoder", ge=0, lt=1)
    decoder_dropout: float = option(0.0, "dropout of the feature maps (conv) or units (mlp) of the decoder", ge=0, lt=1)
    examples: int = option(
        0,
        "number N of training images, which beta-tc needs to weight a minibatch; training sets it",
        ge=0,
        from_data=True,
        le=2**40,
    )

    def __post_init__(self) -> None:
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
    def fixed_by(cls, data: Any) -> dict[str, Any]:
        return super().fixed_by(data) | {"examples": len(data)}

    def decoder_likelihood(self) -> Likelihood:
        """The likelihood of a pixel, whose parameters the decoder returns."""
        if self.likelihood == "auto":
            return default_likelihood(self.channels, self.levels, self.mixtures)
        return likelihood(self.likelihood, self.channels, self.levels, self.mixtures)


@register_model
class VAE(ImageModel):
    """A variational autoencoder: `p(x) = E_{z ~ N(0, I)} p(x | z)` with an encoder `q(z | x)`, a diagonal Gaussian.

    ::

        elbo(x) = E_{z ~ q(z | x)} log p(x | z) - beta KL(q(z | x) || N(0, I)) <= log p(x)   for beta >= 1

    With the objective beta-tc the KL divergence is the sum of the mutual information of x and z, the total correlation
    of the latents, weighted by beta, and the divergence of each latent from the prior. q(z) is estimated from the
    minibatch, in which each image represents N / B images (minibatch-weighted sampling). With `classes` both networks
    are conditional on the label: `p(x | label)`. The seeds of all noise in training come from torch's CPU generator.

    Paper: Auto-Encoding Variational Bayes, arXiv 1312.6114; beta: Isolating Sources of Disentanglement, section 4,
        arXiv 1802.04942; free bits: Improved Variational Inference with Inverse Autoregressive Flow, arXiv 1606.04934.
    Example: `VAE(VAEConfig(latent=8)).sample(4)`
    """

    name = "vae"
    config_type = VAEConfig
    config: VAEConfig
    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, config: VAEConfig) -> None:
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
        """The likelihood of a pixel, whose parameters `decode` returns."""
        return self.config.decoder_likelihood()

    @property
    def latent_size(self) -> int:
        """Z, the number of latents."""
        return self.config.latent

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each float [B, Z], float32 or wider.

        Args:
            x: levels, uint8 [B, C, H, W].
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a missing
            label, or labels for an unconditional model.
        """
        self._check_images(x)
        q = self.encoder_network(self.scaled(x), self._check_labels(labels, x.shape[0]))
        mean, log_variance = q.to(torch.promote_types(q.dtype, torch.float32)).chunk(2, 1)
        return mean, log_variance

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of the likelihood: z float [B, Z] -> [B, P, H, W]. Labels and errors as for `encode`."""
        c = self.config
        if not isinstance(z, Tensor) or not z.is_floating_point():
            got = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(f"{type(self).__name__}: z must be a float tensor; got {got}")
        if z.dim() != 2 or z.shape[1] != c.latent:
            raise ValueError(f"{type(self).__name__}: z must have shape [B, {c.latent}]; got {tuple(z.shape)}")
        return self.decoder_network(z.to(self._weight.dtype), self._check_labels(labels, z.shape[0]))

    def encoder_network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """`encode` without checks: images in [-1, 1], float [B, C, H, W] -> means, then log-variances, [B, 2Z]."""
        return self.encoder(x.flatten(1) if self.config.network == "mlp" else x, labels)

    def decoder_network(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """`decode` without checks."""
        y, c = self.decoder(z, labels), self.config
        return y.view(z.shape[0], self.likelihood.parameters, c.height, c.width) if c.network == "mlp" else y

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        """`-log p(x | parameters)`, [B] in nats; see `Likelihood.nll`.

        Args:
            x: levels, uint8 [B, C, H, W].
            parameters: float [B, P, H, W].
            weight: [B, C, H, W], 0 for missing values, as in `genfast.bernoulli_nll`.
        Raises: ValueError for a weight that differs between the channels of a pixel, if the likelihood is a mixture.
        """
        return self.likelihood.nll(x, parameters, weight)

    def expected(self, parameters: Tensor) -> Tensor:
        """Mean of the likelihood in levels: parameters [B, P, H, W] -> float [B, C, H, W], 0 to levels - 1."""
        return self.likelihood.expected(parameters)

    def draw(self, parameters: Tensor, seed: int, first: int = 0) -> Tensor:
        """Draw images, uint8 [B, C, H, W], from the likelihood; the noise of image i is that of (seed, first + i)."""
        return self.likelihood.draw(parameters, seed, first)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of the likelihood, [B, P, H, W], decoded from the mean of q(z | x). Arguments as `encode`."""
        return self.decode(self.encode(x, labels)[0], labels)

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The training loss, [B] in nats. Arguments and errors as `encode`."""
        c, (mean, log_variance) = self.config, self.encode(x, labels)
        per_latent = bool(c.free_bits)
        z, kl = ops.gaussian_latent(mean, log_variance, drawn_seed(), per_latent=per_latent)
        nll = self.nll(x, self.decode(z, labels))
        if c.objective == "beta-tc":
            return nll + self._divergences(z, mean, log_variance)
        if per_latent:
            kl = kl.mean(0).clamp(min=c.free_bits).sum()
        return nll + c.beta * kl

    def _divergences(self, z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Mutual information + beta * total correlation + sum of the divergences of the latents, [B] in nats."""
        c = self.config
        if c.examples < 1:
            raise ValueError(f"{type(self).__name__}: examples must be N, at least 1, for beta-tc; got {c.examples}")
        weight = torch.tensor(float(c.examples) * max(1, len(z)), dtype=torch.float32, device="cpu")
        zero, total = torch.zeros_like(z), torch.log(weight).item()
        posterior, prior = -ops.gaussian_nll(z, mean, log_variance), -ops.gaussian_nll(z, zero, zero)
        joint, marginals = ops.aggregate_posterior(z, mean, log_variance)
        joint, marginals = joint - total, (marginals - total).sum(1)
        return (posterior - joint) + c.beta * (joint - marginals) + (marginals - prior)

    def elbo(self, x: Tensor, labels: Tensor | None = None, *, seed: int, first: int = 0, samples: int = 1) -> Tensor:
        """The evidence lower bound with `samples` draws of z and the exact KL divergence, [B] in nats.

        The noise of image i depends on (seed, first + i) alone. Other arguments and errors as `encode`.
        """
        mean, log_variance = self.encode(x, labels)
        z, kl = ops.gaussian_latent(mean, log_variance, seed, first, samples, first_sample=POSTERIOR)
        x = x.repeat_interleave(samples, 0)
        labels = None if labels is None else labels.repeat_interleave(samples)
        return -self.nll(x, self.decode(z, labels)).view(-1, samples).mean(1) - kl

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """The `elbo` with one draw, [B] in nats, which evaluation reports."""
        return self.elbo(x, labels, seed=seed, first=first)

    def log_weights(
        self, x: Tensor, labels: Tensor | None = None, *, samples: int, seed: int, first: int = 0
    ) -> Tensor:
        """`log p(x, z) - log q(z | x)` of S = `samples` draws of z, [B, S] in nats. Arguments as `elbo`."""
        q = self.encode(x, labels)
        z, _ = ops.gaussian_latent(*q, seed, first, samples, first_sample=POSTERIOR)
        return log_weights(self, x, labels, z, *q)

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, *, samples: int = 5000, seed: int = 0, first: int = 0
    ) -> Tensor:
        """Importance-sampled estimate of log p(x), float64 [B] in nats: a lower bound in expectation.

        `log 1/S sum_s p(x, z_s) / q(z_s | x)` with S = `samples` draws. The memory does not depend on B and S. The
        noise of image i depends on (seed, first + i) alone; the rounding may depend on the batch. There is no gradient.
        Dropout follows the mode of the model. Other arguments and errors as `encode`.
        """
        check_int("log_prob", "samples", samples, 1)
        return importance_log_prob(self, x, labels, samples=samples, seed=seed, first=first)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean of the likelihood at the mean of q(z | x), rounded to levels, uint8 [B, C, H, W]; as `encode`."""
        return self.expected(self.forward(x, labels)).round().to(torch.uint8)

    @torch.no_grad()
    def sample_images(self, n: int, *, seed: int, first: int, temperature: float, labels: Tensor | None) -> Tensor:
        """Draw images for `genfast.sample`, which has checked the arguments: uint8 [n, C, H, W].

        The temperature multiplies the standard deviation of the prior.
        """

        def images(z: Tensor, labels: Tensor | None, first: int) -> Tensor:
            return self.draw(self.decode(z, labels), seed, first)

        return sample_prior(
            images,
            self.spec,
            self.config.latent,
            n,
            seed=seed,
            first=first,
            temperature=temperature,
            labels=labels,
            device=self._weight.device,
        )
