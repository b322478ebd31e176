"""PixelCNN++: an image as a product of conditionals of whole pixels, each a mixture of logistics."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from genfast._config import option
from genfast.likelihoods import Likelihood, LogisticMixture
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig
from genfast.models.base import register_model
from genfast.nn import GatedResidualBlock, ShiftedConv2d, ShiftedConvTranspose2d

# Kernel and shift of the two streams: the rows above; and those with what is left of the pixel.
STREAMS = (((2, 3), "down"), ((2, 2), "down-right"))


@dataclass
class PixelCNNPlusPlusConfig(AutoregressiveConfig):
    """Sizes of a `PixelCNNPlusPlus`."""

    filters: int = option(40, "features of each stream", ge=1)
    blocks: int = option(
        2, "residual blocks of a resolution on the way down, and one more on the way up to it (paper: 5)", ge=1
    )
    resolutions: int = option(3, "1 to 3; every further one halves height and width (paper: 3)", ge=1, le=3)
    mixtures: int = option(5, "logistics K of a pixel's mixture (the paper finds 5 enough)", ge=1)
    dropout: float = option(
        0.0, "probability that a feature map is dropped inside a residual block in training (paper: 0.5)", ge=0, lt=1
    )
    classes: int = option(0, "number of labels that the model is conditional on, 0 for none", ge=0, from_data=True)

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        if self.channels not in (1, 3):
            raise ValueError(f"{name}: channels must be 1 or 3; got {self.channels}")
        if self.height % self.coarsest or self.width % self.coarsest:
            expected = f"multiples of {self.coarsest} for {self.resolutions} resolutions"
            raise ValueError(f"{name}: height and width must be {expected}; got {self.height} and {self.width}")

    @property
    def coarsest(self):
        """Height and width, in pixels, of a feature of the lowest resolution."""
        return 2 ** (self.resolutions - 1)


@register_model
class PixelCNNPlusPlus(Autoregressive):
    """`p(x) = prod_i p(x_i | x_<i)` over whole pixels x_i: R, G and B of a pixel are one joint conditional.

    Two streams of gated residual blocks: one holds the rows above a pixel, the other, which reads the first,
    also what lies to its left. They go down through `resolutions` and back up; on the way up every block reads
    by a short-cut the features of the same place on the way down. Levels are scaled to [-1, 1]; beside them
    stands a channel of ones, by which the zeros outside the image differ from a level of 0.
    A conditional is a discretised mixture of logistics, where the means of G and B are linear in the colours
    before them: `logistic_mixture_nll` says what its parameters are.

    Only distance hides an earlier pixel. With one resolution the view ends `4 blocks + 3` rows above, and
    `4 blocks + 1` columns to the right there and to the left in the pixel's own row. More resolutions see
    over far more, but their features end above the pair of rows that they stand for: in an odd row (from 0)
    the row itself is seen `4 blocks + 2` columns to the left, the one above it as far to the right.

    Initialisation is PyTorch's, with the last convolution of a block at a tenth of it, not the paper's
    weight normalisation by a first batch: what that buys, blocks that start close to the identity at any
    depth, costs no pass over the data so, and no normalisation of every weight in every step.

    Paper: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
        Modifications, arXiv 1701.05517.
    Example: `PixelCNNPlusPlus(PixelCNNPlusPlusConfig()).sample(1)`
    """

    name = "pixelcnn++"
    config_type = PixelCNNPlusPlusConfig

    def __init__(self, config):
        super().__init__(config)
        inputs, features, blocks = config.channels + 1, config.filters, config.blocks
        self.above = ShiftedConv2d(inputs, features, (2, 3), "down", mask="A")
        self.row_above = ShiftedConv2d(inputs, features, (1, 3), "down", mask="A")
        self.left = ShiftedConv2d(inputs, features, (2, 1), "down-right", mask="A")
        lowest = config.resolutions - 1
        self.encoder = nn.ModuleList(self._stack(blocks, 0) for _ in range(lowest + 1))
        # One block for every pair of feature maps that the encoder keeps, but for the last pair, which enters it.
        self.decoder = nn.ModuleList(self._stack(blocks + (i < lowest), features) for i in range(lowest + 1))
        self.halving = nn.ModuleList(
            nn.ModuleList(ShiftedConv2d(features, features, *stream, stride=2) for stream in STREAMS)
            for _ in range(lowest)
        )
        self.doubling = nn.ModuleList(
            nn.ModuleList(ShiftedConvTranspose2d(features, features, shift) for _, shift in STREAMS)
            for _ in range(lowest)
        )
        self.head = nn.Linear(features, self.likelihood.parameters)
        self._spread_components()

    def _stack(self, blocks, shortcut):
        c = self.config
        return nn.ModuleList(TwoStreamBlock(c.filters, shortcut, c.dropout, c.classes) for _ in range(blocks))

    @property
    def likelihood(self) -> Likelihood:
        """A mixture of logistics of each pixel."""
        return LogisticMixture(self.config.channels, self.config.levels, self.config.mixtures)

    @torch.no_grad()
    def _spread_components(self):
        """Start every pixel from K logistics that share [-1, 1] evenly: equal ones would stay nearly equal."""
        k, channels = self.config.mixtures, self.config.channels
        self.head.weight.mul_(0.1)
        _, means, scales, _ = self.head.bias.zero_().tensor_split([k, k * (1 + channels), k * (1 + 2 * channels)])
        means.copy_(torch.linspace(-1, 1, 2 * k + 1)[1::2].repeat(channels))
        scales.fill_(-math.log(k))

    def network(self, x, labels):
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0).contiguous(memory_format=torch.channels_last)
        streams = self.above(x), self.row_above(x) + self.left(x)
        kept = [streams]
        for i, stack in enumerate(self.encoder):
            if i > 0:
                streams = _each(self.halving[i - 1], streams)
                kept.append(streams)
            for block in stack:
                streams = block(streams, None, labels)
                kept.append(streams)
        streams = kept.pop()
        for i, stack in reversed(list(enumerate(self.decoder))):
            for block in stack:
                streams = block(streams, kept.pop(), labels)
            if i > 0:
                streams = _each(self.doubling[i - 1], streams)
        return self.head(F.elu(streams[1]).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def rows(self, row):
        coarsest = self.config.coarsest
        return (row // coarsest + 1) * coarsest

    def forward(self, x, labels=None):
        """Parameters of every pixel's mixture.

        Args:
            x: uint8 [B, C, H, W], levels.
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Returns: [B, P, H, W] with P = 3K for grey and 10K for colour, as `logistic_mixture_nll` reads them.
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a
            label that is missing, or one given to an unconditional model.
        """
        return super().forward(x, labels)


class TwoStreamBlock(nn.Module):
    """A gated residual block for each stream, where the second reads the first."""

    def __init__(self, features, shortcut, dropout, classes):
        super().__init__()
        down, right = STREAMS
        self.down = GatedResidualBlock(features, *down, shortcut, dropout, classes)
        self.right = GatedResidualBlock(features, *right, features + shortcut, dropout, classes)

    def forward(self, streams, kept, labels):
        """Both streams, [B, F, H, W] each, after the block; `kept` are those of the short-cut, or None."""
        down, right = streams
        if kept is None:
            down = self.down(down, None, labels)
            return down, self.right(right, down, labels)
        down = self.down(down, kept[0], labels)
        return down, self.right(right, torch.cat((down, kept[1]), 1), labels)


def _each(layers, streams):
    return tuple(layer(stream) for layer, stream in zip(layers, streams, strict=True))
