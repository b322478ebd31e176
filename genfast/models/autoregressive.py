"""What the models of tractable density share: images and labels in, log-probabilities and samples out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from genfast.likelihoods import Likelihood, softmax
from genfast.models.base import ImageConfig, ImageModel
from genfast.nn import MaskedConv2d


@dataclass
class AutoregressiveConfig(ImageConfig):
    """Sizes of the images of an `Autoregressive` model."""


class Autoregressive(ImageModel):
    """`p(x) = prod_i p(x_i | x_<i)`, raster order, R -> G -> B inside a pixel.

    A subclass sets `name` and `config_type` and defines `network`. Every conditional is a softmax over the levels, for
    two levels the logit of level 1; a subclass with other conditionals overrides `likelihood`. A config with a field
    `classes` above 0 makes the model conditional: it takes a label with every image.
    """

    @property
    def likelihood(self) -> Likelihood:
        """Of the values of a pixel, given the parameters that `network` returns."""
        return softmax(self.config.channels, self.config.levels)

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """What gives the conditionals their parameters.

        Args: x (float [B, C, R, W] in [-1, 1], the first R rows of images), labels (int64 [B] or None).
        Returns: [B, P, R, W]; a row never depends on the rows below.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines network")

    def rows(self, row: int) -> int:
        """How many rows of an image the network needs to draw one of row `row`."""
        return row + 1

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of every conditional.

        Args:
            x: uint8 [B, C, H, W], levels.
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Returns: [B, C, L', H, W]; L' is 1 for 2 levels (the logit of level 1), else the number of levels.
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a
            label that is missing, or one given to an unconditional model.
        """
        return self.likelihood.per_channel(self._conditionals(x, labels))

    def log_prob(self, x: Tensor, labels: Tensor | None = None, *, first: int = 0) -> Tensor:
        """Log-probability of each image in nats: `x` uint8 [B, C, H, W] -> [B]. Arguments and errors as `forward`.

        It is exact: `first`, the number of the first image, changes nothing.
        """
        return -self.likelihood.nll(x, self._conditionals(x, labels))

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """What training minimises, [B] nats: `-log_prob`."""
        return -self.log_prob(x, labels)

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """What evaluation reports, [B] nats: `log_prob`, which is exact; `seed` and `first` change nothing."""
        return self.log_prob(x, labels)

    def _conditionals(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[B, P, H, W]."""
        self._check_images(x)
        labels = self._check_labels(labels, len(x))
        x = x.to(self._weight.dtype) * (2 / (self.config.levels - 1)) - 1
        return self.network(x, labels)


def output_features(config: AutoregressiveConfig) -> int:
    """Features of softmax conditionals: a logit for 2 levels, else one for each level, of every channel."""
    return softmax(config.channels, config.levels).parameters


def output_layers(features: int, config: AutoregressiveConfig) -> nn.ModuleList:
    """1x1 convolutions (mask B) from `features` by way of `config.head` features, twice, to the conditionals."""
    sizes = (features, config.head, config.head, output_features(config))
    return nn.ModuleList(MaskedConv2d(n, m, 1, "B", config.channels) for n, m in pairwise(sizes))
