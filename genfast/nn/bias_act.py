"""Bias and activation as one layer."""

import torch
from torch import nn

from genfast import ops


class BiasAct(nn.Module):
    """A learned bias for every channel, an activation, a gain and a limit, in one pass over the features.

    ::

        y = clamp(activation(x + bias[c]) * gain, -limit, limit)

    The layer before it needs no bias of its own: `nn.Conv2d(..., bias=False)`.

    Args:
        features: C; the bias begins at 0.
        activation: linear, relu, leaky_relu, tanh, sigmoid or swish.
        slope: of leaky_relu below 0.
        gain: factor after the activation; sqrt(2) keeps the variance through a (leaky) relu.
        limit: above 0, or None for no limit.
    Shape: x [B, C] or [B, C, ...] -> the same, in the dtype of x.
    Paper: A Style-Based Generator Architecture for GANs, arXiv 1812.04948; swish: arXiv 1710.05941.
    Example: `BiasAct(16, "leaky_relu", gain=2**0.5)(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, features, activation="leaky_relu", *, slope=0.2, gain=1.0, limit=None):
        super().__init__()
        self.activation, self.slope, self.gain, self.limit = activation, slope, gain, limit
        self.bias = nn.Parameter(torch.zeros(features))
        # Its errors are those of the op, now and not in the first step.
        ops.bias_act(torch.zeros(1, features), None, activation, slope, gain, limit)

    def forward(self, x):
        return ops.bias_act(x, self.bias.to(x.dtype), self.activation, self.slope, self.gain, self.limit)

    def extra_repr(self):
        return f"{len(self.bias)}, {self.activation!r}, slope={self.slope}, gain={self.gain}, limit={self.limit}"
