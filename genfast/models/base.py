"""What all models of images share: the sizes of the images, and the checks of images and labels."""

from dataclasses import dataclass

import torch
from torch import nn

from genfast.models._pretrained import Pretrained

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Images are decoded in blocks of so many, each at the place of its number: matrix products of another size round
# otherwise, and a level within rounding of its boundary would depend on how the images were split.
BLOCK = 64


@dataclass
class ImageConfig:
    """Sizes of the images of an `ImageModel`.

    Attributes:
        channels: 1 for grey, 3 for R, G, B.
        height, width: of the images, in pixels.
        levels: values of a channel, 2 to 256.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    levels: int = 2

    def least(self):
        """The smallest value of every integer field."""
        return {"channels": 1, "height": 1, "width": 1, "levels": 2}

    def __post_init__(self):
        name = type(self).__name__
        for field, low in self.least().items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}: {field} must be an int; got {value!r}")
            if value < low:
                raise ValueError(f"{name}: {field} must be at least {low}; got {value}")
        if self.levels > 256:
            raise ValueError(f"{name}: levels must be at most 256; got {self.levels}")
        dropout = getattr(self, "dropout", 0.0)
        if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ValueError(f"{name}: dropout must be a number in [0, 1); got {dropout!r}")


class ImageModel(Pretrained, nn.Module):
    """A model of images of the sizes in its `config`; with a field `classes` above 0 there, of images given labels.

    A subclass sets `name` and `config_type`, and defines what training and evaluation use, each [B] nats per image:
    `loss(x, labels)`, what training minimises, and `bound(x, labels, seed=0, first=0)`, the log-likelihood, or a lower
    bound on it that is the same for the same seed and `first`, the number of the first image of the batch.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config

    def _check_images(self, x, size=None):
        """`size`: the height and width that x must have, those of the config if not given."""
        c, model = self.config, type(self).__name__
        height, width = size or (c.height, c.width)
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{model}: x must be a torch.Tensor; got {type(x).__name__}")
        if x.dtype != torch.uint8:
            raise TypeError(f"{model}: x must hold levels as torch.uint8; got {x.dtype}")
        if x.dim() != 4 or x.shape[1:] != (c.channels, height, width):
            expected = f"[B, C, H, W] with C={c.channels}, H={height}, W={width}"
            raise ValueError(f"{model}: x must have shape {expected}; got {tuple(x.shape)}")
        if x.device != (device := next(self.parameters()).device):
            raise ValueError(f"{model}: x must be on the model's device {device}; got {x.device}")
        if torch.compiler.is_compiling():
            return  # reading a value would break the compiled graph in two
        if c.levels < 256 and x.numel() and (top := int(x.max())) >= c.levels:
            raise ValueError(f"{model}: x must lie in 0..{c.levels - 1}; got {top}")

    def _check_labels(self, labels, n):
        """The labels as int64 [n]; None for an unconditional model."""
        model, classes = type(self).__name__, getattr(self.config, "classes", 0)
        if not classes:
            if labels is not None:
                raise ValueError(f"{model}: labels must be None for an unconditional model; got {kind_of(labels)}")
            return None
        expected = f"integers [B] with B={n}"
        if labels is None:
            raise ValueError(f"{model}: labels must be {expected} for a model of {classes} classes; got None")
        if not isinstance(labels, torch.Tensor) or labels.dtype not in INTEGERS:
            raise TypeError(f"{model}: labels must be {expected}; got {kind_of(labels)}")
        if labels.shape != (n,):
            raise ValueError(f"{model}: labels must have shape [B] with B={n}; got {tuple(labels.shape)}")
        if labels.device != (device := next(self.parameters()).device):
            raise ValueError(f"{model}: labels must be on the model's device {device}; got {labels.device}")
        if n and not torch.compiler.is_compiling():
            self._check_range(*(int(value) for value in labels.aminmax()))
        return labels.long()

    def _check_range(self, low, high):
        if low < 0 or high >= self.config.classes:
            expected = f"{type(self).__name__}: labels must lie in 0..{self.config.classes - 1}"
            raise ValueError(f"{expected}; got {low if low < 0 else high}")

    def extra_repr(self):
        return f"{self.config}"


def kind_of(value):
    return str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
