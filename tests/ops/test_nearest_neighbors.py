"""What is special to `nearest_neighbors`: its judges, ties, NaN, cancellation, long lists, memory, and its errors."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

import genfast
from genfast import nearest_neighbors, testing

BACKENDS = ("reference", "cpp")


def sample(rows=90, count=150, depth=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, depth, generator=generator, dtype=torch.float64).to(dtype) for n in (rows, count)]


@pytest.mark.parametrize("k", (1, 2, 17, 149, 150))
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_tree_of_scipy(backend, k):
    x, y = sample()
    squares, indices = nearest_neighbors(x, y, k, backend=backend)
    distances, expected = KDTree(y.numpy()).query(x.numpy(), k=[*range(1, k + 1)])
    assert np.array_equal(indices.numpy(), expected)
    testing.assert_matches(squares, torch.from_numpy(distances**2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("k", (1, 5, 64, 65, 333))
@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_come_in_the_order_of_indices(backend, k, dtype):
    """Whole numbers, whose distances are exact and mostly equal."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(-1, 2, (n, 3), generator=generator).to(dtype) for n in (60, 333))
    squares, indices = nearest_neighbors(x, y, k, backend=backend)
    every = ((x[:, None] - y) ** 2).sum(2).double()
    expected = every.sort(dim=1, stable=True)
    assert torch.equal(indices, expected.indices[:, :k]) and torch.equal(squares.double(), expected.values[:, :k])


def test_differs_from_exact_neighbours_at_ties_alone():
    x, y = sample(3000, 3000, 64, torch.float32)
    squares, indices = nearest_neighbors(x, y, 8, backend="cpp")
    exact_squares, exact = nearest_neighbors(x.double(), y.double(), 8, backend="reference")
    assert (indices != exact).sum() <= 20
    testing.assert_matches(squares, exact_squares)
    assert (squares.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("offset", [3.0, 1000.0, -30000.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_are_exact_far_from_the_origin(backend, offset):
    x, y = (offset + values for values in sample(1000, 1500, 64, torch.float32))
    squares, indices = nearest_neighbors(x, y, 5, backend=backend)
    every = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    exact_squares, exact = every.topk(5, largest=False)
    recall = (indices[:, :, None] == exact[:, None]).any(2).double().mean()
    assert recall >= 0.9999
    testing.assert_matches(squares, exact_squares, rtol=1e-5)


def test_a_point_is_its_own_neighbour_far_from_zero():
    """The distance comes from the difference: 0 where |x|^2 - 2 x y + |y|^2 would be noise of 1e-1."""
    x, _ = sample(100, 1, 8, torch.float32)
    squares, indices = nearest_neighbors(1000 + x, 1000 + x, 2, backend="cpp")
    hit = indices == torch.arange(100)[:, None]
    assert hit.any(1).all() and not squares[hit].any()


def test_bad_rows_harm_nobody():
    x, y = sample(50, 150, 6, torch.float32)
    expected = nearest_neighbors(x, y, 9, backend="cpp")
    bad = x.clone()
    bad[3, 1], bad[4, 0] = torch.nan, torch.inf
    _, indices = nearest_neighbors(bad, y, 9, backend="cpp")
    others = [n for n in range(50) if n not in (3, 4)]
    assert torch.equal(indices[others], expected[1][others])
    for row in indices[3:5]:
        assert len(set(row.tolist())) == 9 and row.min() >= 0 and row.max() < 150
    y[[2, 77]] = torch.nan
    good = torch.tensor([m for m in range(150) if m not in (2, 77)])
    for k in (9, 148):
        assert torch.equal(nearest_neighbors(x, y, k, backend="cpp")[1], good[nearest_neighbors(x, y[good], k)[1]])


@pytest.mark.parametrize("k, offset", [(1, 0), (6, 0), (6, 1000), (100, 0)])
def test_same_bits_for_batches_threads_and_isas(k, offset):
    x, y = (values + offset for values in sample(500, 1041, 19, torch.float32))
    active = genfast.backends()["cpp"]
    with testing.threads(1):
        expected = nearest_neighbors(x, y, k, backend="cpp")
        for size in (1, 7, 241):
            parts = zip(*[nearest_neighbors(part, y, k, backend="cpp") for part in x.split(size)])
            for a, b in zip(map(torch.cat, parts), expected):
                testing.assert_identical(a, b, name=f"parts of {size}")
    for isa, count in [(active.isa, 2), (active.isa, 3), *((isa, 1) for isa in active.isas)]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = nearest_neighbors(x, y, k, backend="cpp")
        finally:
            genfast.set_isa(active.isa)
        for a, b in zip(got, expected):
            testing.assert_identical(a, b, name=f"{isa}, {count} threads")


def test_the_longest_list():
    x, y = sample(5, 3000, 3)
    squares, indices = nearest_neighbors(x, y, 1024, backend="cpp")
    expected = ((x[:, None] - y) ** 2).sum(2).sort(dim=1)
    assert torch.equal(indices, expected.indices[:, :1024])
    testing.assert_matches(squares, expected.values[:, :1024])


MEMORY = """
import resource, torch, genfast
x = torch.randn(30000, 3)
genfast.nearest_neighbors(x[:100], x, 5, backend="cpp")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
genfast.nearest_neighbors(x, x, 5, backend="cpp")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_hold_the_pairs():
    """900 million distances, 3.6 GB, in less than 50 MB."""
    run = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 50e3  # kilobytes


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    "error, match, call",
    [
        (ValueError, r"k must lie in \[1, 2\*\*2\); got 0", lambda: nearest_neighbors(X, X, 0)),
        (ValueError, r"k must lie in .*; got 4", lambda: nearest_neighbors(X, X, 4)),
        (TypeError, "k must be an int; got float", lambda: nearest_neighbors(X, X, 1.0)),
        (ValueError, r"y must have shape \[M, D\] with D=2; got \(3, 1\)", lambda: nearest_neighbors(X, X[:, :1], 1)),
        (ValueError, r"x must have shape \[N, D\] with D>=1; got \(3,\)", lambda: nearest_neighbors(X[:, 0], X, 1)),
        (TypeError, "y must have the dtype of x", lambda: nearest_neighbors(X, X.double(), 1)),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
