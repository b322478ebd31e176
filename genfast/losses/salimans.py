"""Losses of Improved Techniques for Training GANs (Salimans et al. 2016, arXiv 1606.03498).

The paper's other techniques are elsewhere: `non_saturating_discriminator(..., smooth=0.1)` is one-sided label smoothing
(section 3.4), `genfast.nn.MinibatchDiscrimination` (3.2) and `genfast.nn.VirtualBatchNorm2d` (3.5) are layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._native.checks import check_range, wide


def feature_matching(real_features: Tensor, fake_features: Tensor) -> Tensor:
    """`|mean_i f(x_i) - mean_i f(G(z_i))|^2`: the generator's loss of section 3.1, of the mean features of two batches.

    Args:
        real_features, fake_features: features of real and of generated images in one layer of the discriminator, float
            [B, ...]; the batch sizes may differ. The real features are a target: no gradient flows to them.
    Returns: loss [], summed over features, in float32 for half types.
    Raises: TypeError for an argument that is not a float tensor; ValueError for an empty batch, or shapes that differ.
    Example: `feature_matching(torch.randn(8, 16), torch.randn(8, 16))`
    """
    name = "feature_matching"
    real, fake = _rows(name, real_features=real_features, fake_features=fake_features)
    return (real.detach().mean(0) - fake.mean(0)).square().sum()


def semi_supervised_discriminator(labelled: Tensor, labels: Tensor, unlabelled: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss of section 5: K classes, and class K + 1 for generated images, whose logit is 0.

    ::

        - E log p(y | x, y <= K)  - E log(1 - p(K + 1 | x))  - E log p(K + 1 | G(z))
          over labelled             over unlabelled            over fake

    D(x) = 1 - p(K + 1 | x) = Z / (Z + 1) with Z = sum_k exp(logit_k), so `logits.logsumexp(1)` is the logit of D(x).

    Args:
        labelled: logits of images with labels, float [B, K].
        labels: int64 [B], in 0..K-1.
        unlabelled: logits of images without labels, [B', K].
        fake: logits of generated images, [B'', K].
    Returns: loss [], in float32 for half types.
    Raises: TypeError for another kind of tensor; ValueError for an empty batch, shapes that do not fit, or labels out
        of range.
    """
    name = "semi_supervised_discriminator"
    labelled, unlabelled, fake = _rows(name, labelled=labelled, unlabelled=unlabelled, fake=fake)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name}: labels must be torch.int64; got {got}")
    if labels.shape != labelled.shape[:1]:
        raise ValueError(f"{name}: labels must have shape [{len(labelled)}]; got {tuple(labels.shape)}")
    last = labelled.shape[1] - 1
    check_range(name, "labels", labels, 0, last, f"lie in 0..{last}")
    supervised = F.cross_entropy(labelled, labels)
    real = F.softplus(-unlabelled.logsumexp(1)).mean()
    return supervised + real + F.softplus(fake.logsumexp(1)).mean()


class HistoricalAverage(nn.Module):
    """`|theta - 1/t sum_i theta[i]|^2`: the cost of section 3.3, which keeps the parameters near their past average.

    theta[1] is the value at construction. Call `update()` after every step of the optimizer; it adds the next value.
    Nothing is read back from a GPU. The average is in the state dict, so a resumed run continues with it; the
    parameters are not.

    Args:
        parameters: the parameters of one player, such as `generator.parameters()`. A deep copy of this module refers to
            copies of the parameters: make one module for each network.
    Raises: TypeError for an element that is not a tensor; ValueError if there are no parameters.
    Example: `average = HistoricalAverage(net.parameters()); loss = loss + 1e-3 * average()`
    """

    steps: Tensor

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        # In a tuple, so that they do not become parameters of this module.
        self._current = tuple(parameters)
        if not all(isinstance(parameter, Tensor) for parameter in self._current):
            raise TypeError("HistoricalAverage: parameters must be tensors; got something else among them")
        if not self._current:
            raise ValueError("HistoricalAverage: expected at least one parameter; got none")
        for index, parameter in enumerate(self._current):
            mean = parameter.detach().to(wide(parameter.dtype), copy=True)
            self.register_buffer(f"mean_{index}", mean)
        self.register_buffer("steps", torch.ones((), dtype=torch.int64, device=self._current[0].device))

    def forward(self) -> Tensor:
        """The cost []; add it to the player's loss with a small weight."""
        parts = [(p.to(mean.dtype) - mean).square().sum() for p, mean in zip(self._current, self._means())]
        return torch.stack([part.to(parts[0]) for part in parts]).sum()

    @torch.no_grad()
    def update(self) -> None:
        """Add the current parameters to the average."""
        self.steps.add_(1)
        for parameter, mean in zip(self._current, self._means()):
            mean.add_((parameter.to(mean.dtype) - mean) / self.steps)

    def _means(self) -> list[Tensor]:
        return [getattr(self, f"mean_{index}") for index in range(len(self._current))]

    def extra_repr(self) -> str:
        return f"{len(self._current)} parameters"


def _rows(name: str, **tensors: Tensor) -> list[Tensor]:
    """The checked tensors as [B, F], in float32 or wider."""
    first: torch.Size | None = None
    rows = []
    for argument, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name}: {argument} must be a float tensor; got {got}")
        if tensor.dim() < 2 or not tensor.numel():
            expected = "[B, ...] with at least one value"
            raise ValueError(f"{name}: {argument} must have shape {expected}; got {tuple(tensor.shape)}")
        first = tensor.shape[1:] if first is None else first
        if tensor.shape[1:] != first:
            expected = f"[B, {', '.join(map(str, first))}]"
            raise ValueError(f"{name}: {argument} must have shape {expected}; got {tuple(tensor.shape)}")
        rows.append(tensor.flatten(1).to(wide(tensor.dtype)))
    return rows
