"""PixelCNN++: an autoregressive model whose conditionals are mixtures of logistics over whole pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import option
from genfast.likelihoods import Likelihood, LogisticMixture
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig
from genfast.models.base import register_model
from genfast.nn import GatedResidualBlock, ShiftedConv2d, ShiftedConvTranspose2d
from genfast.nn.shifted_conv import Shift

# Features [B, F, H, W] of the two streams.
Streams = tuple[Tensor, Tensor]

# Kernel size and shift of the two streams: the rows above; the rows above and the pixels at the left.
STREAMS: tuple[tuple[tuple[int, int], Shift], ...] = (((2, 3), "down"), ((2, 2), "down-right"))


@dataclass
class PixelCNNPlusPlusConfig(AutoregressiveConfig):
    """Settings of a `PixelCNNPlusPlus`."""

    filters: int = option(40, "features (channels) of each stream", ge=1, le=2**16)
    blocks: int = option(
        2, "residual blocks at each resolution of the encoder; the decoder has one more (paper: 5)", ge=1, le=1000
    )
    resolutions: int = option(
        3, "number of resolutions, 1 to 3; each further one halves height and width (paper: 3)", ge=1, le=3
    )
    mixtures: int = option(5, "components K of the mixture of logistics (paper: 5 suffice)", ge=1, le=1024)
    dropout: float = option(
        0.0, "probability that a feature map in a residual block is dropped in training (paper: 0.5)", ge=0, lt=1
    )
    classes: int = option(
        0, "number of labels that the model is conditional on; 0: unconditional", ge=0, le=2**20, from_data=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.channels not in (1, 3):
            raise ValueError(f"{name}: channels must be 1 or 3; got {self.channels}")
        self.check_multiples(self.coarsest, f"for {self.resolutions} resolutions")

    @property
    def coarsest(self) -> int:
        """Side in pixels of the square of the image that a place at the lowest resolution covers."""
        return 2 ** (self.resolutions - 1)


@register_model
class PixelCNNPlusPlus(Autoregressive):
    """`p(x) = prod_i p(x_i | x_<i)` over whole pixels x_i: the conditional of R, G and B of a pixel is joint.

    There are two streams of gated residual blocks. The first reads the rows above a pixel; the second reads the first,
    and the pixels at the left in the same row. An encoder of `resolutions` resolutions is followed by a decoder, whose
    blocks have skip connections from the encoder. Levels are scaled to [-1, 1]. A channel of ones is appended, so that
    the padding of 0 differs from a level that is scaled to 0.
    A conditional is a discretised mixture of logistics, where the means of G and B are linear in the preceding colours;
    `logistic_mixture_nll` defines its parameters.

    Only distance hides an earlier pixel. With one resolution a pixel depends on `4 blocks + 3` rows above, and on `4
    blocks + 1` columns at the right in these rows and at the left in its own row. With more resolutions it depends on
    far more, but features of a lower resolution end above the pair of rows that they cover: in an odd row (from 0) a
    pixel depends on `4 blocks + 2` columns at the left in its own row, and as many at the right in the row above.

    The initialisation is PyTorch's, with the last convolution of a block scaled by a tenth, instead of the paper's
    data-dependent weight normalisation. It has the same benefit, that blocks start close to the identity at any depth,
    but needs no pass over data and no normalisation of the weights in every step.

    Paper: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
        Modifications, arXiv 1701.05517.
    Example: `PixelCNNPlusPlus(PixelCNNPlusPlusConfig()).sample(1)`
    """

    name = "pixelcnn++"
    config_type = PixelCNNPlusPlusConfig
    config: PixelCNNPlusPlusConfig

    def __init__(self, config: PixelCNNPlusPlusConfig) -> None:
        super().__init__(config)
        inputs, features, blocks = config.channels + 1, config.filters, config.blocks
        self.above = ShiftedConv2d(inputs, features, (2, 3), "down", mask="A")
        self.row_above = ShiftedConv2d(inputs, features, (1, 3), "down", mask="A")
        self.left = ShiftedConv2d(inputs, features, (2, 1), "down-right", mask="A")
        lowest = config.resolutions - 1
        self.encoder = nn.ModuleList(self._stack(blocks, 0) for _ in range(lowest + 1))
        # One block for every skip connection. The last output of the encoder is the input of the decoder, not a skip.
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

    def _stack(self, blocks: int, shortcut: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(TwoStreamBlock(c.filters, shortcut, c.dropout, c.classes) for _ in range(blocks))

    @property
    def likelihood(self) -> Likelihood:
        """A discretised mixture of logistics over the channels of a pixel."""
        return LogisticMixture(self.config.channels, self.config.levels, self.config.mixtures)

    @torch.no_grad()
    def _spread_components(self) -> None:
        """Initialise the K components to means spread evenly over [-1, 1]: equal components would stay nearly equal."""
        k, channels = self.config.mixtures, self.config.channels
        self.head.weight.mul_(0.1)
        _, means, scales, _ = self.head.bias.zero_().tensor_split([k, k * (1 + channels), k * (1 + 2 * channels)])
        means.copy_(torch.linspace(-1, 1, 2 * k + 1, dtype=torch.float32, device="cpu")[1::2].repeat(channels))
        scales.fill_(-math.log(k))

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0).contiguous(memory_format=torch.channels_last)
        streams = self.above(x), self.row_above(x) + self.left(x)
        skips = [streams]
        for i, stack in enumerate(self.encoder):
            if i > 0:
                streams = _each(self.halving[i - 1].children(), streams)
                skips.append(streams)
            for block in stack.children():
                streams = block(streams, None, labels)
                skips.append(streams)
        streams = skips.pop()
        for i, stack in reversed(list(enumerate(self.decoder))):
            for block in stack.children():
                streams = block(streams, skips.pop(), labels)
            if i > 0:
                streams = _each(self.doubling[i - 1].children(), streams)
        return self.head(F.elu(streams[1]).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def rows(self, row: int) -> int:
        coarsest = self.config.coarsest
        return (row // coarsest + 1) * coarsest

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of the mixture of each pixel.

        Args:
            x: levels, uint8 [B, C, H, W].
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Returns: [B, P, H, W] with P = 3K for grey and 10K for colour, in the order of `logistic_mixture_nll`.
        Raises: TypeError for another dtype; ValueError for another shape or device, a value out of range, a missing
            label, or labels for an unconditional model.
        """
        return super().forward(x, labels)


class TwoStreamBlock(nn.Module):
    """A gated residual block for each stream; the second stream reads the first."""

    def __init__(self, features: int, shortcut: int, dropout: float, classes: int) -> None:
        super().__init__()
        down, right = STREAMS
        self.down = GatedResidualBlock(features, *down, shortcut, dropout, classes)
        self.right = GatedResidualBlock(features, *right, features + shortcut, dropout, classes)

    def forward(self, streams: Streams, skip: Streams | None, labels: Tensor | None) -> Streams:
        """Both streams after the block; `skip`: the streams of a skip connection, or None."""
        down, right = streams
        if skip is None:
            down = self.down(down, None, labels)
            return down, self.right(right, down, labels)
        down = self.down(down, skip[0], labels)
        return down, self.right(right, torch.cat((down, skip[1]), 1), labels)


def _each(layers: Iterable[nn.Module], streams: Streams) -> Streams:
    first, second = layers
    return first(streams[0]), second(streams[1])
