"""What is special to `kernel_sum`: its judges, every degree, values that outgrow float32, and its errors."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

import genfast
from genfast import kernel_sum, testing

BACKENDS = ("reference", "cpp")


def sample(rows=50, count=77, depth=9, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, depth, generator=generator, dtype=torch.float64).to(dtype) for n in (rows, count)]


@pytest.mark.parametrize("degree", range(1, 9))
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_polynomial_kernel_of_sklearn(backend, degree):
    x, y = sample()
    for gamma, coef0 in ((None, 1.0), (0.4, -0.5)):
        expected = polynomial_kernel(x.numpy(), y.numpy(), degree, gamma, coef0).sum(1)
        got = kernel_sum(x, y, "polynomial", gamma, coef0, degree, backend=backend)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("gamma", (None, 0.01, 2.0))
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_gaussian_kernel_of_sklearn(backend, gamma):
    x, y = sample()
    got = kernel_sum(x, y, "gaussian", gamma, backend=backend)
    np.testing.assert_allclose(got.numpy(), rbf_kernel(x.numpy(), y.numpy(), gamma).sum(1), rtol=1e-10)


@pytest.mark.parametrize("kernel", ("polynomial", "gaussian"))
def test_float32_sums_in_float64(kernel):
    """A million terms: a sum in float32 would keep three digits."""
    x, y = sample(3, 1_000_003, 2, torch.float32)
    got = kernel_sum(x, y, kernel, backend="cpp")
    assert got.dtype == torch.float64
    testing.assert_matches(got, kernel_sum(x.double(), y.double(), kernel, backend="reference"), rtol=1e-6)


def test_powers_may_outgrow_float32():
    x, y = torch.full((2, 4), 1e4), torch.full((3, 4), 1e4)
    got = kernel_sum(x, y, gamma=1.0, coef0=0.0, degree=8, backend="cpp")
    testing.assert_matches(got, torch.full((2,), 3 * 4e8**8, dtype=torch.float64), rtol=1e-6)


def test_gaussian_of_equal_and_of_distant_points():
    """1 each, though rounding may make a distance negative, and 0 each, though exp would be denormal."""
    x, _ = sample(40, 1, 30, torch.float32)
    far = kernel_sum(x, x + 1e4, "gaussian", backend="cpp")
    assert not far.any()
    same = kernel_sum(x[:1], x[:1].expand(100, -1), "gaussian", 1.0, backend="cpp")
    assert 100 * (1 - 1e-4) < same.item() <= 100


@pytest.mark.parametrize("offset", [3.0, 1000.0, -30000.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gaussian_is_exact_far_from_the_origin(backend, offset):
    x, y = (offset + values for values in sample(200, 300, 64, torch.float32))
    squares = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    got = kernel_sum(x, y, "gaussian", backend=backend)
    testing.assert_matches(got, (-squares / 64).exp().sum(1), atol=0, rtol=1e-5)


@pytest.mark.parametrize("kernel, offset", [("polynomial", 0), ("gaussian", 0), ("gaussian", 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_same_bits_for_batches_threads_and_isas(kernel, dtype, offset):
    x, y = (values.add(offset).to(dtype) for values in sample(300, 523, 19))
    active = genfast.backends()["cpp"]
    with testing.threads(1):
        expected = kernel_sum(x, y, kernel, backend="cpp")
        for size in (1, 7, 241):
            parts = [kernel_sum(part, y, kernel, backend="cpp") for part in x.split(size)]
            testing.assert_identical(torch.cat(parts), expected, name=f"parts of {size}")
    for isa, count in [(active.isa, 2), (active.isa, 3), *((isa, 1) for isa in active.isas)]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = kernel_sum(x, y, kernel, backend="cpp")
        finally:
            genfast.set_isa(active.isa)
        testing.assert_identical(got, expected, name=f"{isa}, {count} threads")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_sum(backend):
    x, y = sample(4, 0)
    assert torch.equal(kernel_sum(x, y, backend=backend), torch.zeros(4, dtype=torch.float64))
    assert kernel_sum(x[:0], x, backend=backend).shape == (0,)


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    "error, match, call",
    [
        (ValueError, "kernel must be one of polynomial, gaussian; got 'rbf'", lambda: kernel_sum(X, X, "rbf")),
        (ValueError, "gamma must be finite and above 0; got 0", lambda: kernel_sum(X, X, gamma=0)),
        (ValueError, "coef0 must be finite; got nan", lambda: kernel_sum(X, X, coef0=float("nan"))),
        (TypeError, "coef0 must be a number; got bool", lambda: kernel_sum(X, X, coef0=True)),
        (ValueError, r"degree must lie in \[1, 9\); got 9", lambda: kernel_sum(X, X, degree=9)),
        (ValueError, r"y must have shape \[M, D\] with D=2; got \(3, 1\)", lambda: kernel_sum(X, X[:, :1])),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
