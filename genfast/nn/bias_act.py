"""Bias and activation as one layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genfast import ops


class BiasAct(nn.Module):
    """Adds a learned bias to every channel, applies an activation, a gain and a limit, in one pass over the features.

    ::

        y = clamp(activation(x + bias[c]) * gain, -limit, limit)

    The preceding layer needs no bias: `nn.Conv2d(..., bias=False)`.

    Args:
        features: C; the bias is initialised to 0.
        activation: linear, relu, leaky_relu, tanh, sigmoid or swish.
        slope: slope of leaky_relu for negative values.
        gain: factor after the activation; sqrt(2) preserves the variance through a (leaky) relu.
        limit: largest absolute value of the output, above 0; None: no limit.
    Shape: x [B, C] or [B, C, ...] -> the same, in the dtype of x.
    Paper: A Style-Based Generator Architecture for GANs, arXiv 1812.04948; swish: arXiv 1710.05941.
    Example: `BiasAct(16, "leaky_relu", gain=2**0.5)(torch.randn(8, 16, 4, 4))`
    """

    def __init__(
        self,
        features: int,
        activation: str = "leaky_relu",
        *,
        slope: float = 0.2,
        gain: float = 1.0,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.slope, self.gain, self.limit = activation, slope, gain, limit
        self.bias = nn.Parameter(torch.zeros(features))
        # The op checks the arguments: an error is raised here, not in the first forward pass.
        ops.bias_act(torch.zeros(1, features, dtype=torch.float32, device="cpu"), None, activation, slope, gain, limit)

    def forward(self, x: Tensor) -> Tensor:
        return ops.bias_act(x, self.bias.to(x.dtype), self.activation, self.slope, self.gain, self.limit)

    def extra_repr(self) -> str:
        return f"{len(self.bias)}, {self.activation!r}, slope={self.slope}, gain={self.gain}, limit={self.limit}"
