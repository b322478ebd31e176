"""Techniques of Improved Techniques for Training GANs (Salimans et al. 2016, arXiv 1606.03498) by their formulas.

Its others are elsewhere: `non_saturating_discriminator(..., smooth=0.1)` is one-sided label smoothing (3.4),
`genfast.nn.MinibatchDiscrimination` (3.2) and `genfast.nn.VirtualBatchNorm2d` (3.5) are layers.
"""

import torch
from torch import nn
from torch.nn import functional as F

from genfast._native.checks import wide


def feature_matching(real_features, fake_features):
    """`|mean_i f(x_i) - mean_i f(G(z_i))|^2`: the generator's loss of section 3.1, over the means of two batches.

    Args:
        real_features, fake_features: a layer of the discriminator for data and for generated images, float [B, ...];
            the batches may differ. The real ones are a target: no gradient goes to them.
    Returns: loss [], summed over features, in float32 for half types.
    Raises: TypeError for what is no float tensor; ValueError for an empty batch, or shapes that differ.
    """
    name = "feature_matching"
    real, fake = _rows(name, real_features=real_features, fake_features=fake_features)
    return (real.detach().mean(0) - fake.mean(0)).square().sum()


def semi_supervised_discriminator(labelled, labels, unlabelled, fake):
    """The discriminator's loss of section 5: of K classes and of "generated", the K + 1st, whose logit is 0.

    ::

        - E log p(y | x, y <= K)  - E log(1 - p(K + 1 | x))  - E log p(K + 1 | G(z))
          over labelled             over unlabelled            over fake

    With Z = sum_k exp(logit_k), D(x) = 1 - p(K + 1 | x) = Z / (Z + 1): `logits.logsumexp(1)` is the logit of real.

    Args:
        labelled: logits of images with labels, float [B, K].
        labels: int64 [B], in 0..K-1.
        unlabelled: logits of images without, [B', K].
        fake: logits of generated images, [B'', K].
    Returns: loss [], in float32 for half types.
    Raises: TypeError for another kind of tensor; ValueError for an empty batch, shapes that do not fit or labels out of
        range.
    """
    name = "semi_supervised_discriminator"
    labelled, unlabelled, fake = _rows(name, labelled=labelled, unlabelled=unlabelled, fake=fake)
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise TypeError(f"{name}: labels must be torch.int64; got {got}")
    if labels.shape != labelled.shape[:1]:
        raise ValueError(f"{name}: labels must have shape [{len(labelled)}]; got {tuple(labels.shape)}")
    # Reading a value would break a compiled graph in two, and wait for a GPU.
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= labelled.shape[1]:
            got = low if low < 0 else high
            raise ValueError(f"{name}: labels must lie in 0..{labelled.shape[1] - 1}; got {got}")
    supervised = F.cross_entropy(labelled, labels)
    real = F.softplus(-unlabelled.logsumexp(1)).mean()
    return supervised + real + F.softplus(fake.logsumexp(1)).mean()


class HistoricalAverage(nn.Module):
    """`|theta - 1/t sum_i theta[i]|^2`: the cost of section 3.3 that holds the parameters near their past.

    theta[1] is the value at construction; `update()` after every step of the optimizer adds the next. Nothing is read
    back from a GPU. The past is in the state dict, so a resumed run goes on with it; the parameters are not.

    Args:
        parameters: of one player, such as `generator.parameters()`. A copy of this module has copies of them: make one
            for each network.
    Raises: TypeError for what is no tensor; ValueError for none.
    Example: `average = HistoricalAverage(net.parameters()); loss = loss + 1e-3 * average()`
    """

    def __init__(self, parameters):
        super().__init__()
        # A tuple, so that they are no parameters of this module too.
        self._current = tuple(parameters)
        if not all(isinstance(parameter, torch.Tensor) for parameter in self._current):
            raise TypeError("HistoricalAverage: parameters must be tensors; got something else among them")
        if not self._current:
            raise ValueError("HistoricalAverage: expected at least one parameter; got none")
        for index, parameter in enumerate(self._current):
            mean = parameter.detach().to(wide(parameter.dtype), copy=True)
            self.register_buffer(f"mean_{index}", mean)
        self.register_buffer("steps", torch.ones((), dtype=torch.int64, device=self._current[0].device))

    def forward(self):
        """The cost [], to be added to the player's loss with a small weight."""
        parts = [(p.to(mean.dtype) - mean).square().sum() for p, mean in zip(self._current, self._means())]
        return torch.stack([part.to(parts[0]) for part in parts]).sum()

    @torch.no_grad()
    def update(self):
        """Take the present parameters into the average."""
        self.steps.add_(1)
        for parameter, mean in zip(self._current, self._means()):
            mean.add_((parameter.to(mean.dtype) - mean) / self.steps)

    def _means(self):
        return [getattr(self, f"mean_{index}") for index in range(len(self._current))]

    def extra_repr(self):
        return f"{len(self._current)} parameters"


def _rows(name, **tensors):
    """The tensors as [B, F], checked, in float32 at least."""
    first, rows = None, []
    for argument, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
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
