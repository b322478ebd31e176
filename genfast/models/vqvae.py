"""VQ-VAE: an image as a small grid of codes, and a prior over such grids."""

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from genfast._config import option
from genfast.engine.decoder import BLOCK
from genfast.likelihoods import Likelihood, decoder_likelihoods, likelihood
from genfast.models.autoregressive import Autoregressive
from genfast.models.base import ImageConfig, ImageModel, register_model
from genfast.models.gated_pixelcnn import GatedPixelCNN
from genfast.models.pixelcnn import PixelCNN
from genfast.models.pixelrnn import PixelRNN
from genfast.nn import ResidualVectorQuantizer, VectorQuantizer
from genfast.tasks.sample import sample

# Those whose conditionals are a softmax: codes have no order.
PRIORS = {model.name: model for model in (PixelCNN, GatedPixelCNN, PixelRNN)}


@dataclass
class VQVAEConfig(ImageConfig):
    """Sizes of a `VQVAE`."""

    codes: int = option(256, "size K of a codebook, 2 to 65536; a prior takes at most 256", ge=2, le=65536)
    features: int = option(32, "size D of a code's vector", ge=1)
    hidden: int = option(64, "features of the convolutions", ge=1)
    layers: int = option(2, "residual blocks of the encoder, and of the decoder", ge=0)
    downsampling: int = option(2, "how often the encoder halves height and width", ge=0)
    codebooks: int = option(
        1, "codes of a place, each of a codebook of its own that quantises what is left by those before", ge=1
    )
    likelihood: str = option(
        "mixture",
        "bernoulli (2 levels), gaussian (one variance for each channel) or mixture (of logistics)",
        choices=decoder_likelihoods(),
    )
    mixtures: int = option(5, "logistics of a pixel's mixture", ge=1)
    codebook_update: Literal["ema", "gradient"] = option("ema", "ema (moving means of a code's vectors) or gradient")
    decay: float = option(0.99, "of those moving means, and of the counts that find dead codes")
    commitment: float = option(0.25, "weight of the term that keeps features near their code")
    restart: float = option(0.1, "share of the mean use below which a code begins anew")
    prior: dict[str, Any] | None = option(
        None, "of the codes: {model: name, and the fields of its config}, or None", from_data=True
    )

    def __post_init__(self):
        super().__post_init__()
        step = 2**self.downsampling
        if self.height % step or self.width % step:
            expected = f"multiples of {step} for downsampling {self.downsampling}"
            raise ValueError(f"VQVAEConfig: height and width must be {expected}; got {self.height} and {self.width}")
        try:
            likelihood(self.likelihood, self.channels, self.levels, self.mixtures)
        except ValueError as error:
            raise ValueError(f"VQVAEConfig: {error}") from None
        if self.prior is not None:
            self._check_prior()

    def _check_prior(self):
        name = self.prior.get("model") if isinstance(self.prior, dict) else self.prior
        if name not in PRIORS:
            raise ValueError(f"VQVAEConfig: prior must be a {', a '.join(PRIORS)}; got {name!r}")
        expected = {"channels": 1, "height": self.grid[0], "width": self.grid[1], "levels": self.codes}
        got = {field: self.prior.get(field) for field in expected}
        if got != expected:
            raise ValueError(f"VQVAEConfig: prior must have {expected}, the grid of codes; got {got}")

    @property
    def classes(self):
        """Number of labels that the prior is conditional on, 0 for none."""
        return (self.prior or {}).get("classes", 0)

    @property
    def grid(self):
        """Height and width of an image's codes: the codes of a place stand side by side."""
        return self.height >> self.downsampling, (self.width >> self.downsampling) * self.codebooks


@register_model
class VQVAE(ImageModel):
    """An encoder to a grid of vectors, each replaced by the nearest of a codebook, and a decoder.

    The loss is `nll(x | codes) + C H W (quantisation and commitment)`, see `VectorQuantizer`; without a prior all codes
    are as likely as another. An autoregressive model over grids of codes, trained on those of a trained model
    (`genfast train gated-pixelcnn --data codes:RUN`), is its prior: `set_prior` takes it in, and both are one file.

    Encoder: `downsampling` convolutions 4x4 of stride 2, one 3x3, `layers` residual blocks, 1x1 to the features;
    decoder: the same back to front, transposed.

    Paper: Neural Discrete Representation Learning, arXiv 1711.00937.
    Example: `VQVAE(VQVAEConfig()).reconstruct(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "vq-vae"
    config_type = VQVAEConfig

    def __init__(self, config):
        super().__init__(config)
        c = config
        options = {
            "ema": c.codebook_update == "ema",
            "decay": c.decay,
            "commitment": c.commitment,
            "restart": c.restart,
        }
        if c.codebooks == 1:
            self.quantizer = VectorQuantizer(c.codes, c.features, **options)
        else:
            self.quantizer = ResidualVectorQuantizer(c.codebooks, c.codes, c.features, **options)
        self.encoder = _encoder(c)
        self.decoder = _decoder(c, c.channels if self._one_variance else self.likelihood.parameters)
        if self._one_variance:
            self.log_variance = nn.Parameter(torch.full((c.channels,), -3.0))
        self.prior = _build_prior(c.prior) if c.prior else None

    @property
    def likelihood(self) -> Likelihood:
        """Of the values of a pixel, given the parameters that `decode` returns."""
        c = self.config
        return likelihood(c.likelihood, c.channels, c.levels, c.mixtures)

    @property
    def code_count(self) -> int:
        """K."""
        return self.config.codes

    @property
    def codes_per_place(self) -> int:
        """Codebooks, each of which gives a code of a place."""
        return self.config.codebooks

    @property
    def stride(self) -> int:
        """Pixels along one side of a place."""
        return 2**self.config.downsampling

    @property
    def _one_variance(self):
        """Whether all pixels share the variance of their channel, so that training minimises the squared error."""
        return self.likelihood.is_density

    def encode(self, x, *, any_size=False):
        """Codes of images: uint8 [B, C, H, W], levels -> int64 [B, h, w], 0 to K - 1.

        `any_size`: H and W may be any multiples of 2**downsampling, as everything is made of convolutions.

        Raises: TypeError for another dtype; ValueError for another shape or device, or a value out of range.
        """
        size, step = None, self.stride
        if any_size and isinstance(x, torch.Tensor) and x.dim() == 4:
            size = tuple(max(1, length // step) * step for length in x.shape[2:])
        self._check_images(x, size)
        codes = self.quantizer.encode(self._features(x))
        return codes if codes.dim() == 3 else codes.permute(0, 2, 3, 1).flatten(2)

    def decode(self, codes, *, any_size=False):
        """Parameters of the likelihood, [B, P, H, W], of codes int64 [B, h, w]; `any_size`: of any h and w.

        Raises: TypeError for another dtype; ValueError for another shape or a code out of range.
        """
        count, (height, width) = self.config.codebooks, self.config.grid
        if not isinstance(codes, torch.Tensor) or codes.dtype != torch.int64:
            got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
            raise TypeError(f"VQVAE: codes must be torch.int64; got {got}")
        fits = codes.dim() == 3 and (codes.shape[1:] == (height, width) or any_size and codes.shape[2] % count == 0)
        if not fits:
            expected = f"[B, h, w] with h={height}, w={width}"
            raise ValueError(f"VQVAE: codes must have shape {expected}; got {tuple(codes.shape)}")
        if count > 1:
            codes = codes.unflatten(2, (-1, count)).permute(0, 3, 1, 2)
        return self._decoded(self.quantizer.lookup(codes))

    def nll(self, x, parameters, weight=None):
        """Negative log-likelihood in nats per image of images given parameters: [B]; see `Likelihood.nll`."""
        return self.likelihood.nll(x, parameters, weight)

    def expected(self, parameters):
        """Mean of the likelihood as levels, float [B, C, H, W], 0 to L - 1."""
        return self.likelihood.expected(parameters)

    def draw(self, parameters, seed, first=0, temperature=1.0):
        """Images drawn from the likelihood, uint8 [B, C, H, W]: image i depends on (seed, first + i) alone."""
        return self.likelihood.draw(parameters, seed, first, temperature)

    def forward(self, x):
        """Parameters of the likelihood of images, by way of their codes: uint8 [B, C, H, W] -> [B, P, H, W]."""
        self._check_images(x)
        return self._decoded(self.quantizer(self._features(x))[0])

    def loss(self, x, labels=None):
        """What training minimises, nats per image: uint8 [B, C, H, W] -> [B]. In training mode codebooks change.

        Labels are the prior's, and change nothing here.
        """
        self._check_images(x)
        quantized, _, loss = self.quantizer(self._features(x))
        return self.nll(x, self._decoded(quantized)) + math.prod(x.shape[1:]) * loss

    def bound(self, x, labels=None, *, seed=0, first=0):
        """Lower bound on the log-probability in nats: uint8 [B, C, H, W] -> [B]; `labels` [B] of a conditional prior.

        `log p(x | codes) + log p(codes)` of the image's own codes, all others left out; without a prior, codes are
        uniform. Nothing is random: seed and first change nothing.
        """
        codes = self.encode(x)
        return self.code_log_prob(codes, labels) - self.nll(x, self.decode(codes))

    @torch.no_grad()
    def log_prob(self, x, labels=None, *, seed=0, first=0):
        """The `bound`, without a gradient: the sum over all codes is out of reach."""
        return self.bound(x, labels, seed=seed, first=first)

    def code_log_prob(self, codes, labels=None):
        """Log-probability of codes int64 [B, h, w] in nats, [B], under the prior, or the uniform distribution."""
        if self.prior is not None:
            return self.prior.log_prob(codes[:, None].to(torch.uint8), labels)
        return torch.full((len(codes),), -codes[:1].numel() * math.log(self.config.codes), device=codes.device)

    @torch.no_grad()
    def reconstruct(self, x, labels=None):
        """Images after encoding and decoding: uint8 [B, C, H, W] -> uint8, the nearest levels to the mean.

        Labels are the prior's, and change nothing here.
        """
        return self.decode_images(self.encode(x))

    @torch.no_grad()
    def sample_images(self, n, *, seed, first, temperature, labels):
        """What `genfast.sample` calls: uint8 [n, C, H, W]. The codes are `genfast.sample(self.prior, ...)`.

        Raises: ValueError for a model without a prior.
        """
        if self.prior is None:
            expected = "a prior, such as genfast train gated-pixelcnn --data codes:RUN makes"
            raise ValueError(f"VQVAE: sampling needs {expected}; got a model without")
        options = {"seed": seed, "first": first, "temperature": temperature, "labels": labels}
        return self.decode_images(sample(self.prior, n, **options)[:, 0].long(), first)

    @torch.no_grad()
    def decode_images(self, codes, first=0):
        """Images of codes int64 [B, h, w], the nearest levels to the mean: uint8 [B, C, H, W].

        In blocks of `BLOCK`, each image at the place of its number first + i.
        """
        ahead = first % BLOCK
        padded = F.pad(codes, (0, 0, 0, 0, ahead, -(ahead + len(codes)) % BLOCK))
        images = [self.expected(self.decode(block)).round().to(torch.uint8) for block in padded.split(BLOCK)]
        return torch.cat(images)[ahead : ahead + len(codes)]

    def decoder_digest(self) -> bytes:
        """Eight bytes that differ where models decode differently: of the sizes, the codebook and the decoder."""
        c, digest = self.config, hashlib.sha256()
        sizes = (c.channels, c.levels, c.codes, c.features, c.downsampling, c.codebooks, c.likelihood, c.mixtures)
        digest.update(repr(sizes).encode())
        for name, tensor in sorted(self.state_dict().items()):
            if name.startswith("decoder.") or name.endswith("codebook"):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.digest()[:8]

    def set_prior(self, prior):
        """Take in a trained prior, a PixelCNN, GatedPixelCNN or PixelRNN of images [1, h, w] of K levels, or None.

        Raises: ValueError for another model or size.
        """
        config = (
            None if prior is None else {"model": prior.name if isinstance(prior, ImageModel) else type(prior).__name__}
        )
        if config is not None and isinstance(prior, Autoregressive):
            config |= asdict(prior.config)
        self.config = replace(self.config, prior=config)
        self.prior = prior

    def _features(self, x):
        return self.encoder(self.likelihood.scaled(x, next(self.parameters()).dtype))

    def _decoded(self, vectors):
        parameters = self.decoder(vectors)
        if not self._one_variance:
            return parameters
        return torch.cat((parameters, self.log_variance[:, None, None].expand_as(parameters)), 1)


class ResidualBlock(nn.Module):
    """x + 1x1(ReLU(3x3(ReLU(x)))), [B, F, H, W]."""

    def __init__(self, features):
        super().__init__()
        self.spatial = nn.Conv2d(features, features, 3, padding=1)
        self.mix = nn.Conv2d(features, features, 1)

    def forward(self, x):
        return x + self.mix(F.relu(self.spatial(F.relu(x))))


def _encoder(c):
    halving = []
    for i in range(c.downsampling):
        halving += [nn.Conv2d(c.hidden if i else c.channels, c.hidden, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(
        *halving,
        nn.Conv2d(c.hidden if halving else c.channels, c.hidden, 3, padding=1),
        *(ResidualBlock(c.hidden) for _ in range(c.layers)),
        nn.ReLU(),
        nn.Conv2d(c.hidden, c.features, 1),
    )


def _decoder(c, outputs):
    doubling = []
    for i in range(c.downsampling):
        out = outputs if i == c.downsampling - 1 else c.hidden
        doubling += [nn.ReLU(), nn.ConvTranspose2d(c.hidden, out, 4, stride=2, padding=1)]
    return nn.Sequential(
        nn.Conv2d(c.features, c.hidden, 3, padding=1),
        *(ResidualBlock(c.hidden) for _ in range(c.layers)),
        *(doubling or [nn.ReLU(), nn.Conv2d(c.hidden, outputs, 3, padding=1)]),
    )


def _build_prior(config):
    model = PRIORS[config["model"]]
    fields = {name: value for name, value in config.items() if name != "model"}
    return model(model.config_type(**fields))
