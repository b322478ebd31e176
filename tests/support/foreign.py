"""A model as others write it."""

from torch import nn

from genfast.nn import MaskedConv2d


class Foreign(nn.Module):
    """A masked convolution as others write it, with the output in one of several orders."""

    def __init__(self, channels, features, order):
        super().__init__()
        self.order = order
        self.layer = MaskedConv2d(channels, features, 3, "A", 1)

    def forward(self, x):
        y = self.layer(x)
        return y.unflatten(1, self.order) if self.order else y
