"""VQ-VAE: an autoencoder with a grid of discrete codes, and an autoregressive prior over the codes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import from_json, option
from genfast._text import shown
from genfast.engine.decoder import BLOCK
from genfast.likelihoods import Likelihood, decoder_likelihoods, likelihood
from genfast.models.autoregressive import Autoregressive
from genfast.models.base import ImageConfig, ImageModel, register_model
from genfast.models.gated_pixelcnn import GatedPixelCNN
from genfast.models.pixelcnn import PixelCNN
from genfast.models.pixelrnn import PixelRNN
from genfast.nn import ResidualVectorQuantizer, VectorQuantizer
from genfast.tasks.sample import sample

# Codes are categorical, so a prior has softmax conditionals.
PRIORS: dict[str, type[Autoregressive]] = {model.name: model for model in (PixelCNN, GatedPixelCNN, PixelRNN)}


@dataclass
class VQVAEConfig(ImageConfig):
    """Settings of a `VQVAE`."""

    codes: int = option(256, "size K of a codebook, 2 to 65536; at most 256 with a prior", ge=2, le=65536)
    features: int = option(32, "size D of the vectors of a codebook", ge=1, le=2**16)
    hidden: int = option(64, "features (channels) of the convolutions", ge=1, le=2**16)
    layers: int = option(2, "residual blocks of the encoder and of the decoder", ge=0, le=1000)
    downsampling: int = option(2, "number of times that the encoder halves height and width", ge=0, le=16)
    codebooks: int = option(
        1, "codebooks of residual vector quantisation: each quantises the residual of those before it", ge=1, le=256
    )
    likelihood: str = option(
        "mixture",
        "likelihood of a pixel: bernoulli (2 levels), gaussian (one variance per channel) or mixture (of logistics)",
        choices=decoder_likelihoods(),
    )
    mixtures: int = option(5, "components of the mixture of logistics", ge=1, le=1024)
    codebook_update: Literal["ema", "gradient"] = option(
        "ema", "update of the codebook: ema (exponential moving averages of the assigned vectors), or gradient"
    )
    decay: float = option(0.99, "decay of the moving averages and of the moving counts of the codes, in [0, 1)")
    commitment: float = option(0.25, "weight of the commitment loss, which keeps features near their code")
    restart: float = option(0.1, "fraction of the mean count below which a code is dead and is restarted; 0: never")
    prior: dict[str, Any] | None = option(
        None, "prior of the codes: the fields of its config, with its name as `model`; None: no prior", from_data=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_multiples(2**self.downsampling, f"for downsampling {self.downsampling}")
        try:
            likelihood(self.likelihood, self.channels, self.levels, self.mixtures)
        except ValueError as error:
            raise ValueError(f"VQVAEConfig: {error}") from None
        if self.prior is not None:
            self._check_prior()

    def _check_prior(self) -> None:
        fields = self.prior or {}
        name = fields.get("model")
        if not isinstance(name, str) or name not in PRIORS:
            raise ValueError(f"VQVAEConfig: prior must be a {', a '.join(PRIORS)}; got {shown(repr(name), 100)}")
        prior = _prior_config(fields)
        expected = {"channels": 1, "height": self.grid[0], "width": self.grid[1], "levels": self.codes}
        got = {field: getattr(prior, field) for field in expected}
        if got != expected:
            raise ValueError(f"VQVAEConfig: prior must have {expected}, the grid of codes; got {got}")

    @property
    def classes(self) -> int:  # type: ignore[override]  # an attribute in the base class
        """Number of labels that the prior is conditional on; 0: unconditional."""
        return (self.prior or {}).get("classes", 0)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of codes of an image. Several codes of a place are side by side."""
        return self.height >> self.downsampling, (self.width >> self.downsampling) * self.codebooks


@register_model
class VQVAE(ImageModel):
    """An autoencoder that replaces each vector of the encoder's grid by the nearest vector of a codebook.

    The loss is `nll(x | codes) + C H W (quantisation and commitment loss)`, see `VectorQuantizer`. The prior is an
    autoregressive model of the codes of the trained autoencoder (`genfast train gated-pixelcnn --data codes:RUN`);
    `set_prior` adds it to the model. Without a prior all codes are equally likely.

    The encoder has `downsampling` 4x4 convolutions of stride 2, a 3x3 convolution, `layers` residual blocks and a 1x1
    convolution; the decoder mirrors it with transposed convolutions.

    Paper: Neural Discrete Representation Learning, arXiv 1711.00937.
    Example: `VQVAE(VQVAEConfig()).reconstruct(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "vq-vae"
    config_type = VQVAEConfig
    config: VQVAEConfig
    quantizer: VectorQuantizer | ResidualVectorQuantizer
    prior: Autoregressive | None

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        c = config
        options: dict[str, Any] = {
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
        """The likelihood of a pixel, whose parameters `decode` returns."""
        c = self.config
        return likelihood(c.likelihood, c.channels, c.levels, c.mixtures)

    @property
    def code_count(self) -> int:
        """K, the size of a codebook."""
        return self.config.codes

    @property
    def codes_per_place(self) -> int:
        """Number of codebooks, each of which gives a place one code."""
        return self.config.codebooks

    @property
    def stride(self) -> int:
        """Side in pixels of the square of the image that a place of the grid covers."""
        return 2**self.config.downsampling

    @property
    def _one_variance(self) -> bool:
        """Whether each channel has one variance, which is a parameter: training then minimises the squared error."""
        return self.likelihood.is_density

    def encode(self, x: Tensor, *, any_size: bool = False) -> Tensor:
        """Codes of images: levels, uint8 [B, C, H, W] -> int64 [B, h, w], 0 to K - 1.

        With `any_size` H and W may be any multiples of the stride: the model is fully convolutional.

        Raises: TypeError for another dtype; ValueError for another shape or device, or a value out of range.
        """
        size, step = None, self.stride
        if any_size and isinstance(x, Tensor) and x.dim() == 4:
            size = (max(1, x.shape[2] // step) * step, max(1, x.shape[3] // step) * step)
        self._check_images(x, size)
        codes = self.quantizer.encode(self._features(x))
        return codes if codes.dim() == 3 else codes.permute(0, 2, 3, 1).flatten(2)

    def decode(self, codes: Tensor, *, any_size: bool = False) -> Tensor:
        """Parameters of the likelihood: codes int64 [B, h, w] -> [B, P, H, W]; with `any_size` h and w may differ.

        Raises: TypeError for another dtype; ValueError for another shape or a code out of range.
        """
        count, (height, width) = self.config.codebooks, self.config.grid
        if not isinstance(codes, Tensor) or codes.dtype != torch.int64:
            got = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
            raise TypeError(f"VQVAE: codes must be torch.int64; got {got}")
        fits = codes.dim() == 3 and (codes.shape[1:] == (height, width) or any_size and codes.shape[2] % count == 0)
        if not fits:
            expected = f"[B, h, w] with h={height}, w={width}"
            raise ValueError(f"VQVAE: codes must have shape {expected}; got {tuple(codes.shape)}")
        if count > 1:
            codes = codes.unflatten(2, (-1, count)).permute(0, 3, 1, 2)
        return self._decoded(self.quantizer.lookup(codes))

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        """`-log p(x | parameters)`, [B] in nats, of x uint8 [B, C, H, W] and [B, P, H, W]; see `Likelihood.nll`."""
        return self.likelihood.nll(x, parameters, weight)

    def expected(self, parameters: Tensor) -> Tensor:
        """Mean of the likelihood in levels: parameters [B, P, H, W] -> float [B, C, H, W], 0 to L - 1."""
        return self.likelihood.expected(parameters)

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        """Draw images, uint8 [B, C, H, W], from the likelihood; the noise of image i is that of (seed, first + i)."""
        return self.likelihood.draw(parameters, seed, first, temperature)

    def forward(self, x: Tensor) -> Tensor:
        """Parameters of the likelihood, decoded from the codes of images: uint8 [B, C, H, W] -> [B, P, H, W]."""
        self._check_images(x)
        return self._decoded(self.quantizer(self._features(x))[0])

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The training loss, uint8 [B, C, H, W] -> [B] in nats. In training mode it updates the codebooks.

        labels are unused: only the prior is conditional.
        """
        self._check_images(x)
        quantized, _, loss = self.quantizer(self._features(x))
        return self.nll(x, self._decoded(quantized)) + math.prod(x.shape[1:]) * loss

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """Lower bound on the log-probability, [B] in nats: `log p(x | codes) + log p(codes)` for the codes of x.

        All other codes are left out of the sum. Without a prior the codes are uniform. `seed` and `first` are unused:
        nothing is random.

        Args:
            x: levels, uint8 [B, C, H, W].
            labels: integers [B], for a conditional prior.
        """
        codes = self.encode(x)
        return self.code_log_prob(codes, labels) - self.nll(x, self.decode(codes))

    @torch.no_grad()
    def log_prob(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """The `bound`, without a gradient: the exact sum over all codes is intractable."""
        return self.bound(x, labels, seed=seed, first=first)

    def code_log_prob(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log-probability of codes int64 [B, h, w], [B] in nats, under the prior; uniform without a prior."""
        if self.prior is not None:
            return self.prior.log_prob(codes[:, None].to(torch.uint8), labels)
        nats = -codes[:1].numel() * math.log(self.config.codes)
        return torch.full((len(codes),), nats, dtype=torch.float32, device=codes.device)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Encode and decode images: uint8 [B, C, H, W] -> the mean of the likelihood, rounded to levels, uint8.

        labels are unused: only the prior is conditional.
        """
        return self.decode_images(self.encode(x))

    @torch.no_grad()
    def sample_images(self, n: int, *, seed: int, first: int, temperature: float, labels: Tensor | None) -> Tensor:
        """Draw images for `genfast.sample`, uint8 [n, C, H, W]: codes by `genfast.sample` of the prior, then decoded.

        Raises: ValueError for a model without a prior.
        """
        if self.prior is None:
            expected = "a prior, such as genfast train gated-pixelcnn --data codes:RUN makes"
            raise ValueError(f"VQVAE: sampling needs {expected}; got a model without")
        codes = sample(self.prior, n, seed=seed, first=first, temperature=temperature, labels=labels)
        return self.decode_images(codes[:, 0].long(), first)

    @torch.no_grad()
    def decode_images(self, codes: Tensor, first: int = 0) -> Tensor:
        """Decode codes int64 [B, h, w] to the mean of the likelihood, rounded to levels: uint8 [B, C, H, W].

        Images are decoded in blocks of `BLOCK`, in which the image of index first + i has a fixed place, so that the
        rounding does not depend on the batch.
        """
        ahead = first % BLOCK
        padded = F.pad(codes, (0, 0, 0, 0, ahead, -(ahead + len(codes)) % BLOCK))
        images = [self.expected(self.decode(block)).round().to(torch.uint8) for block in padded.split(BLOCK)]
        return torch.cat(images)[ahead : ahead + len(codes)]

    def decoder_digest(self) -> bytes:
        """Eight bytes that identify the decoder: a hash of its sizes and weights and of the codebooks."""
        c, digest = self.config, hashlib.sha256()
        sizes = (c.channels, c.levels, c.codes, c.features, c.downsampling, c.codebooks, c.likelihood, c.mixtures)
        digest.update(repr(sizes).encode())
        for name, tensor in sorted(self.state_dict().items()):
            if name.startswith("decoder.") or name.endswith("codebook"):
                tensor = tensor.to(self._weight.dtype)  # as `lookup` returns the vectors of a codebook
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.digest()[:8]

    def set_prior(self, prior: Autoregressive | None) -> None:
        """Set the prior: a trained PixelCNN, GatedPixelCNN or PixelRNN of images [1, h, w] with K levels, or None.

        Raises: ValueError for another model or size.
        """
        config: dict[str, Any] | None = None
        if prior is not None:
            config = {"model": prior.name if isinstance(prior, ImageModel) else type(prior).__name__}
            config |= asdict(prior.config) if isinstance(prior, Autoregressive) else {}
        self.config = replace(self.config, prior=config)
        self.prior = prior

    def _features(self, x: Tensor) -> Tensor:
        return self.encoder(self.scaled(x))

    def _decoded(self, vectors: Tensor) -> Tensor:
        parameters = self.decoder(vectors)
        if not self._one_variance:
            return parameters
        return torch.cat((parameters, self.log_variance[:, None, None].expand_as(parameters)), 1)


class ResidualBlock(nn.Module):
    """`x + conv1x1(relu(conv3x3(relu(x))))`, [B, F, H, W] -> [B, F, H, W]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(features, features, 3, padding=1)
        self.mix = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.relu(self.spatial(F.relu(x))))


def _encoder(c: VQVAEConfig) -> nn.Sequential:
    halving: list[nn.Module] = []
    for i in range(c.downsampling):
        halving += [nn.Conv2d(c.hidden if i else c.channels, c.hidden, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(
        *halving,
        nn.Conv2d(c.hidden if halving else c.channels, c.hidden, 3, padding=1),
        *(ResidualBlock(c.hidden) for _ in range(c.layers)),
        nn.ReLU(),
        nn.Conv2d(c.hidden, c.features, 1),
    )


def _decoder(c: VQVAEConfig, outputs: int) -> nn.Sequential:
    doubling: list[nn.Module] = []
    for i in range(c.downsampling):
        out = outputs if i == c.downsampling - 1 else c.hidden
        doubling += [nn.ReLU(), nn.ConvTranspose2d(c.hidden, out, 4, stride=2, padding=1)]
    return nn.Sequential(
        nn.Conv2d(c.features, c.hidden, 3, padding=1),
        *(ResidualBlock(c.hidden) for _ in range(c.layers)),
        *(doubling or [nn.ReLU(), nn.Conv2d(c.hidden, outputs, 3, padding=1)]),
    )


def _prior_config(prior: dict[str, Any]) -> Any:
    fields = {name: value for name, value in prior.items() if name != "model"}
    return from_json(PRIORS[prior["model"]].config_type, fields, "VQVAEConfig: prior")


def _build_prior(prior: dict[str, Any]) -> Autoregressive:
    return PRIORS[prior["model"]](_prior_config(prior))
