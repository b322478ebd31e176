"""What the models of tractable density share: images and labels in, log-probabilities and samples out."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from genfast import ops
from genfast.models.base import ImageConfig, ImageModel
from genfast.nn import MaskedConv2d


@dataclass
class AutoregressiveConfig(ImageConfig):
    """Sizes of the images of an `Autoregressive` model.

    Attributes:
        channels: 1 for grey, 3 for R -> G -> B.
        height, width: of the images, in pixels.
        levels: values of a channel, 2 to 256.
    """


class Autoregressive(ImageModel):
    """`p(x) = prod_i p(x_i | x_<i)`, raster order, R -> G -> B inside a pixel.

    A subclass sets `name` and `config_type` and defines `network`. Every conditional is a softmax over the
    levels, for two levels the logit of level 1; a subclass with other conditionals overrides `draws`,
    `conditionals`, `nll` and `draw`. A config with a field `classes` above 0 makes the model conditional: it
    takes a label with every image.
    """

    @property
    def draws(self):
        """How many draws make a pixel: each of them runs the network."""
        return self.config.channels

    def network(self, x, labels):
        """What gives the conditionals their parameters.

        Args: x (float [B, C, R, W] in [-1, 1], the first R rows of images), labels (int64 [B] or None).
        Returns: [B, P, R, W]; a row never depends on the rows below.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines network")

    def rows(self, row):
        """How many rows of an image the network needs to draw one of row `row`."""
        return row + 1

    def conditionals(self, features):
        """Parameters as `forward` returns them, the pixels last, from the features [B, P, R, W]."""
        return features.unflatten(1, (self.config.channels, -1))

    def nll(self, x, logits):
        """Negative log-likelihood in nats of images x, uint8 [B, C, H, W]: [B]."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.config.levels == 2:
            return ops.bernoulli_nll(x, logits[:, :, 0])
        return ops.categorical_nll(x, logits)

    def draw(self, logits, index, *, seed, first, temperature, element):
        """Draw number `index` of one pixel from its conditionals: uint8 [B, channels drawn, 1, 1].

        `element` is the place of the draw in the image, (row * W + column) * C + index.
        """
        settings = {"first_index": first, "temperature": temperature, "first_element": element}
        if self.config.levels == 2:
            return ops.bernoulli_sample(logits[:, index : index + 1, 0], seed, **settings)
        return ops.categorical_sample(logits[:, index : index + 1], seed, **settings)

    def forward(self, x, labels=None):
        """Logits of every conditional.

        Args:
            x: uint8 [B, C, H, W], levels.
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Returns: [B, C, L', H, W]; L' is 1 for 2 levels (the logit of level 1), else the number of levels.
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a
            label that is missing, or one given to an unconditional model.
        """
        self._check_images(x)
        return self._run(x, self._check_labels(labels, len(x)))

    def log_prob(self, x, labels=None):
        """Log-probability of each image in nats: `x` uint8 [B, C, H, W] -> [B]. Arguments and errors as `forward`."""
        return -self.nll(x, self.forward(x, labels))

    def loss(self, x, labels=None):
        """What training minimises, [B] nats: `-log_prob`."""
        return -self.log_prob(x, labels)

    def bound(self, x, labels=None, *, seed=0, first=0):
        """What evaluation reports, [B] nats: `log_prob`, which is exact; `seed` and `first` change nothing."""
        return self.log_prob(x, labels)

    def sample(self, n, *, seed=0, temperature=1.0, first=0, labels=None, backend="auto"):
        """Images drawn from the model, uint8 [n, C, H, W]: `genfast.sample(self, n, ...)`, with its arguments.

        `backend="reference"` runs the network once for every draw: slow, and the judge of anything faster.
        """
        from genfast.tasks.sample import sample  # which knows the models

        return sample(
            self, n, seed=seed, temperature=temperature, first=first, labels=labels, backend=backend
        )  # fmt: skip

    def _run(self, x, labels):
        x = x.to(next(self.parameters()).dtype) * (2 / (self.config.levels - 1)) - 1
        return self.conditionals(self.network(x, labels))


def output_features(config):
    """Features of softmax conditionals: a logit for 2 levels, else one for each level, of every channel."""
    return config.channels * (1 if config.levels == 2 else config.levels)


def output_layers(features, config):
    """1x1 convolutions (mask B) from `features` by way of `config.head` features, twice, to the conditionals."""
    sizes = (features, config.head, config.head, output_features(config))
    return nn.ModuleList(MaskedConv2d(n, m, 1, "B", config.channels) for n, m in pairwise(sizes))
