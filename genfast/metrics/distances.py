"""Distances between a set of generated samples and a set of real ones, by features that the caller provides.

Memory grows linearly with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genfast import ops


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision (fidelity) and recall (diversity) of generated samples.

    Precision is the share of generated samples inside some real ball: one around a real sample, with its k-th real
    neighbour on the surface, which belongs to the ball. Recall is the same with the sets exchanged.

    Args:
        real: [N, D], float; N above k.
        generated: [M, D], float of the same dtype; M above k.
        k: number of the neighbour, not counting the sample itself; from 1 to 1023.
    Returns: (precision, recall), floats in [0, 1].
    Raises: TypeError or ValueError for features that are no two sets of vectors of one size, or too few for k.
    Paper: Improved Precision and Recall Metric for Assessing Generative Models, Kynkaanniemi et al. 2019,
        arXiv 1904.06991.
    """
    real, generated = _sets("precision_recall", real, generated, k)
    precision, recall = (_within(*pair, k).double().mean() for pair in ((generated, real), (real, generated)))
    return float(precision), float(recall)


def looks_real(real: Tensor, generated: Tensor, k: int = 3) -> Tensor:
    """Which generated samples are inside a real ball, and so count for the precision of `precision_recall`.

    Args, Raises: as `precision_recall`.
    Returns: bool [M].
    """
    real, generated = _sets("looks_real", real, generated, k)
    return _within(generated, real, k)


def density_coverage(real: Tensor, generated: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage: variants of precision and recall that are robust to outliers.

    Density is the average number of real balls (see `precision_recall`) around a generated sample, over k. Coverage is
    the share of real balls that contain a generated sample.

    Args: as `precision_recall`.
    Returns: (density, coverage): floats, density at least 0 and 1 in expectation for equal distributions, coverage in
        [0, 1].
    Raises: as `precision_recall`.
    Paper: Reliable Fidelity and Diversity Metrics for Generative Models, Naeem et al. 2020, arXiv 2002.09797.
    """
    real, generated = _sets("density_coverage", real, generated, k)
    radius = _radii(real, k)
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for balls in _inside(generated, real, radius):
        inside += int(balls.sum())
        covered |= balls.any(0)
    return inside / (k * len(generated)), float(covered.double().mean())


def mmd(
    real: Tensor,
    generated: Tensor,
    kernel: str = "polynomial",
    gamma: float | None = None,
    coef0: float = 1.0,
    degree: int = 3,
) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy.

    It may be negative, and is 0 in expectation for equal distributions.

    Args:
        real: [N, D], float, N at least 2.
        generated: [M, D], float of the same dtype, M at least 2.
        kernel, gamma, coef0, degree: of `genfast.kernel_sum`.
    Returns: a float.
    Raises: TypeError or ValueError for features that are no two sets of vectors of one size, or a set of fewer than 2.
    Paper: A Kernel Two-Sample Test, Gretton et al. 2012, lemma 6.
    """
    real, generated = _sets("mmd", real, generated, 1)
    settings: Any = (kernel, gamma, coef0, degree)
    n, m = len(real), len(generated)
    within = [
        (float(ops.kernel_sum(x, x, *settings).sum()) - _diagonal(x, *settings)) / (len(x) * (len(x) - 1))
        for x in (real, generated)
    ]
    return sum(within) - 2 * float(ops.kernel_sum(real, generated, *settings).sum()) / (n * m)


def kernel_distance(
    real: Tensor, generated: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance of given features: `mmd` with the kernel (x.y / D + 1)^3, over random subsets.

    Args:
        real: [N, D], float.
        generated: [M, D], float of the same dtype.
        subsets: how many, at least 1.
        size: of each, drawn without replacement; at least 2 and at most N and M.
        seed: int, of the subsets.
    Returns: (mean, standard deviation) over the subsets, floats.
    Raises: TypeError or ValueError for features that are no two sets of vectors of one size, or fewer than `size`.
    Paper: Demystifying MMD GANs, Binkowski et al. 2018, section 4, arXiv 1801.01401.
    """
    real, generated = _sets("kernel_distance", real, generated, 1)
    if subsets < 1:
        raise ValueError(f"kernel_distance: subsets must be at least 1; got {subsets}")
    if not 2 <= size <= min(len(real), len(generated)):
        sizes = f"{len(real)} real and {len(generated)} generated"
        raise ValueError(f"kernel_distance: size must lie in 2 .. the size of either set; got {size} of {sizes}")
    generator = torch.Generator("cpu").manual_seed(seed)
    estimates = []
    for _ in range(subsets):
        orders = (
            torch.randperm(len(x), generator=generator, dtype=torch.int64, device="cpu") for x in (real, generated)
        )
        parts = [x[order[:size].to(x.device)] for x, order in zip((real, generated), orders)]
        estimates.append(mmd(parts[0], parts[1]))
    values = torch.tensor(estimates, dtype=torch.float64, device="cpu")
    return float(values.mean()), float(values.std(correction=0))


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of two sets (FID, of any features).

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` in float64. The trace of the root is computed as that of the symmetric
    (C1^(1/2) C2 C1^(1/2))^(1/2). Its eigenvalues are real and at least 0, also for the singular covariances of fewer
    samples than features.

    Args:
        real: [N, D], float, N at least 2.
        generated: [M, D], float of the same dtype, M at least 2.
    Returns: a float, at least 0.
    Raises: TypeError or ValueError for features that are no two sets of vectors of one size, or a set of fewer than 2.
    Paper: GANs Trained by a Two Time-Scale Update Rule, Heusel et al. 2017, equation 6, arXiv 1706.08500.
    """
    real, generated = _sets("frechet_distance", real, generated, 1)
    means, covariances = zip(*(moments(x) for x in (real, generated)))
    return frechet_of_moments(means, covariances)


def frechet_of_moments(means: Sequence[Tensor], covariances: Sequence[Tensor]) -> float:
    """`frechet_distance` of two Gaussians: means [D] and covariances [D, D], float64."""
    root = _root(covariances[0])
    inner = root @ covariances[1] @ root
    values = torch.linalg.eigvalsh(0.5 * (inner + inner.T)).clamp(min=0)
    trace = covariances[0].trace() + covariances[1].trace() - 2 * values.sqrt().sum()
    return max(0.0, float((means[0] - means[1]).square().sum() + trace))


def _sets(name: str, real: Tensor, generated: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Both sets, checked and detached; each must have more than k vectors."""
    for which, x in (("real", real), ("generated", generated)):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name}: {which} must be a torch.Tensor; got {type(x).__name__}")
        if not x.is_floating_point() or x.dtype != real.dtype:
            raise TypeError(f"{name}: {which} must be float features of one dtype; got {x.dtype}")
        if x.ndim != 2 or x.shape[1] < 1 or x.shape[1] != real.shape[1]:
            raise ValueError(f"{name}: {which} must have shape [N, D], both of the same D; got {tuple(x.shape)}")
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"{name}: k must be an int; got {type(k).__name__}")
    if not 1 <= k < min(len(real), len(generated), 1024):
        sizes = f"{len(real)} real and {len(generated)} generated"
        raise ValueError(f"{name}: both sets must hold more than {k} vectors, and 1 <= k < 1024; got {sizes}")
    for which, x in (("real", real), ("generated", generated)):
        if not x.isfinite().all():
            raise ValueError(f"{name}: {which} must be finite; got a NaN or an infinity")
    return real.detach(), generated.detach()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """[.., N, D] and [.., M, D] -> float64 [.., N, M], from the differences: 0 of copies, and d(x, y) = d(y, x).

    Two distances that are equal are then equal in their bits, so a sample on the surface of a ball is seen to be there.
    """
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance of every row to its k-th neighbour among the others, float64 [N]: the first is the row itself."""
    neighbours = x[ops.nearest_neighbors(x, x, k + 1)[1]]
    return _distances(x[:, None], neighbours)[:, 0].amax(1)


def _within(points: Tensor, centres: Tensor, k: int) -> Tensor:
    """Whether each of `points` is inside the ball of some centre."""
    return torch.cat([balls.any(1) for balls in _inside(points, centres, _radii(centres, k))])


def _inside(points: Tensor, centres: Tensor, radius: Tensor, entries: int = 2**22) -> Iterator[Tensor]:
    """Whether each point is inside each closed ball: bool [points, centres], in chunks of points to bound memory.

    By a matrix product, and where its rounding could decide, by the differences.
    """
    middle, limits = centres.double().mean(0), radius.square()
    near = centres.double() - middle
    norms = near.square().sum(1)
    slack = 8 * torch.finfo(torch.float64).eps * (8 + centres.shape[1])
    for part in points.split(max(1, entries // len(centres))):
        moved = part.double() - middle
        sizes = moved.square().sum(1)[:, None] + norms
        above = sizes - 2 * moved @ near.T - limits
        inside = above <= 0
        unsure = (above.abs() <= slack * (sizes + limits)).any(1)
        if unsure.any():
            inside[unsure] = _distances(part[unsure], centres) <= radius
        yield inside


def _diagonal(x: Tensor, kernel: str, gamma: float | None, coef0: float, degree: int) -> float:
    """The sum of k(x_i, x_i)."""
    if kernel == "gaussian":
        return float(len(x))
    gamma = 1 / x.shape[1] if gamma is None else gamma
    return float(((gamma * x.double().square().sum(1) + coef0) ** degree).sum())


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [D] and the covariance [D, D] of features [N, D], float64."""
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
