"""torch-fidelity's FID and KID of given features, on `genfast.metrics`. Nothing is printed, whatever `verbose` says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genfast.metrics import mmd
from genfast.metrics.distances import frechet_of_moments, moments

__all__ = ["fid_features_to_statistics", "fid_statistics_to_metric", "kid_features_to_metric"]


def fid_features_to_statistics(features: Tensor) -> dict[str, np.ndarray]:
    """The mean [D] and the covariance [D, D] of features, float64.

    Args: features: float [N, D], N at least 2.
    Returns: {"mu": mean, "sigma": covariance}.
    Raises: ValueError for another shape.
    """
    if features.ndim != 2 or len(features) < 2:
        expected = "[N, D] with N>=2"
        raise ValueError(
            f"fid_features_to_statistics: features must have shape {expected}; got {tuple(features.shape)}"
        )
    mean, covariance = moments(features)
    return {"mu": mean.cpu().numpy(), "sigma": covariance.cpu().numpy()}


def fid_statistics_to_metric(
    stat_1: dict[str, np.ndarray], stat_2: dict[str, np.ndarray], verbose: bool = False
) -> dict[str, float]:
    """The Frechet distance of two `fid_features_to_statistics`: {"frechet_inception_distance": it}."""
    pairs = ([torch.from_numpy(stat[key]).double() for stat in (stat_1, stat_2)] for key in ("mu", "sigma"))
    return {"frechet_inception_distance": frechet_of_moments(*pairs)}


def kid_features_to_metric(
    features_1: Tensor,
    features_2: Tensor,
    *,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    kid_kernel: str = "poly",
    kid_kernel_poly_degree: int = 3,
    kid_kernel_poly_gamma: float | None = None,
    kid_kernel_poly_coef0: float = 1,
    kid_kernel_rbf_sigma: float = 10,
    rng_seed: int = 2020,
    verbose: bool = False,
) -> dict[str, float]:
    """KID over random subsets, which numpy draws as in torch-fidelity.

    Args:
        features_1, features_2: float [N, D] and [M, D].
        kid_subsets, kid_subset_size: how many subsets, and of how many features.
        kid_kernel: poly, (gamma x.y + coef0)^degree, or rbf, exp(-|x - y|^2 / (2 sigma^2)).
        kid_kernel_poly_degree, kid_kernel_poly_gamma, kid_kernel_poly_coef0, kid_kernel_rbf_sigma: of the kernels;
            gamma: 1 / D if None.
        rng_seed: of the subsets.
        verbose: without an effect.
    Returns: {"kernel_inception_distance_mean": mean, "kernel_inception_distance_std": standard deviation}.
    Raises: ValueError for another kernel, or fewer features than a subset.
    """
    sets = features_1, features_2
    if kid_kernel not in ("poly", "rbf"):
        raise ValueError(f"kid_features_to_metric: kid_kernel must be poly or rbf; got {kid_kernel!r}")
    if not 2 <= kid_subset_size <= min(map(len, sets)):
        got = f"{kid_subset_size} of {len(features_1)} and {len(features_2)}"
        raise ValueError(f"kid_features_to_metric: kid_subset_size must lie in 2 .. the size of either set; got {got}")
    kernel: tuple[str, float | None, float, int]
    if kid_kernel == "rbf":
        kernel = ("gaussian", 1 / (2 * kid_kernel_rbf_sigma**2), 0.0, 1)
    else:
        kernel = ("polynomial", kid_kernel_poly_gamma, float(kid_kernel_poly_coef0), kid_kernel_poly_degree)
    generator, values = np.random.RandomState(rng_seed), []
    for _ in range(kid_subsets):
        places = [torch.from_numpy(generator.choice(len(x), kid_subset_size, replace=False)) for x in sets]
        one, other = (x[place.to(x.device)] for x, place in zip(sets, places))
        values.append(mmd(one, other, *kernel))
    return {
        "kernel_inception_distance_mean": float(np.mean(values)),
        "kernel_inception_distance_std": float(np.std(values)),
    }
