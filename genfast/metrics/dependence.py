"""Which factors of the same images go together: mutual information, judged by permutation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.engine.arguments import check_int


@dataclass(frozen=True)
class Dependence:
    """What `dependence` returns.

    Attributes:
        information: mutual information in nats, less its mean over the permutations, at the partition that shows most.
        partition: the number of that partition.
        strength: G at that partition, in standard deviations of the permutations above their mean.
        p: the share of permutations that are at least as strong, itself counted; at least 1 / (permutations + 1).
        null: strengths of the permutations, float64 [permutations].
    """

    information: float
    partition: int
    strength: float
    p: float
    null: Tensor


@dataclass(frozen=True)
class Pairwise:
    """What `pairwise_dependence` returns.

    Attributes:
        information: mutual information in nats less its mean over the permutations, float64 [F, F].
        p: float64 [F, F], 1 on the diagonal.
    """

    information: Tensor
    p: Tensor


def dependence(codes: Tensor, partitions: Tensor, *, permutations: int = 999, seed: int = 0) -> Dependence:
    """Whether a factor goes with what several partitions of the same images say, from coarse to fine.

    ::

        G_m = 2 n I(codes; partition m)         strength = max_m (G_m - mean) / standard deviation over permutations

    The permutations reorder the codes. If codes and partitions are independent, every order is equally likely, so that
    p is uniform whatever their distributions are, and however many partitions are tried.

    Args:
        codes: integers [n] of at least 0; -1 leaves an image out.
        partitions: integers [m, n] of at least 0.
        permutations: how many, at least 1.
        seed: of the permutations.
    Returns: `Dependence`.
    Raises: ValueError for shapes that do not fit, or fewer than 2 images.
    Paper: of G: Kullback, Information Theory and Statistics, 1959; of p: Phipson and Smyth 2010, arXiv 1603.05766.
    Example: `genfast.metrics.dependence(colours, kinds[None]).p`
    """
    observed, null = g_statistics(codes, partitions, permutations=permutations, seed=seed)
    count = int((codes >= 0).sum())
    mean, spread = null.mean(0), null.std(0, correction=0).clamp(min=1e-9)
    strengths, of_null = (observed - mean) / spread, ((null - mean) / spread).amax(1)
    best = int(strengths.argmax())
    strength = float(strengths[best])
    p = float(permutation_p(strength, of_null))
    return Dependence(float((observed - mean)[best]) / (2 * count), best, strength, p, of_null)


def g_statistics(codes: Tensor, partitions: Tensor, *, permutations: int = 999, seed: int = 0) -> tuple[Tensor, Tensor]:
    """G of each partition, float64 [m], and of permuted codes [permutations, m]; arguments as `dependence`."""
    check_int("dependence", "permutations", permutations, 1)
    if codes.ndim != 1 or partitions.ndim != 2 or partitions.shape[1] != len(codes):
        got = f"{tuple(codes.shape)} and {tuple(partitions.shape)}"
        raise ValueError(f"dependence: codes and partitions must have shapes [n] and [m, n]; got {got}")
    kept = codes >= 0
    codes, partitions = codes[kept].long().cpu(), partitions[:, kept].long().cpu()
    if len(codes) < 2:
        raise ValueError(f"dependence: codes must be of at least 2 images; got {len(codes)}")
    places = [_one_hot(partition) for partition in partitions]
    everything, sizes = torch.cat(places, 1), [place.shape[1] for place in places]
    values = codes.unique(return_inverse=True)[1]
    count = int(values.max()) + 1
    generator = torch.Generator("cpu").manual_seed(seed)
    rows, batch = [], max(1, min(64, 2**22 // (count * len(codes))))
    for start in range(-1, permutations, batch):
        orders = [
            torch.randperm(len(codes), generator=generator, dtype=torch.int64, device="cpu")
            for _ in range(min(batch, permutations - start))
        ]
        shuffled = values[torch.stack(orders)]
        if start < 0:
            shuffled[0] = values
        hot = F.one_hot(shuffled, count).transpose(1, 2).float()
        table = (hot @ everything).double()  # [orders, values, groups]; counts up to 2**24 are whole in float32
        rows.append(torch.stack([_g(part) for part in table.split(sizes, 2)], 1))
    found = torch.cat(rows)
    return found[0], found[1:]


def pairwise_dependence(values: Tensor, *, bins: int = 8, permutations: int = 99, seed: int = 0) -> Pairwise:
    """Mutual information of every pair of variables, each cut into bins of equal counts.

    As all variables have the same marginal distribution then, so have the permutations of all pairs: a pair is judged
    by the permutations of all of them, permutations * F (F - 1) / 2 values.

    Args:
        values: float [n, F], F at least 2 and n at least `bins`; ties are broken at random.
        bins: of each variable, at least 2.
        permutations: of every variable.
        seed: of the permutations.
    Returns: `Pairwise`.
    Raises: ValueError for another shape.
    """
    check_int("pairwise_dependence", "bins", bins, 2)
    check_int("pairwise_dependence", "permutations", permutations, 1)
    if values.ndim != 2 or values.shape[1] < 2 or len(values) < bins:
        expected = f"[n, F] with F at least 2 and n at least {bins}"
        raise ValueError(f"pairwise_dependence: values must have shape {expected}; got {tuple(values.shape)}")
    n, width = values.shape
    generator = torch.Generator("cpu").manual_seed(seed)
    hot = F.one_hot(equal_bins(values, bins, generator), bins).float()  # [n, F, bins]
    upper = torch.triu_indices(width, width, 1, dtype=torch.int64, device="cpu")
    observed, null = _informations(hot, hot, upper), []
    for _ in range(permutations):
        orders = torch.rand(n, width, generator=generator, dtype=torch.float32, device="cpu").argsort(0)
        shuffled = hot.gather(0, orders[..., None].expand(-1, -1, bins))
        null.append(_informations(shuffled, shuffled, upper))
    pooled = torch.cat(null).sort().values
    above = len(pooled) - torch.searchsorted(pooled, observed - 1e-12)
    information = torch.zeros(width, width, dtype=torch.float64, device="cpu")
    p = torch.ones(width, width, dtype=torch.float64, device="cpu")
    for table, found in ((information, observed - pooled.mean()), (p, (1 + above).double() / (len(pooled) + 1))):
        table[upper[0], upper[1]] = table[upper[1], upper[0]] = found.double()
    return Pairwise(information, p)


def total_correlation(values: Tensor, *, permutations: int = 199, seed: int = 0) -> tuple[float, float]:
    """The total correlation of variables by their Gaussian copula, in nats, and its p by permutation.

    ::

        TC = -1/2 log det R        R: the correlations of the normal scores of the ranks

    It is a lower bound on sum_i H(z_i) - H(z), exact where a Gaussian has the copula; a dependence that leaves all
    correlations at 0 is not in it.

    Args: values (float [n, F], n above F); permutations, seed.
    Returns: (total correlation, p).
    Raises: ValueError for another shape.
    Paper: Watanabe, Information theoretical analysis of multivariate correlation, 1960.
    """
    check_int("total_correlation", "permutations", permutations, 1)
    if values.ndim != 2 or values.shape[1] < 2 or len(values) <= values.shape[1]:
        got = tuple(values.shape)
        raise ValueError(f"total_correlation: values must have shape [n, F] with n above F, at least 2; got {got}")
    n, width = values.shape
    generator = torch.Generator("cpu").manual_seed(seed)
    ranks = _ranks(values, generator)
    scores = torch.special.ndtri((ranks.double() + 0.5) / n)
    scores = (scores - scores.mean(0)) / scores.std(0, correction=0)
    found = []
    for number in range(permutations + 1):
        orders = torch.rand(n, width, generator=generator, dtype=torch.float32, device="cpu").argsort(0)
        z = scores.gather(0, orders) if number else scores
        found.append(-0.5 * float(torch.linalg.slogdet(z.T @ z / n).logabsdet))
    as_strong = sum(value >= found[0] for value in found[1:])
    return max(0.0, found[0] - sum(found[1:]) / permutations), (1 + as_strong) / (permutations + 1)


def permutation_p(observed: Tensor | float, null: Tensor) -> Tensor:
    """The share of permutations that are at least as strong, the observed one counted among them.

    Args: observed (float [...]); null (float [permutations, ...]).
    Returns: float64 [...].
    Paper: Phipson and Smyth 2010, arXiv 1603.05766.
    """
    return (1 + (null >= observed - 1e-9).sum(0)).double() / (len(null) + 1)


def benjamini_hochberg(p: Tensor) -> Tensor:
    """q-values: the false discovery rate at which each p-value would be found.

    ::

        q_(i) = min_{j >= i} n p_(j) / j

    Args: p: floats [n] in [0, 1], independent or positively dependent.
    Returns: float64 [n].
    Paper: Controlling the False Discovery Rate, Benjamini and Hochberg 1995.
    """
    p = p.double().cpu()
    if p.ndim != 1 or (len(p) and not bool(((p >= 0) & (p <= 1)).all())):
        raise ValueError(f"benjamini_hochberg: p must be numbers from 0 to 1, [n]; got {tuple(p.shape)}")
    order = p.argsort()
    ranks = torch.arange(1, len(p) + 1, dtype=torch.float64, device="cpu")
    scaled = p[order] * len(p) / ranks
    q = torch.empty_like(p)
    q[order] = scaled.flip(0).cummin(0).values.flip(0).clamp(max=1) if len(p) else scaled
    return q


def equal_bins(values: Tensor, bins: int, generator: torch.Generator) -> Tensor:
    """Each column cut into bins of equal counts, ties at random: float [n, F] -> int64 [n, F] below `bins`."""
    return _ranks(values, generator) * bins // len(values)


def _ranks(values: Tensor, generator: torch.Generator) -> Tensor:
    """Ranks 0 .. n - 1 of each column, ties in a random order."""
    values = values.cpu()
    orders = torch.rand(values.shape, generator=generator, dtype=torch.float32, device="cpu").argsort(0)
    sorted_ = values.gather(0, orders).argsort(dim=0, stable=True)
    return orders.gather(0, sorted_).argsort(0)


def _informations(a: Tensor, b: Tensor, pairs: Tensor) -> Tensor:
    """Mutual information of one-hot variables [n, F, bins] for pairs [2, P] of them, float64 [P]."""
    n, width, bins = a.shape
    table = (a.flatten(1).T @ b.flatten(1)).view(width, bins, width, bins).transpose(1, 2)[pairs[0], pairs[1]].double()
    rows, columns = table.sum(2, keepdim=True), table.sum(1, keepdim=True)
    return (torch.xlogy(table, table * n) - torch.xlogy(table, rows * columns)).sum((1, 2)) / n


def _g(table: Tensor) -> Tensor:
    """G = 2 n I of tables of counts [.., values, groups]."""
    expected = table.sum(-1, keepdim=True) * table.sum(-2, keepdim=True) / table.sum((-2, -1), keepdim=True)
    return 2 * (torch.xlogy(table, table) - torch.xlogy(table, expected)).sum((-2, -1))


def _one_hot(codes: Tensor) -> Tensor:
    """float32 [n, K] of codes [n], of those values that occur."""
    return F.one_hot(codes.unique(return_inverse=True)[1]).float()
