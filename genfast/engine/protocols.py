"""What a model can do, stated by the model: the protocols that tasks, metrics, training and the command line ask for.

Each is a `typing.Protocol`: a class has it by deriving from it or by defining its members. `isinstance(model,
LatentModel)` asks whether a model has them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from genfast.likelihoods import Likelihood


@dataclass(frozen=True)
class ImageSpec:
    """The images that a model is of.

    Attributes:
        channels, height, width: C, H and W, in pixels.
        levels: values of a channel, L, 2 to 256.
        classes: labels that a model is conditional on; 0 for none.
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
    def values(self) -> int:
        """C H W."""
        return self.channels * self.height * self.width


@runtime_checkable
class Named(Protocol):
    """A model with a name of its own, which is not that of its class."""

    name: str


@runtime_checkable
class ImageModel(Protocol):
    """A model that says what images it is of."""

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
        """How many rows of an image the network needs to give the parameters of row `row`."""
        ...


@runtime_checkable
class Density(ImageModel, Protocol):
    """A model with a log-probability of images, or an estimate of it or lower bound on it."""

    def log_prob(self, x: Tensor, labels: Tensor | None = None, *, first: int = 0) -> Tensor:
        """[B] in nats, of levels uint8 [B, C, H, W]; `first`: the index of the first image, for an estimate."""
        ...


@runtime_checkable
class Generator(ImageModel, Protocol):
    """A model that draws whole images from noise, image i by (seed, first + i) alone."""

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
class Reconstructor(ImageModel, Protocol):
    """A model that encodes images and decodes them again."""

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class CodeModel(ImageModel, Protocol):
    """A model of images as grids of codes, of any size that its strides allow."""

    @property
    def likelihood(self) -> Likelihood: ...

    @property
    def code_count(self) -> int:
        """K, the codes of a place."""
        ...

    @property
    def codes_per_place(self) -> int: ...

    @property
    def stride(self) -> int:
        """Pixels along one side of a place."""
        ...

    def encode(self, x: Tensor, *, any_size: bool = False) -> Tensor:
        """Codes int64 [B, h, w] of levels uint8 [B, C, H, W]."""
        ...

    def decode(self, codes: Tensor, *, any_size: bool = False) -> Tensor:
        """Parameters of the likelihood [B, P, H, W] of codes int64 [B, h, w]."""
        ...

    def decoder_digest(self) -> bytes:
        """Bytes that differ where models decode differently."""
        ...


@runtime_checkable
class Translator(ImageModel, Protocol):
    """A model of images of one domain, `spec`, given images of another, `source`."""

    @property
    def source(self) -> ImageSpec: ...

    @property
    def stride(self) -> int:
        """The least height and width that it translates."""
        ...

    def translated(self, source: Tensor, seed: int = 0, first: int = 0, noise: bool = True) -> Tensor:
        """uint8 levels [B, S, h, w] -> uint8 levels [B, C, h, w], image b by (seed, first + b) alone."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """A model that `genfast.train.fit` trains by a loss of its own; one that is a `Density` alone is trained by that."""

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """What training minimises, [B] nats."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A model that is evaluated by a bound of its own; one that is a `Density` alone is evaluated by that."""

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """What evaluation reports, [B] nats: the log-likelihood or a bound on it, the same at every call."""
        ...


@runtime_checkable
class Adversarial(Protocol):
    """A model of two networks, `generator` and `discriminator`, that `genfast.train.fit_adversarial` trains in turn.

    It also has `discriminator_steps`, updates of the discriminator before each of the generator; `least_batch`, the
    smallest batch that it learns from; and `adversarial_loss`, a name of `genfast.metrics.equilibrium.LOSSES`.
    """

    # A batch is images and labels for some models, source and target for others: any arguments conform.
    def discriminator_loss(self, *batch: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss [], report with real_logits and fake_logits [B])."""
        ...

    def generator_loss(self, *batch: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss [], report)."""
        ...

    def preview(self, *batch: Any, **named: Any) -> Tensor:
        """Images that show how training goes, uint8 [n, C, H, W]."""
        ...

    def settle(self) -> None:
        """Give averaged buffers the values that fit the averaged weights."""
        ...


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the parameters of a model are; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
