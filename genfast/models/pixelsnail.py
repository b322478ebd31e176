"""PixelSNAIL: an autoregressive model of gated convolutions and of attention to all pixels before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import inherited, option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.models.gated_pixelcnn import GatedPixelCNNConfig
from genfast.nn import GatedStackLayer

FAR = -1e4  # a score whose weight is 0


@dataclass
class PixelSNAILConfig(AutoregressiveConfig):
    """Settings of a `PixelSNAIL`."""

    hidden: int = option(32, "features (channels) of each stack (paper: 256 for CIFAR-10)", ge="channels", le=2**16)
    blocks: int = option(2, "blocks, each of gated layers and of attention (paper: 12)", ge=1, le=100)
    layers: int = option(2, "gated layers of a block (paper: 4)", ge=1, le=100)
    heads: int = option(2, "heads of attention", ge=1, le=2**10)
    depth: int = option(16, "features of a query and of a key of a head", ge=1, le=2**10)
    value: int = option(16, "features of a value of a head (paper: 128, of one head)", ge=1, le=2**12)
    head: int = inherited(GatedPixelCNNConfig, "head", 64)
    dropout: float = inherited(GatedPixelCNNConfig, "dropout", 0.0)
    classes: int = inherited(GatedPixelCNNConfig, "classes", 0)


class PixelAttention(nn.Module):
    """Attention of each pixel to all pixels before it: keys and values of levels, features and coordinates.

    `y_p = W sum_{t < p} softmax_t(q_p . k_t / sqrt(depth)) v_t + b`; the sum is 0 for the first pixel.

    Args: config, of the model.
    """

    def __init__(self, config: PixelSNAILConfig) -> None:
        super().__init__()
        self.config = config
        # The features of the first color alone do not depend on the pixel itself.
        self.seen = -(-config.hidden // config.channels)
        of_key = config.channels + config.hidden + 2
        self.query = nn.Conv2d(self.seen + 2, config.heads * config.depth, 1)
        self.key = nn.Conv2d(of_key, config.heads * config.depth, 1)
        self.value = nn.Conv2d(of_key, config.heads * config.value, 1)
        self.output = nn.Conv2d(config.heads * config.value, config.hidden + config.head, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, R, W], the first R rows of images; h [B, hidden, R, W] -> [B, hidden, R, W], [B, head, R, W]."""
        rows, columns = x.shape[2:]
        place = self._coordinates(x)
        key = torch.cat((x, h, place), 1)
        maps = self.query(torch.cat((h[:, : self.seen], place), 1)), self.key(key), self.value(key)
        q, k, v = (one.unflatten(1, (self.config.heads, -1)).flatten(3).transpose(2, 3) for one in maps)
        earlier = torch.ones(rows * columns, rows * columns, dtype=x.dtype, device=x.device).tril(-1)
        scores = (q @ k.transpose(2, 3) / math.sqrt(self.config.depth)).masked_fill(earlier == 0, FAR)
        y = (scores.softmax(-1) * earlier) @ v
        y = self.output(y.transpose(2, 3).flatten(1, 2).unflatten(2, (rows, columns)))
        residual, skip = y.split((self.config.hidden, self.config.head), 1)
        return residual, skip

    def _coordinates(self, x: Tensor) -> Tensor:
        """[B, 2, R, W]: row and column of each pixel, from -0.5 to 0.5 over an image."""
        batch, _, rows, columns = x.shape
        whole = self.config.height, self.config.width
        row, column = (
            torch.linspace(-0.5, 0.5, size, dtype=x.dtype, device=x.device)[:n] for size, n in zip(whole, x.shape[2:])
        )
        place = torch.stack((row[:, None].expand(rows, columns), column.expand(rows, columns)))
        return place.expand(batch, 2, rows, columns)


@register_model
class PixelSNAIL(Autoregressive):
    """An autoregressive model of blocks of gated convolutions, each followed by attention to all pixels before.

    The convolutions are the two stacks of a `GatedPixelCNN`. After every block the horizontal stack and the output add
    what attention finds in the pixels before: their levels, features and coordinates. So a pixel depends on all pixels
    before it, whatever the number of layers; there is no blind spot. Levels are scaled to [-1, 1].

    Paper: PixelSNAIL: An Improved Autoregressive Generative Model, arXiv 1712.09763.
    Example: `PixelSNAIL(PixelSNAILConfig(height=8, width=8)).sample(1)`
    """

    name = "pixelsnail"
    config_type = PixelSNAILConfig
    config: PixelSNAILConfig

    def __init__(self, config: PixelSNAILConfig) -> None:
        super().__init__(config)
        sizes = (config.hidden, config.head)
        options: dict[str, Any] = {"colors": config.channels, "classes": config.classes, "dropout": config.dropout}
        self.input = GatedStackLayer(config.channels, *sizes, kernel_size=7, mask="A", **options)
        self.stacks = nn.ModuleList(
            GatedStackLayer(config.hidden, *sizes, kernel_size=3, **options)
            for _ in range(config.blocks * config.layers)
        )
        self.attention = nn.ModuleList(PixelAttention(config) for _ in range(config.blocks))
        self.head = output_layers(config.head, config.head, config)

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        v, h, y = self.input(x, x, labels)
        for number, layer in enumerate(self.stacks, 1):
            v, h, skip = layer(v, h, labels)
            y = y + skip
            if number % self.config.layers == 0:
                residual, skip = self.attention[number // self.config.layers - 1](x, h)
                h, y = h + residual, y + skip
        for layer in self.head:
            y = layer(F.relu(y))
        return y
