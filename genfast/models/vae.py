"""The variational autoencoder: images as decoded Gaussian latents."""

from dataclasses import dataclass
from typing import Literal

import torch

from genfast import ops
from genfast.engine.arguments import check_whole
from genfast.likelihoods.pixels import Likelihood
from genfast.models._importance import POSTERIOR_DRAW, importance_log_prob, log_weights
from genfast.models._prior import prior_blocks
from genfast.models.base import ImageConfig, ImageModel
from genfast.nn import ConvDecoder, ConvEncoder, DenseCoder
from genfast.nn.gaussian_latent import drawn_seed


@dataclass
class VAEConfig(ImageConfig):
    """Sizes and objective of a `VAE`.

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
        objective: elbo, or beta-tc, where beta weighs the total correlation of the latents alone.
        beta: weight of the KL divergence, or of the total correlation; 1 for a lower bound on log p(x).
        free_bits: nats of each latent's KL divergence, on average over a batch, that cost nothing (elbo only).
        dropout: of feature maps or units of the encoder.
        decoder_dropout: the same of the decoder.
        examples: training images N, which beta-tc needs to weigh a minibatch; set from the data by training.
    """

    classes: int = 0
    latent: int = 32
    network: Literal["conv", "mlp"] = "conv"
    hidden: int = 32
    layers: int = 1
    likelihood: Literal["auto", "bernoulli", "gaussian", "mixture"] = "auto"
    mixtures: int = 5
    objective: Literal["elbo", "beta-tc"] = "elbo"
    beta: float = 1.0
    free_bits: float = 0.0
    dropout: float = 0.0
    decoder_dropout: float = 0.0
    examples: int = 0

    def least(self):
        sizes = {"classes": 0, "latent": 1, "hidden": 1, "layers": 0, "mixtures": 1, "examples": 0}
        return super().least() | sizes | ({"layers": 1} if self.network == "mlp" else {})

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        choices = {
            "network": ("conv", "mlp"),
            "likelihood": ("auto", "bernoulli", "gaussian", "mixture"),
            "objective": ("elbo", "beta-tc"),
        }
        for field, allowed in choices.items():
            if (value := getattr(self, field)) not in allowed:
                raise ValueError(f"{name}: {field} must be one of {', '.join(allowed)}; got {value!r}")
        for field in ("beta", "free_bits"):
            value = getattr(self, field)
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"{name}: {field} must be a finite number of at least 0; got {value!r}")
        if not isinstance(self.decoder_dropout, (int, float)) or not 0 <= self.decoder_dropout < 1:
            raise ValueError(f"{name}: decoder_dropout must be a number in [0, 1); got {self.decoder_dropout!r}")
        if self.free_bits and self.objective != "elbo":
            raise ValueError(f"{name}: free_bits must be 0 for the objective {self.objective}; got {self.free_bits}")
        try:
            self.pixels()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def pixels(self):
        """The `Likelihood` of the decoder's output."""
        kind = self.likelihood
        if kind == "auto":
            kind = "bernoulli" if self.levels == 2 else "mixture"
        return Likelihood(kind, self.channels, self.levels, self.mixtures)


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
        c, self.pixels = config, config.pixels()
        size, outputs = (c.height, c.width), self.pixels.features
        if c.network == "conv":
            sizes = {"features": c.hidden, "blocks": c.layers, "classes": c.classes}
            self.encoder = ConvEncoder(c.channels, *size, 2 * c.latent, dropout=c.dropout, **sizes)
            self.decoder = ConvDecoder(c.latent, outputs, *size, dropout=c.decoder_dropout, **sizes)
        else:
            sizes = {"hidden": c.hidden, "layers": c.layers, "classes": c.classes}
            values = c.height * c.width
            self.encoder = DenseCoder(c.channels * values, 2 * c.latent, dropout=c.dropout, **sizes)
            self.decoder = DenseCoder(c.latent, outputs * values, dropout=c.decoder_dropout, **sizes)

    def encode(self, x, labels=None):
        """Mean and log-variance of q(z | x), each float [B, Z], float32 or wider.

        Args: x (uint8 [B, C, H, W], levels), labels (integers [B], of a conditional model).
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a label
            that is missing, or one given to an unconditional model.
        """
        self._check_images(x)
        x = self.pixels.scaled(x, next(self.parameters()).dtype)
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
        return y.view(len(z), self.pixels.features, c.height, c.width) if c.network == "mlp" else y

    def nll(self, x, parameters, weight=None):
        """`-log p(x | parameters)`, [B] nats; `weight` [B, C, H, W] of missing values as of `genfast.bernoulli_nll`.

        Raises: ValueError for a weight that differs between the channels of a pixel, if the likelihood is a mixture.
        """
        return self.pixels.nll(x, parameters, weight)

    def expected(self, parameters):
        """The likelihood's mean as levels, float [B, C, H, W] from 0 to levels - 1."""
        return self.pixels.expected(parameters)

    def draw(self, parameters, seed, first=0):
        """Images drawn from the likelihood, uint8 [B, C, H, W]: image i depends on (seed, first + i) alone."""
        return self.pixels.draw(parameters, seed, first)

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
        z, kl = ops.gaussian_latent(mean, log_variance, seed, first, samples, first_sample=POSTERIOR_DRAW)
        x = x.repeat_interleave(samples, 0)
        labels = None if labels is None else labels.repeat_interleave(samples)
        return -self.nll(x, self.decode(z, labels)).view(-1, samples).mean(1) - kl

    def bound(self, x, labels=None, *, seed=0, first=0):
        """What evaluation reports: `elbo` with one draw, whose noise is the same at every call."""
        return self.elbo(x, labels, seed=seed, first=first)

    def log_weights(self, x, labels=None, *, samples, seed, first=0):
        """`log p(x, z) - log q(z | x)` of `samples` draws of every image: [B, S] nats. Arguments as `elbo`."""
        q = self.encode(x, labels)
        z, _ = ops.gaussian_latent(*q, seed, first, samples, first_sample=POSTERIOR_DRAW)
        return log_weights(self, x, labels, z, *q)

    @torch.no_grad()
    def log_prob(self, x, labels=None, *, samples=5000, seed=0, first=0):
        """Importance-sampled estimate of log p(x): float64 [B] nats, a lower bound in expectation.

        `log 1/S sum_s p(x, z_s) / q(z_s | x)` over S = `samples` draws, in constant memory whatever B and S are. The
        same for the same seed, image and `first`, but for rounding. Without a gradient; dropout as the model's mode
        has it. Other arguments and errors as `encode`.
        """
        check_whole("log_prob", "samples", samples, 1)
        return importance_log_prob(self, x, labels, samples=samples, seed=seed, first=first)

    @torch.no_grad()
    def reconstruct(self, x, labels=None):
        """The likelihood's mean at the mean of q(z | x), as the nearest levels: uint8 [B, C, H, W]."""
        return self.expected(self.forward(x, labels)).round().to(torch.uint8)

    def sample(self, n, *, seed=0, first=0, labels=None, temperature=1.0, batch_size=None):
        """Images drawn from the model, uint8 [n, C, H, W]: `genfast.sample(self, n, ...)`, with its arguments."""
        from genfast.tasks.sample import sample  # which knows the models

        return sample(
            self, n, seed=seed, first=first, labels=labels, temperature=temperature, batch_size=batch_size
        )  # fmt: skip

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
