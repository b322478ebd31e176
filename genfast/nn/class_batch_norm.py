"""Batch normalisation whose scale and shift may depend on the label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._native.derivatives import within_transform
from genfast._state import Stateful, recomputed


class ClassBatchNorm2d(Stateful, nn.BatchNorm2d):
    """Batch normalisation with a scale and a shift for each class; without classes, `torch.nn.BatchNorm2d`.

    Unlike there, the running statistics stay float32 in a module of a half type; a second forward pass by
    `torch.utils.checkpoint` and passes within `torch.func` transforms leave them alone; and several passes before one
    backward pass do not disturb it, also under `DistributedDataParallel`. With classes `weight` and `bias` are the
    tables of all classes, [classes, F].

    Args:
        features: F.
        classes: number of labels, each with its own scale and shift; 0: unconditional.
    Shape: x [B, F, H, W], labels int64 [B] (or None without classes) -> [B, F, H, W].
    Paper: A Learned Representation for Artistic Style, equation 5, arXiv 1610.07629; in a generator: cGANs with
        Projection Discriminator, section 5, arXiv 1802.05637.
    Example: `ClassBatchNorm2d(8, 10)(torch.randn(2, 8, 4, 4), torch.tensor([3, 7]))`
    """

    running = ("running_mean", "running_var")
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, classes: int = 0) -> None:
        super().__init__(features, affine=not classes)
        self.classes = classes
        if classes:
            self.scale, self.shift = nn.Embedding(classes, features), nn.Embedding(classes, features)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self._check_input_dim(x)
        # Copies: a later pass changes the buffers before the backward pass of this one.
        mean, var = self.running_mean.clone(), self.running_var.clone()
        weight = bias = None
        if not self.classes:
            weight, bias = self.weight.to(mean.dtype), self.bias.to(mean.dtype)
        changes = self.training and not recomputed() and not within_transform()
        if changes:
            self.num_batches_tracked.add_(1)
        # Without a momentum, the mean over all batches; `GAN.settle` takes it.
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        y = F.batch_norm(x, mean, var, weight, bias, self.training, momentum, self.eps)
        if changes:
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
        if not self.classes:
            return y
        scale, shift = (table(labels)[:, :, None, None].to(y.dtype) for table in (self.scale, self.shift))
        return torch.addcmul(shift, y, scale)

    def __getattr__(self, name: str) -> Any:
        # For initialisers that go by the name of the class.
        if name in ("weight", "bias") and self.__dict__.get("classes"):
            return (self.scale if name == "weight" else self.shift).weight
        return super().__getattr__(name)

    def extra_repr(self) -> str:
        return f"{self.num_features}, classes={self.classes}"
