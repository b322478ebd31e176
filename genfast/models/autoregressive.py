"""The base class of autoregressive models, which have a tractable log-probability."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from genfast.likelihoods import Likelihood, softmax
from genfast.models.base import ImageConfig, ImageModel
from genfast.nn import MaskedConv2d


@dataclass
class AutoregressiveConfig(ImageConfig):
    """The image format of an `Autoregressive` model."""


class Autoregressive(ImageModel):
    """`p(x) = prod_i p(x_i | x_<i)` in raster order, and in the order R, G, B inside a pixel.

    A subclass sets `name` and `config_type` and defines `network`. Every conditional is a softmax over the levels, or
    with two levels the logit of level 1; a subclass with other conditionals overrides `likelihood`. The model is
    conditional on labels if the config has a field `classes` above 0.
    """

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of a pixel, whose parameters `network` returns."""
        return softmax(self.config.channels, self.config.levels)

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The parameters of all conditionals.

        Args:
            x: the first R rows of images, float [B, C, R, W] in [-1, 1].
            labels: int64 [B] or None.
        Returns: parameters [B, P, R, W] of the likelihood; a row never depends on the rows below it.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines network")

    def rows(self, row: int) -> int:
        """Number of rows of an image that `network` needs for the conditionals of row `row`."""
        return row + 1

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of all conditionals.

        Args:
            x: levels, uint8 [B, C, H, W].
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Returns: [B, C, L', H, W]; L' is the number of levels, or 1 for two levels (the logit of level 1).
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a missing
            label, or labels for an unconditional model.
        """
        return self.likelihood.per_channel(self._conditionals(x, labels))

    def log_prob(self, x: Tensor, labels: Tensor | None = None, *, first: int = 0) -> Tensor:
        """Exact log-probability of each image, [B] in nats. Arguments and errors as `forward`.

        `first`, the index of the first image, is unused: nothing is random.
        """
        return -self.likelihood.nll(x, self._conditionals(x, labels))

    def loss(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The training loss `-log_prob`, [B] in nats."""
        return -self.log_prob(x, labels)

    def bound(self, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, first: int = 0) -> Tensor:
        """`log_prob`, [B] in nats, which is exact: `seed` and `first` are unused."""
        return self.log_prob(x, labels)

    def _conditionals(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The parameters of all conditionals, [B, P, H, W], of checked images."""
        self._check_images(x)
        labels = self._check_labels(labels, x.shape[0])
        return self.network(self.scaled(x), labels)


def output_features(config: AutoregressiveConfig) -> int:
    """Number of parameters P of softmax conditionals."""
    return softmax(config.channels, config.levels).parameters


def output_layers(features: int, head: int, config: AutoregressiveConfig) -> nn.ModuleList:
    """1x1 convolutions (mask B) from `features` to P parameters, with two hidden layers of `head` features."""
    sizes = (features, head, head, output_features(config))
    return nn.ModuleList(MaskedConv2d(n, m, 1, "B", config.channels) for n, m in pairwise(sizes))
