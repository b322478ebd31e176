"""Gated PixelCNN: an autoregressive model of two stacks of convolutions, optionally class-conditional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.nn import GatedStackLayer


@dataclass
class GatedPixelCNNConfig(AutoregressiveConfig):
    """Settings of a `GatedPixelCNN`."""

    hidden: int = option(32, "features (channels) of each stack (paper: 128 for CIFAR-10)", ge="channels", le=2**16)
    layers: int = option(12, "layers after the first layer", ge=0, le=1000)
    kernel: int = option(
        3, "odd kernel size k of these layers: k columns, k // 2 rows above; the first layer has 7", ge=3, le=255
    )
    head: int = option(
        64,
        "features of the skip connections and of the two hidden 1x1 layers before the output",
        ge="channels",
        le=2**16,
    )
    dropout: float = option(
        0.0, "probability that a feature map of a horizontal gate is dropped in training", ge=0, lt=1
    )
    classes: int = option(
        0, "number of labels that the model is conditional on; 0: unconditional", ge=0, le=2**20, from_data=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"GatedPixelCNNConfig: kernel must be odd; got {self.kernel}")


@register_model
class GatedPixelCNN(Autoregressive):
    """An autoregressive model of a vertical and a horizontal stack of gated convolutions.

    The vertical stack reads the rows above a pixel. The horizontal stack reads the vertical one, and the pixels at the
    left in the same row. Every layer has the gate `tanh(a) * sigmoid(b)`. The horizontal layers have residual
    connections, and skip connections to the output, whose sum passes ReLU and a 1x1 convolution (mask B) three times.
    With `classes`, each label has a bias on every gate: `p(x | label)`. Levels are scaled to [-1, 1]; the first layer
    pads the image by 0.

    There is no blind spot: only distance hides an earlier pixel. With r = kernel // 2, a pixel depends on
    `3 + r * layers` rows above and columns at the left, and on as many columns at the right in all rows above.

    Paper: Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328.
    Example: `GatedPixelCNN(GatedPixelCNNConfig(classes=10)).sample(1, labels=3)`
    """

    name = "gated-pixelcnn"
    config_type = GatedPixelCNNConfig
    config: GatedPixelCNNConfig

    def __init__(self, config: GatedPixelCNNConfig) -> None:
        super().__init__(config)
        colors, sizes = config.channels, (config.hidden, config.head)
        options: dict[str, Any] = {"colors": colors, "classes": config.classes, "dropout": config.dropout}
        self.input = GatedStackLayer(colors, *sizes, kernel_size=7, mask="A", **options)
        self.stacks = nn.ModuleList(
            GatedStackLayer(config.hidden, *sizes, kernel_size=config.kernel, **options) for _ in range(config.layers)
        )
        self.head = output_layers(config.head, config.head, config)

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        v, h, y = self.input(x, x, labels)
        for layer in self.stacks:
            v, h, skip = layer(v, h, labels)
            y = y + skip
        for layer in self.head:
            y = layer(F.relu(y))
        return y
