"""The head of a discriminator: a logit from the features and the label of an image."""

from __future__ import annotations

from torch import Tensor, nn

from genfast._native.checks import wide
from genfast.nn.minibatch import MinibatchDiscrimination


class Projection(nn.Module):
    """A projection discriminator: a dense layer on the features of a trunk, plus a projection on the label's embedding.

    ::

        logit(x, label) = w . f(x) + b + v[label] . f(x)

    Args:
        trunk: module that maps images to feature vectors [B, `trunk.outputs`].
        classes: number of labels; 0: unconditional.
        kernels, dim: arguments of a `MinibatchDiscrimination` between the trunk and the dense layer; 0 kernels: none.
    Shape: x [B, C, H, W], labels int64 [B] or None -> [B], float32 or wider.
    Paper: cGANs with Projection Discriminator, equation 3, arXiv 1802.05637.
    Example: `Projection(StridedTrunk(1, 28, 28), 10)(torch.randn(2, 1, 28, 28), torch.tensor([3, 7]))`
    """

    def __init__(self, trunk: nn.Module, classes: int = 0, kernels: int = 0, dim: int = 5) -> None:
        super().__init__()
        self.trunk = trunk
        outputs: int = trunk.outputs  # type: ignore[assignment]  # nn.Module has no such attribute
        self.minibatch = MinibatchDiscrimination(outputs, kernels, dim) if kernels else nn.Identity()
        self.output = nn.Linear(outputs + kernels, 1)
        self.labels = nn.Linear(outputs, classes, bias=False) if classes else None
        nn.init.normal_(self.output.weight, std=outputs**-0.5)
        nn.init.zeros_(self.output.bias)
        if self.labels is not None:
            nn.init.normal_(self.labels.weight, std=outputs**-0.5)

    def features(self, x: Tensor) -> Tensor:
        """The features of the trunk, float [B, F], as feature matching compares them."""
        return self.trunk(x)

    def logits(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits [B], float32 or wider, of the `features` [B, F] of images."""
        logits = self.output(self.minibatch(features))[:, 0]
        if self.labels is not None:
            logits = logits + self.labels(features).gather(1, labels[:, None])[:, 0]  # type: ignore[index]
        return logits.to(wide(logits.dtype))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.logits(self.features(x), labels)

    def extra_repr(self) -> str:
        return f"classes={0 if self.labels is None else self.labels.out_features}"
