"""Virtual batch normalisation: an image is normalised by a fixed reference batch and itself, not by its batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genfast._native.checks import wide


class VirtualBatchNorm2d(nn.Module):
    """Normalises every image by the statistics of a reference batch and of the image itself.

    With n images r in the reference batch, and means over all pixels of an image::

        mean(x)   = (sum over r of mean(r)   + mean(x))   / (n + 1)
        square(x) = (sum over r of mean(r^2) + mean(x^2)) / (n + 1)
        y = (x - mean(x)) / sqrt(square(x) - mean(x)^2 + epsilon) * weight + bias

    The reference batch itself is normalised by its own statistics. `ReferenceBatch` holds the reference batch and
    passes it through the network in front of every batch, so the statistics are always those of the current weights,
    and gradients flow through them.

    Args:
        features: C.
        epsilon: above 0.
    Shape: x [n + B, C, H, W], the reference batch first -> the same.
    Raises: RuntimeError if the layer is not inside a `ReferenceBatch`.
    Paper: Improved Techniques for Training GANs, section 3.5, arXiv 1606.03498.
    Example: `ReferenceBatch(VirtualBatchNorm2d(3), torch.randn(16, 3, 8, 8))(torch.randn(1, 3, 8, 8))`
    """

    def __init__(self, features: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        if not isinstance(features, int) or isinstance(features, bool) or features < 1:
            raise ValueError(f"VirtualBatchNorm2d: features must be an int of at least 1; got {features!r}")
        if not epsilon > 0:
            raise ValueError(f"VirtualBatchNorm2d: epsilon must be above 0; got {epsilon!r}")
        self.features, self.epsilon = features, epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        # Number of images in the reference batch, set by `ReferenceBatch`.
        self.reference = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.reference:
            raise RuntimeError("VirtualBatchNorm2d: expected a reference batch; wrap the network in ReferenceBatch")
        n = self.reference
        if x.dim() != 4 or x.shape[1] != self.features or x.shape[0] < n:
            expected = f"[n + B, C, H, W] with n={n}, C={self.features}"
            raise ValueError(f"VirtualBatchNorm2d: x must have shape {expected}; got {tuple(x.shape)}")
        variance, mean = torch.var_mean(x.to(wide(x.dtype)), (2, 3), correction=0, keepdim=True)
        # The variance of a union is the mean variance of its parts plus the variance of their means. The difference
        # square(x) - mean(x)^2 would lose the digits that both have in common.
        centre = mean[:n].mean(0, keepdim=True)
        spread = (variance[:n] + (mean[:n] - centre).square()).mean(0, keepdim=True)
        middle = torch.lerp(centre, mean[n:], 1 / (n + 1))
        spreads = (n * (spread + (centre - middle).square()) + variance[n:] + (mean[n:] - middle).square()) / (n + 1)
        means = torch.cat((centre.expand(n, -1, -1, -1), middle))
        deviations = (torch.cat((spread.expand(n, -1, -1, -1), spreads)) + self.epsilon).sqrt()
        scale, bias = (part.view(-1, 1, 1) for part in (self.weight, self.bias))
        return ((x - means) / deviations * scale + bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.features}, epsilon={self.epsilon}, reference={self.reference or None}"


class ReferenceBatch(nn.Module):
    """A network with `VirtualBatchNorm2d` layers, and their fixed reference batch.

    Every pass prepends the reference batch to the inputs and removes its outputs, so the output for image i depends on
    image i and the reference batch alone. The reference batch is part of the state dict.

    Args:
        network: the module. It is modified; call it through the wrapper only. The first dimension of its inputs and of
            its output (a tensor, or a tuple of tensors) is the batch.
        reference: the reference batch: one tensor [n, ...] for each input of the network, n at least 2.
    Shape: inputs [B, ...], one for each tensor of `reference`, B at least 1 -> the network's output, [B, ...].
    Raises: ValueError for a reference batch of one image, tensors of several lengths, a network without such layers,
        and inputs that do not match the reference batch; TypeError for inputs of another kind of dtype.
    Paper: Improved Techniques for Training GANs, section 3.5, arXiv 1606.03498.
    Example: `ReferenceBatch(VirtualBatchNorm2d(3), torch.randn(16, 3, 8, 8))(torch.randn(1, 3, 8, 8))`
    """

    def __init__(self, network: nn.Module, *reference: Tensor) -> None:
        super().__init__()
        if not reference or not all(isinstance(part, Tensor) and part.dim() for part in reference):
            raise ValueError(
                "ReferenceBatch: reference must be a tensor [n, ...] for each input of the network; got none"
            )
        sizes = [len(part) for part in reference]
        if len(set(sizes)) > 1 or sizes[0] < 2:
            got = ", ".join(map(str, sizes))
            raise ValueError(f"ReferenceBatch: reference must hold at least 2 images in every tensor; got {got}")
        layers = [layer for layer in network.modules() if isinstance(layer, VirtualBatchNorm2d)]
        if not layers:
            raise ValueError("ReferenceBatch: network must have a VirtualBatchNorm2d layer; got none")
        for layer in layers:
            layer.reference = sizes[0]
        self.network, self.size = network, sizes[0]
        self._names = [f"reference_{index}" for index in range(len(reference))]
        for name, part in zip(self._names, reference):
            self.register_buffer(name, part.detach().clone())

    def forward(self, *inputs: Tensor) -> Any:
        reference = [getattr(self, name) for name in self._names]
        if len(inputs) != len(reference):
            raise ValueError(f"ReferenceBatch: expected {len(reference)} inputs; got {len(inputs)}")
        for part, x in zip(reference, inputs):
            if x.shape[1:] != part.shape[1:]:
                expected = f"[B, {', '.join(map(str, part.shape[1:]))}]"
                raise ValueError(f"ReferenceBatch: an input must have shape {expected}; got {tuple(x.shape)}")
            if x.dtype != part.dtype and not (x.is_floating_point() and part.is_floating_point()):
                raise TypeError(f"ReferenceBatch: an input must have dtype {part.dtype}; got {x.dtype}")
        output = self.network(*(torch.cat((part.to(x.dtype), x)) for part, x in zip(reference, inputs)))
        return tuple(part[self.size :] for part in output) if isinstance(output, tuple) else output[self.size :]

    def extra_repr(self) -> str:
        return f"reference={self.size}"
