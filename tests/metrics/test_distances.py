"""Metrics of given features against scipy and plain numpy on the same features, closed forms, and their errors."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist

from genfast.metrics import density_coverage, frechet_distance, kernel_distance, looks_real, mmd, precision_recall


def sets(n=160, m=130, size=12, shift=0.3, scale=1.1, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64) * size**-0.5
    real, generated = (torch.randn(rows, size, generator=generator, dtype=torch.float64) @ mixing for rows in (n, m))
    return real.to(dtype), (generated * scale + shift).to(dtype)


def radii(x, k):
    return np.sort(cdist(x, x), axis=1)[:, k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_neighbour_metrics_are_those_of_the_whole_matrix(k, dtype):
    real, generated = sets(dtype=dtype)
    distance = cdist(real.double(), generated.double())
    in_real = distance <= radii(real.double(), k)[:, None]
    in_generated = distance <= radii(generated.double(), k)[None]
    precision, recall = precision_recall(real, generated, k)
    assert precision == pytest.approx(in_real.any(0).mean(), abs=1e-6)
    assert recall == pytest.approx(in_generated.any(1).mean(), abs=1e-6)
    density, coverage = density_coverage(real, generated, k)
    assert density == pytest.approx(in_real.sum() / (k * len(generated)), abs=1e-6)
    assert coverage == pytest.approx(in_real.any(1).mean(), abs=1e-6)
    assert 0.05 < recall < 1 and 0.05 < precision < 1, "a case that decides nothing"
    assert looks_real(real, generated, k).tolist() == in_real.any(0).tolist()


def test_neighbour_metrics_of_the_same_and_of_another_distribution():
    """Equal distributions: density near 1, coverage near its expectation 1 - 2^-k; far apart: everything 0."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(1500, 4, generator=generator) for _ in range(2))
    density, coverage = density_coverage(a, b, 5)
    assert density == pytest.approx(1, abs=0.05) and coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert min(precision_recall(a, b, 5)) > 0.9
    assert precision_recall(a, b + 100) == density_coverage(a, b + 100) == (0, 0)


def test_one_outlier_fools_precision_but_not_density():
    """The example of Naeem et al.: one real outlier has a ball that holds every bad sample."""
    real, generated = torch.randn(200, 2) * 0.1, torch.randn(200, 2) * 0.1 + 5
    real[0] = 12.0
    assert precision_recall(real, generated, 5)[0] > 0.99
    assert density_coverage(real, generated, 5)[0] < 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shift", [0, 1000])
def test_copies_are_inside_their_balls(dtype, shift):
    """A ball is closed: of four copies of each sample it has the radius 0, and holds all four."""
    copies = (torch.randn(20, 5) + shift).to(dtype).unique(dim=0).repeat(4, 1)
    other = copies[torch.randperm(len(copies))]
    assert precision_recall(copies, other) == (1, 1) and looks_real(copies, other).all()
    assert density_coverage(copies, other, 3) == (pytest.approx(4 / 3), 1)
    assert precision_recall(torch.ones(7, 3), torch.ones(9, 3)) == (1, 1)
    assert density_coverage(torch.ones(6, 3), torch.ones(8, 3), 5) == (6 / 5, 1)


def test_a_sample_on_the_surface_is_inside():
    """The ball of the k-th neighbour holds that neighbour, and what is as far: here 1 from either end, and not 1.1."""
    line = torch.arange(10.0)[:, None]
    assert looks_real(line, torch.tensor([[-1.0], [10.0], [-1.1], [10.5]]), 1).tolist() == [True, True, False, False]


@pytest.mark.parametrize("shift", [0, 4096])
def test_ties_are_decided_as_by_whole_numbers(shift):
    """Points of a small grid, where most distances tie with a radius."""
    generator = torch.Generator().manual_seed(0)
    real, generated = (torch.randint(7, (60, 3), generator=generator) for _ in range(2))
    radius = (real[:, None] - real).square().sum(2).sort(1).values[:, 3]
    squares = (generated[:, None] - real).square().sum(2)
    inside = squares <= radius
    assert (squares == radius).sum() > 100 and not inside.any(1).all(), "a case that decides nothing"
    real, generated = real.float() + shift, generated.float() + shift
    assert looks_real(real, generated, 3).tolist() == inside.any(1).tolist()
    density, coverage = density_coverage(real, generated, 3)
    assert density == pytest.approx(inside.sum().item() / (3 * 60)) and coverage == inside.any(0).double().mean()


def kernel_matrix(x, y, kernel, gamma):
    return (gamma * x @ y.T + 1) ** 3 if kernel == "polynomial" else np.exp(-gamma * cdist(x, y, "sqeuclidean"))


@pytest.mark.parametrize("gamma", [None, 0.4])
@pytest.mark.parametrize("kernel", ["polynomial", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mmd_is_that_of_the_whole_matrix(dtype, kernel, gamma):
    real, generated = sets(dtype=dtype)
    x, y = real.double().numpy(), generated.double().numpy()
    width = gamma or 1 / 12
    xx, yy, xy = (kernel_matrix(a, b, kernel, width) for a, b in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - np.trace(xx)) / (160 * 159) + (yy.sum() - np.trace(yy)) / (130 * 129) - 2 * xy.mean()
    assert mmd(real, generated, kernel, gamma) == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 1e-3


def test_mmd_is_unbiased():
    """Of equal distributions it is 0 on average, and negative half of the time or so."""
    values = np.array([mmd(*sets(40, 50, 3, 0, 1, seed=seed)) for seed in range(200)])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(200) and 0.2 < (values < 0).mean() < 0.9


def test_kernel_distance_is_the_mean_over_subsets():
    """Of all samples it is the estimate itself; the subsets depend on the seed alone."""
    real, generated = sets(130, 130)
    mean, deviation = kernel_distance(real, generated, subsets=3, size=130)
    assert mean == pytest.approx(mmd(real, generated), abs=1e-9) and deviation < 1e-9
    first = kernel_distance(real, generated, subsets=50, size=40, seed=4)
    assert first == kernel_distance(real, generated, subsets=50, size=40, seed=4)
    assert first != kernel_distance(real, generated, subsets=50, size=40, seed=5)
    assert abs(first[0] - mean) < 5 * first[1] / math.sqrt(50) + 1e-3 and first[1] > 0


@pytest.mark.parametrize("n, m, size", [(160, 130, 12), (400, 300, 64)])
def test_frechet_distance_is_that_of_scipy(n, m, size):
    real, generated = sets(n, m, size)
    x, y = real.numpy(), generated.numpy()
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(real, generated) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(generated, real) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(real.float(), generated.float()) == pytest.approx(expected, abs=1e-4)


def test_frechet_distance_in_closed_form():
    """One dimension: (m1 - m2)^2 + (s1 - s2)^2; a set and itself: 0; a shift: its square."""
    real, generated = sets(500, 400, 1)
    expected = (real.mean() - generated.mean()) ** 2 + (real.std() - generated.std()) ** 2
    assert frechet_distance(real, generated) == pytest.approx(float(expected), rel=1e-9)
    real, _ = sets(100, 2, 20)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, real + 0.5) == pytest.approx(20 * 0.25, rel=1e-9)


def test_frechet_distance_of_fewer_samples_than_features():
    """Singular covariances, where the square root of a product may come out complex."""
    real, generated = sets(20, 15, 60)
    distance = frechet_distance(real, generated)
    values = np.linalg.eigvals(np.cov(real, rowvar=False) @ np.cov(generated, rowvar=False))
    traces = np.trace(np.cov(real, rowvar=False)) + np.trace(np.cov(generated, rowvar=False))
    means = float(((real.mean(0) - generated.mean(0)) ** 2).sum())
    assert distance == pytest.approx(means + traces - 2 * np.sqrt(values + 0j).real.sum(), abs=1e-5)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


X = torch.randn(10, 3)
METRICS = [precision_recall, looks_real, density_coverage, mmd, kernel_distance, frechet_distance]
BAD = [
    (X.tolist(), X, TypeError, "real must be a torch.Tensor; got list"),
    (X, X.double(), TypeError, "generated must be float features of one dtype; got torch.float64"),
    (X.long(), X.long(), TypeError, "real must be float features of one dtype; got torch.int64"),
    (X, X[:, :2], ValueError, "generated must have shape [N, D], both of the same D; got (10, 2)"),
    (X[0], X, ValueError, "real must have shape [N, D], both of the same D; got (3,)"),
    (X, X[:1], ValueError, "both sets must hold more than "),
    (X, X * torch.nan, ValueError, "generated must be finite; got a NaN or an infinity"),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("real, generated, error, text", BAD, ids=[text for *_, text in BAD])
def test_bad_features(metric, real, generated, error, text):
    with pytest.raises(error) as raised:
        metric(real, generated)
    assert str(raised.value).startswith(f"{metric.__name__}: {text}")


def test_bad_settings():
    with pytest.raises(ValueError, match="precision_recall: both sets must hold more than 0 vectors"):
        precision_recall(X, X, 0)
    with pytest.raises(TypeError, match="density_coverage: k must be an int; got float"):
        density_coverage(X, X, 2.0)
    with pytest.raises(ValueError, match="kernel_distance: size must lie in 2 .. the size of either set; got 11 of 10"):
        kernel_distance(X, X, size=11)
    with pytest.raises(ValueError, match="kernel_distance: subsets must be at least 1; got 0"):
        kernel_distance(X, X, subsets=0, size=5)
