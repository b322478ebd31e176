"""Gated PixelCNN: an image, of a class if asked, as a product of conditionals, by two stacks of convolutions."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.nn import GatedStackLayer


@dataclass
class GatedPixelCNNConfig(AutoregressiveConfig):
    """Sizes of a `GatedPixelCNN`."""

    hidden: int = option(32, "features of each stack (the paper's CIFAR-10 model has 128)", ge="channels")
    layers: int = option(12, "layers after the first, whose kernel is 7", ge=0)
    kernel: int = option(3, "size k of their kernels, odd: k columns, k // 2 rows above", ge=3)
    head: int = option(64, "features of the short-cuts and of the two 1x1 layers before the output", ge="channels")
    dropout: float = option(
        0.0, "probability that a feature map is dropped behind a horizontal gate in training", ge=0, lt=1
    )
    classes: int = option(0, "number of labels that the model is conditional on, 0 for none", ge=0, from_data=True)

    def __post_init__(self):
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"GatedPixelCNNConfig: kernel must be odd; got {self.kernel}")


@register_model
class GatedPixelCNN(Autoregressive):
    """`p(x) = prod_i p(x_i | x_<i)`, raster order, R -> G -> B inside a pixel, by a vertical and a horizontal stack.

    The vertical stack holds the rows above a pixel, the horizontal one, which reads it, also what lies to the
    left. Every layer is a gate `tanh(a) * sigmoid(b)`; the horizontal stack has residual connections, and of
    each layer a short-cut to the output: their sum passes ReLU and 1x1 convolution (mask B) three times. With
    `classes` every gate of every layer has a bias for each label: `p(x | label)`. Levels are scaled to
    [-1, 1]; what lies outside the image is 0 to the first layer.

    No blind spot: only distance hides a pixel from a later one. With r = kernel // 2, a pixel sees
    `3 + r * layers` rows up and columns left, and as many columns right in all the rows above.

    Paper: Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328.
    Example: `GatedPixelCNN(GatedPixelCNNConfig(classes=10)).sample(1, labels=3)`
    """

    name = "gated-pixelcnn"
    config_type = GatedPixelCNNConfig

    def __init__(self, config):
        super().__init__(config)
        colors, options = config.channels, {"colors": config.channels, "classes": config.classes}
        options |= {"dropout": config.dropout}
        sizes = (config.hidden, config.head)
        self.input = GatedStackLayer(colors, *sizes, kernel_size=7, mask="A", **options)
        self.stacks = nn.ModuleList(
            GatedStackLayer(config.hidden, *sizes, kernel_size=config.kernel, **options) for _ in range(config.layers)
        )
        self.head = output_layers(config.head, config)

    def network(self, x, labels):
        v, h, y = self.input(x, x, labels)
        for layer in self.stacks:
            v, h, skip = layer(v, h, labels)
            y = y + skip
        for layer in self.head:
            y = layer(F.relu(y))
        return y
