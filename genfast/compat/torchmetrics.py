"""torchmetrics' FID and KID of features of a given network, on `genfast.metrics`.

They are plain modules, without the rest of torchmetrics: in a `MetricCollection` keep its own classes, with
`genfast.metrics.adapters.FeatureModule` as their network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genfast._state import rank
from genfast.metrics import frechet_distance, mmd

__all__ = ["FrechetInceptionDistance", "KernelInceptionDistance"]


class _OfFeatures(nn.Module):
    """Features of real and of generated images, as `update` saw them."""

    def __init__(self, feature: nn.Module, reset_real_features: bool, normalize: bool) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(feature, nn.Module):
            raise TypeError(f"{name}: feature must be a module, as no weights are downloaded; got {feature!r}")
        if normalize:
            raise ValueError(f"{name}: normalize must be False, as only Inception reads it; got True")
        self.inception, self.reset_real_features = feature, reset_real_features
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []

    @torch.no_grad()
    def update(self, imgs: Tensor, real: bool) -> None:
        """Add the features of images, which the network takes as they are."""
        features = self.inception(imgs)
        (self.real if real else self.fake).append(features if features.ndim == 2 else features[None])

    def reset(self) -> None:
        """Forget the generated images, and the real ones too if reset_real_features."""
        self.fake.clear()
        if self.reset_real_features:
            self.real.clear()

    def sets(self) -> tuple[Tensor, Tensor]:
        """All features, of real images and of generated ones."""
        name = type(self).__name__
        if (ranks := rank()[1]) > 1:
            raise RuntimeError(f"{name}: expected one process, as it gathers nothing from others; got {ranks}")
        if not self.real or not self.fake:
            raise RuntimeError(f"{name}: compute needs an update with real and one with generated images")
        return torch.cat(self.real), torch.cat(self.fake)


class FrechetInceptionDistance(_OfFeatures):
    """FID: `genfast.metrics.frechet_distance` of the features of all images.

    Args:
        feature: the network: images -> [N, D]. A number stands for Inception in torchmetrics, and is refused.
        reset_real_features: whether `reset` forgets the real images.
        normalize: False.
    Paper: GANs Trained by a Two Time-Scale Update Rule, Heusel et al. 2017, arXiv 1706.08500.
    """

    def __init__(self, feature: nn.Module, reset_real_features: bool = True, normalize: bool = False) -> None:
        super().__init__(feature, reset_real_features, normalize)

    def compute(self) -> Tensor:
        """The distance, [], in the dtype of the features. Raises: RuntimeError without images of both kinds."""
        real, fake = self.sets()
        return torch.tensor(frechet_distance(real.double(), fake.double()), dtype=real.dtype, device=real.device)


class KernelInceptionDistance(_OfFeatures):
    """KID: the mean of `genfast.metrics.mmd` over random subsets, which torch's generator draws as in torchmetrics.

    Args:
        feature: the network: images -> [N, D]. A number stands for Inception in torchmetrics, and is refused.
        subsets: how many, at least 1.
        subset_size: at least 2, at most the number of images.
        degree, gamma, coef: of the kernel (gamma x.y + coef)^degree; gamma: 1 / D if None.
        reset_real_features: whether `reset` forgets the real images.
        normalize: False.
    Paper: Demystifying MMD GANs, Binkowski et al. 2018, arXiv 1801.01401.
    """

    def __init__(
        self,
        feature: nn.Module,
        subsets: int = 100,
        subset_size: int = 1000,
        degree: int = 3,
        gamma: float | None = None,
        coef: float = 1.0,
        reset_real_features: bool = True,
        normalize: bool = False,
    ) -> None:
        super().__init__(feature, reset_real_features, normalize)
        if subsets < 1 or subset_size < 2:
            expected = "subsets must be at least 1 and subset_size at least 2"
            raise ValueError(f"KernelInceptionDistance: {expected}; got {subsets} and {subset_size}")
        self.subsets, self.subset_size = subsets, subset_size
        self.kernel: dict[str, Any] = {"gamma": gamma, "coef0": coef, "degree": degree}

    def compute(self) -> tuple[Tensor, Tensor]:
        """(mean, standard deviation) over the subsets, [] each. Raises: ValueError for fewer images than a subset."""
        sets = self.sets()
        if min(map(len, sets)) < self.subset_size:
            got = f"{self.subset_size} of {len(sets[0])} real and {len(sets[1])} generated"
            raise ValueError(f"KernelInceptionDistance: subset_size must be at most the number of images; got {got}")
        values = []
        for _ in range(self.subsets):
            orders = [torch.randperm(len(x), dtype=torch.int64, device="cpu")[: self.subset_size] for x in sets]
            real, fake = (x[order.to(x.device)] for x, order in zip(sets, orders))
            values.append(mmd(real, fake, **self.kernel))
        found = torch.tensor(values, dtype=torch.float64, device="cpu")
        return found.mean().to(sets[0]), found.std(correction=0).to(sets[0])
