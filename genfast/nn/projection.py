"""A discriminator's head: one logit of an image's features, and of its label."""

from torch import nn

from genfast._native.checks import wide
from genfast.nn.minibatch import MinibatchDiscrimination


class Projection(nn.Module):
    """A trunk's feature vectors as logits: a dense layer, and with classes the inner product with the label's vector.

    ::

        logit(x, label) = w . f(x) + b + v[label] . f(x)

    Args:
        trunk: module of images that gives feature vectors [B, `trunk.outputs`].
        classes: labels, 0 for none.
        kernels, dim: of a `MinibatchDiscrimination` between the trunk and the dense layer; 0 kernels for none.
    Shape: x [B, C, H, W], labels int64 [B] or None -> [B], float32 or wider.
    Paper: cGANs with Projection Discriminator, equation 3, arXiv 1802.05637.
    Example: `Projection(StridedTrunk(1, 28, 28), 10)(torch.randn(2, 1, 28, 28), torch.tensor([3, 7]))`
    """

    def __init__(self, trunk, classes=0, kernels=0, dim=5):
        super().__init__()
        self.trunk = trunk
        self.minibatch = MinibatchDiscrimination(trunk.outputs, kernels, dim) if kernels else nn.Identity()
        self.output = nn.Linear(trunk.outputs + kernels, 1)
        self.labels = nn.Linear(trunk.outputs, classes, bias=False) if classes else None
        nn.init.normal_(self.output.weight, std=trunk.outputs**-0.5)
        nn.init.zeros_(self.output.bias)
        if classes:
            nn.init.normal_(self.labels.weight, std=trunk.outputs**-0.5)

    def features(self, x):
        """What the trunk gives, [B, F]: what feature matching compares."""
        return self.trunk(x)

    def judge(self, features, labels=None):
        """Logits [B] of such features."""
        logits = self.output(self.minibatch(features))[:, 0]
        if self.labels is not None:
            logits = logits + self.labels(features).gather(1, labels[:, None])[:, 0]
        return logits.to(wide(logits.dtype))

    def forward(self, x, labels=None):
        return self.judge(self.features(x), labels)

    def extra_repr(self):
        return f"classes={0 if self.labels is None else self.labels.out_features}"
