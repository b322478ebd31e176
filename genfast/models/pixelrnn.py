"""PixelRNN: an image as a product of conditionals, pixel by pixel."""

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from genfast.models._pretrained import Pretrained
from genfast.nn import MaskedConv2d, ResidualDiagonalBlock
from genfast.sample import inverse_cdf, uniform


@dataclass
class PixelRNNConfig:
    """Sizes of a `PixelRNN`.

    Attributes:
        channels: 1 for grey, 3 for R -> G -> B.
        height, width: of the images, in pixels.
        levels: values of a channel, 2 to 256.
        hidden: units h of each direction of a Diagonal BiLSTM; the features are 2h.
        layers: residual Diagonal BiLSTM blocks.
        head: features of the two 1x1 layers before the output.
        virtual_column: run on one more column past the right edge, which shows the next row the last pixel.
        dropout: probability that a feature map leaves a residual branch in training.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    levels: int = 2
    hidden: int = 16
    layers: int = 7
    head: int = 32
    virtual_column: bool = False
    dropout: float = 0.0

    def __post_init__(self):
        least = {"channels": 1, "height": 1, "width": 1, "levels": 2, "layers": 0}
        least |= {"hidden": self.channels, "head": self.channels}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"PixelRNNConfig: {name} must be an int; got {value!r}")
            if value < low:
                raise ValueError(f"PixelRNNConfig: {name} must be at least {low}; got {value}")
        if self.levels > 256:
            raise ValueError(f"PixelRNNConfig: levels must be at most 256; got {self.levels}")
        if not isinstance(self.virtual_column, bool):
            raise TypeError(f"PixelRNNConfig: virtual_column must be a bool; got {self.virtual_column!r}")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"PixelRNNConfig: dropout must be a number in [0, 1); got {self.dropout!r}")


class PixelRNN(Pretrained, nn.Module):
    """`p(x) = prod_i p(x_i | x_<i)`, raster order, R -> G -> B inside a pixel, by Diagonal BiLSTMs.

    7x7 convolution (mask A), `layers` residual blocks, two layers of ReLU and 1x1 convolution (mask B), and
    ReLU and 1x1 convolution to the logits. Levels are scaled to [-1, 1]; what lies outside the image is 0 to
    the convolution and learned to the LSTMs.

    One blind spot is the paper's: the last pixel of a row (of a colour image: its last colour) is invisible
    to the next row, but for the last four columns, which the 7x7 convolution serves. Only a feature past the
    right edge could hand it to the right-to-left map. `virtual_column=True` adds that feature.

    Paper: Pixel Recurrent Neural Networks, table 1, arXiv 1601.06759.
    Example: `PixelRNN(PixelRNNConfig(levels=2)).log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "pixelrnn"
    config_type = PixelRNNConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        colors, features = config.channels, 2 * config.hidden
        outputs = colors * (1 if config.levels == 2 else config.levels)
        self.input = MaskedConv2d(colors, features, 7, "A", colors)
        self.blocks = nn.ModuleList(
            ResidualDiagonalBlock(config.hidden, colors, config.dropout) for _ in range(config.layers)
        )
        sizes = (features, config.head, config.head, outputs)
        self.head = nn.ModuleList(MaskedConv2d(n, m, 1, "B", colors) for n, m in pairwise(sizes))

    def forward(self, x):
        """Logits of every conditional.

        Args:
            x: uint8 [B, C, H, W], levels.
        Returns: [B, C, L', H, W]; L' is 1 for 2 levels (the logit of level 1), else the number of levels.
        Raises: TypeError for another dtype; ValueError for another shape or device or a level out of range.
        """
        self._check(x)
        return self._logits(x)

    def log_prob(self, x):
        """Log-probability of each image in nats: `x` uint8 [B, C, H, W] -> [B]. Raises as `forward`."""
        logits = self.forward(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).permute(0, 3, 4, 1, 2)
        target = x.permute(0, 2, 3, 1)
        if self.config.levels == 2:
            target = target.to(logits.dtype)
            nats = F.binary_cross_entropy_with_logits(logits[..., 0], target, reduction="none")
        else:
            nats = F.cross_entropy(logits.flatten(0, 3), target.flatten().long(), reduction="none")
        return -nats.view(target.shape).sum(dim=(1, 2, 3))

    @torch.no_grad()
    def sample(self, n, *, seed=0, temperature=1.0, first=0):
        """Images drawn pixel by pixel: uint8 [n, C, H, W].

        Sample number i takes its random numbers from (seed, i) alone, so that `sample(2, first=5)` is
        `sample(7)[5:]` (but for a draw within rounding of a boundary between two levels). Each pixel runs the
        network on the rows so far: slow, and the judge of anything faster.

        Args:
            n: number of images.
            seed: int in [0, 2**64).
            temperature: divides the logits; below 1 the samples keep to likelier values.
            first: index of the first image.
        Raises: ValueError for a negative n or first, a seed out of range, or a temperature not above 0.
        """
        c = self.config
        if n < 0 or first < 0:
            raise ValueError(f"sample: n and first must not be negative; got n={n}, first={first}")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"sample: temperature must be positive and finite; got {temperature}")
        images = np.arange(first, first + n, dtype=np.uint64)[:, None]
        u = torch.from_numpy(uniform(seed, images, np.arange(c.height * c.width * c.channels)))
        u = u.to(self.input.weight.device).view(n, c.height, c.width, c.channels)
        x = u.new_zeros(n, c.channels, c.height, c.width, dtype=torch.uint8)
        training = self.training
        self.eval()
        for i, j, k in product(range(c.height), range(c.width), range(c.channels)):
            logits = self._logits(x[:, :, : i + 1])[:, k, :, i, j]
            x[:, k, i, j] = inverse_cdf(logits.double() / temperature, u[:, i, j, k])
        self.train(training)
        return x

    def _logits(self, x):
        """Any height: a row never depends on the rows below."""
        width, levels = x.shape[3], self.config.levels
        x = x.to(self.input.weight.dtype) * (2 / (levels - 1)) - 1
        if self.config.virtual_column:
            x = F.pad(x, (0, 1))
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        for layer in self.head:
            x = layer(F.relu(x))
        return x[..., :width].unflatten(1, (self.config.channels, -1))

    def _check(self, x):
        c = self.config
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"PixelRNN: x must be a torch.Tensor; got {type(x).__name__}")
        if x.dtype != torch.uint8:
            raise TypeError(f"PixelRNN: x must hold levels as torch.uint8; got {x.dtype}")
        if x.dim() != 4 or x.shape[1:] != (c.channels, c.height, c.width):
            expected = f"[B, C, H, W] with C={c.channels}, H={c.height}, W={c.width}"
            raise ValueError(f"PixelRNN: x must have shape {expected}; got {tuple(x.shape)}")
        if x.device != (device := self.input.weight.device):
            raise ValueError(f"PixelRNN: x must be on the model's device {device}; got {x.device}")
        if torch.compiler.is_compiling():
            return  # reading a value would break the compiled graph in two
        if c.levels < 256 and x.numel() and (top := int(x.max())) >= c.levels:
            raise ValueError(f"PixelRNN: x must lie in 0..{c.levels - 1}; got {top}")

    def extra_repr(self):
        return f"{self.config}"
