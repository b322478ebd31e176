"""Batch normalisation whose scale and shift may depend on the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with a scale and a shift for each class; without classes, `torch.nn.BatchNorm2d`.

    Args:
        features: F.
        classes: number of labels, each with its own scale and shift; 0: unconditional.
    Shape: x [B, F, H, W], labels int64 [B] (or None without classes) -> [B, F, H, W].
    Paper: A Learned Representation for Artistic Style, equation 5, arXiv 1610.07629; in a generator: cGANs with
        Projection Discriminator, section 5, arXiv 1802.05637.
    Example: `ClassBatchNorm2d(8, 10)(torch.randn(2, 8, 4, 4), torch.tensor([3, 7]))`
    """

    def __init__(self, features: int, classes: int = 0) -> None:
        super().__init__(features, affine=not classes)
        self.classes = classes
        if classes:
            self.scale, self.shift = nn.Embedding(classes, features), nn.Embedding(classes, features)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        if not self.classes:
            return y
        scale, shift = (table(labels)[:, :, None, None].to(y.dtype) for table in (self.scale, self.shift))
        return torch.addcmul(shift, y, scale)

    def extra_repr(self) -> str:
        return f"{self.num_features}, classes={self.classes}"
