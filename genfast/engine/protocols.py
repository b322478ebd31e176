"""What a model can do, as protocols: tasks, metrics, training and the command line ask for these.

Each is a `typing.Protocol`: a class has it by deriving from it or by defining its members. `isinstance(model,
LatentModel)` tests whether all members are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genfast.random.levels import level_dtype

if TYPE_CHECKING:
    from genfast.likelihoods import Likelihood


@dataclass(frozen=True)
class ImageSpec:
    """The images of a model.

    Attributes:
        channels, height, width: C, H and W, in pixels.
        levels: values of a channel, L, 2 to 65536.
        classes: number of labels of a conditional model; 0: unconditional.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def dtype(self) -> torch.dtype:
        """That of images: uint8 up to 256 levels, else int32."""
        return level_dtype(self.levels)

    @property
    def values(self) -> int:
        """C H W."""
        return self.channels * self.height * self.width


@runtime_checkable
class Named(Protocol):
    """A model with a name of its own, which is not that of its class."""

    name: str


@runtime_checkable
class ImageModel(Protocol):
    """A model of images."""

    @property
    def spec(self) -> ImageSpec: ...


@runtime_checkable
class Autoregressive(ImageModel, Protocol):
    """`p(x) = prod_i p(x_i | x_<i)` in raster order: the parameters of all conditionals in one forward."""

    @property
    def likelihood(self) -> Likelihood: ...

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Parameters [B, P, R, W] of the first R rows of images, float [B, C, R, W] in [-1, 1]; labels int64 [B]."""
        ...

    def rows(self, row: int) -> int:
        """The number of rows of an image that the network needs for the parameters of row `row`."""
        ...


@runtime_checkable
class Sequential(Autoregressive, Protocol):
    """A model of images of one row, the symbols of a sequence, which may be of any length."""

    def of_length(self, length: int) -> Sequential:
        """The model, with the same weights, for sequences of so many symbols."""
        ...


@runtime_checkable
class Density(ImageModel, Protocol):
    """A model with a log-likelihood of images, or an estimate of it, or a lower bound."""

    def log_prob(self, x: Tensor, labels: Tensor | None = None, *, first: int = 0) -> Tensor:
        """[B] in nats, of levels uint8 [B, C, H, W]; `first`: the index of the first image, for an estimate."""
        ...


@runtime_checkable
class Generator(ImageModel, Protocol):
    """A model that draws whole images from noise; image i depends on (seed, first + i) alone."""

    def sample_images(self, n: int, *, seed: int, first: int, temperature: float, labels: Tensor | None) -> Tensor: ...


@runtime_checkable
class LatentModel(ImageModel, Protocol):
    """`p(x) = E_{z ~ N(0, I)} p(x | z)` with an approximate posterior q(z | x), a diagonal Gaussian."""

    @property
    def likelihood(self) -> Likelihood: ...

    @property
    def latent_size(self) -> int:
        """Z."""
        ...

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each [B, Z], of levels uint8 [B, C, H, W]."""
        ...

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of the likelihood [B, P, H, W] of latents float [B, Z]."""
        ...


@runtime_checkable
class LatentNetworks(LatentModel, Protocol):
    """A latent model that gives its networks apart, without checks: what does not run on torch is made from them."""

    def encoder_network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The means, then the log-variances of q(z | x), [B, 2Z], of images float [B, C, H, W] in [-1, 1]; labels int64
        [B]."""
        ...

    def decoder_network(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Parameters of the likelihood [B, P, H, W] of latents float [B, Z]; labels int64 [B]."""
        ...


@runtime_checkable
class Reconstructor(ImageModel, Protocol):
    """A model that encodes images and decodes them again."""

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class CodeModel(ImageModel, Protocol):
    """A model that encodes images as grids of codes; it takes any size that its stride divides."""

    @property
    def likelihood(self) -> Likelihood: ...

    @property
    def code_count(self) -> int:
        """K, the size of the codebook."""
        ...

    @property
    def codes_per_place(self) -> int: ...

    @property
    def stride(self) -> int:
        """Pixels along one side of a position of the grid."""
        ...

    def encode(self, x: Tensor, *, any_size: bool = False) -> Tensor:
        """Codes int64 [B, h, w] of levels uint8 [B, C, H, W]."""
        ...

    def decode(self, codes: Tensor, *, any_size: bool = False) -> Tensor:
        """Parameters of the likelihood [B, P, H, W] of codes int64 [B, h, w]."""
        ...

    def decoder_digest(self) -> bytes:
        """A digest of all that decoding depends on."""
        ...


@runtime_checkable
class Translator(ImageModel, Protocol):
    """A model that translates images of one domain, `source`, to another, `spec`."""

    @property
    def source(self) -> ImageSpec: ...

    @property
    def stride(self) -> int:
        """The least height and width that it translates."""
        ...

    def translated(self, source: Tensor, seed: int = 0, first: int = 0, noise: bool = True) -> Tensor:
        """uint8 levels [B, S, h, w] -> uint8 levels [B, C, h, w]; image b depends on (seed, first + b) alone."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """A model with its own training loss for `genfast.train.fit`; else `log_prob` of a `Density` is the loss."""

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The training loss, [B] nats."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A model with its own bound for evaluation; else `log_prob` of a `Density` is used."""

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """The log-likelihood or a bound on it, [B] nats, the same at every call."""
        ...


@runtime_checkable
class ImportanceSampled(LatentModel, Bounded, Protocol):
    """A model with latents whose log-likelihood is estimated by importance sampling, as `genfast.models.VAE`'s is."""

    def elbo(self, x: Tensor, labels: Tensor | None = None, *, seed: int, first: int = 0) -> Tensor:
        """The evidence lower bound with one draw, [B] nats."""
        ...

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, *, samples: int = 5000, seed: int = 0, first: int = 0
    ) -> Tensor:
        """The estimate by that many draws of each image, [B] nats."""
        ...


@runtime_checkable
class Adversarial(Protocol):
    """A model of two networks, `generator` and `discriminator`, which `genfast.train.fit_adversarial` trains in turn.

    It also has `discriminator_steps`, updates of the discriminator before each of the generator; `least_batch`, the
    smallest batch that it can train on; and `adversarial_loss`, a name of `genfast.metrics.equilibrium.LOSSES`.
    """

    # A batch is images and labels for some models, source and target for others: any arguments conform.
    def discriminator_loss(self, *batch: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss [], report with real_logits and fake_logits [B])."""
        ...

    def generator_loss(self, *batch: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss [], report)."""
        ...

    def preview(self, *batch: Any, **named: Any) -> Tensor:
        """Images for a preview of the progress, uint8 [n, C, H, W]."""
        ...

    def settle(self) -> None:
        """Recompute buffers, such as batch statistics, for the averaged weights."""
        ...


def dtype_of(model: Any) -> torch.dtype:
    """The floating dtype of a model's parameters; float32 for a model without any."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)


def device_of(model: Any) -> torch.device:
    """The device of a model's parameters; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
