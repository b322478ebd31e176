"""What is special to `vector_quantize` and `codebook_statistics`: judges, ties, NaN, cancellation, orders of sums."""

import numpy as np
import pytest
import torch
from scipy.cluster.vq import vq

import genfast
from genfast import codebook_statistics, testing, vector_quantize
from genfast.reference.vector_quantize import nearest_codes

BACKENDS = ("reference", "cpp")


def sample(rows=200, depth=7, count=33, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, codebook = (torch.randn(n, depth, generator=generator, dtype=torch.float64) for n in (rows, count))
    return x.to(dtype), codebook.to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_vector_quantisation_of_scipy(backend):
    x, codebook = sample()
    codes, quantized, loss = vector_quantize(x, codebook, 0.25, 0.5, backend=backend)
    expected, distances = vq(x.numpy(), codebook.numpy())
    assert np.array_equal(codes.numpy(), expected)
    testing.assert_identical(quantized, codebook[codes])
    testing.assert_matches(loss, torch.tensor(0.75 * np.mean(distances**2) / x.shape[1]))


@pytest.mark.parametrize("dtype, most", [(torch.float32, 30), (torch.float64, 0)], ids=str)
def test_codes_differ_from_exact_ones_at_ties_alone(dtype, most):
    """Each of the few differences is a pair of codes that rounding cannot tell apart."""
    x, codebook = sample(20000, 64, 512, dtype)
    codes = vector_quantize(x, codebook, backend="cpp")[0]
    x, codebook = x.double(), codebook.double()
    exact = nearest_codes(x, codebook)
    rows = (codes != exact).nonzero()[:, 0]
    assert len(rows) <= most, f"{len(rows)} of {len(codes)} codes differ"
    excess = ((x[rows] - codebook[codes[rows]]) ** 2 - (x[rows] - codebook[exact[rows]]) ** 2).sum(1)
    scale = (x[rows] ** 2).sum(1) + (codebook[codes[rows]] ** 2).sum(1)
    assert (excess <= 8 * torch.finfo(dtype).eps * scale).all()


def distances(x, codebook):
    return torch.cdist(x.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [3.0, 100.0, 1000.0, -30000.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_are_exact_far_from_the_origin(backend, offset, dtype):
    """All of them, but for pairs of codes that are equal within the rounding of their distances."""
    x, codebook = sample(2000, 64, 256, torch.float64)
    # Half precision holds values far away that differ by more than its spacing there.
    spread = 1 if dtype == torch.float32 else max(1, abs(offset) / 64)
    x, codebook = ((offset + spread * values).to(dtype) for values in (x, codebook))
    codes, quantized, loss = vector_quantize(x, codebook, 0.25, 0.5, backend=backend)
    every = distances(x, codebook)
    got, least = every.gather(1, codes[:, None])[:, 0], every.amin(1)
    assert (got > least).sum() <= 2, f"{int((got > least).sum())} of {len(codes)} codes differ"
    assert (got <= least * (1 + 1e-5)).all()
    testing.assert_identical(quantized, codebook[codes])
    testing.assert_matches(loss, 0.75 * got.mean() / 64, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_coordinates_have_centres_of_their_own(backend):
    """Of very different size and spread; one of a single value; ends within a vector and within 16 sums."""
    x, codebook = sample(500, 37, 70)
    scale, offset = 10.0 ** (torch.arange(37) % 3), 1e4 * (torch.arange(37) % 4 - 1)
    x, codebook = ((offset + scale * values).float() for values in (x, codebook))
    x[:, 5] = codebook[:, 5] = 12345.678
    codes = vector_quantize(x, codebook, backend=backend)[0]
    assert torch.equal(codes, distances(x, codebook).argmin(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_bad_code_far_from_the_origin_spoils_its_coordinate_alone(value):
    x, codebook = sample(300, 16, 70, torch.float32)
    x[:, 1:] += 1000
    codebook[:, 1:] += 1000
    codebook[5, 0] = value
    without = [k for k in range(70) if k != 5]
    exact = torch.tensor(without)[distances(x, codebook[without]).argmin(1)]
    assert torch.equal(vector_quantize(x, codebook, backend="cpp")[0], exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_far_from_the_origin_take_the_lowest_code(backend, dtype):
    generator = torch.Generator().manual_seed(0)
    x, codebook = (torch.randint(99, 102, (n, 3), generator=generator).to(dtype) for n in (300, 333))
    squares = distances(x, codebook)
    lowest = torch.where(squares.round() == squares.amin(1, keepdim=True).round(), torch.arange(333), 333).amin(1)
    assert torch.equal(vector_quantize(x, codebook, backend=backend)[0], lowest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_take_the_lowest_code(backend, dtype):
    """Whole numbers, whose products are exact: vectors that many codes share, in every part of a register."""
    generator = torch.Generator().manual_seed(0)
    x, codebook = (torch.randint(-1, 2, (n, 3), generator=generator).to(dtype) for n in (300, 333))
    codes = vector_quantize(x, codebook, backend=backend)[0]
    squares = ((x[:, None] - codebook) ** 2).sum(2).double()
    lowest = torch.where(squares == squares.amin(1, keepdim=True), torch.arange(333), 333).amin(1)
    assert torch.equal(codes, lowest)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_bad_rows_harm_nobody(value):
    x, codebook = sample(100, 5, 70, torch.float32)
    expected = vector_quantize(x, codebook, backend="cpp")[0]
    bad = x.clone()
    bad[17, 2] = value
    codes = vector_quantize(bad, codebook, backend="cpp")[0]
    assert 0 <= codes[17] < 70
    others = torch.arange(100) != 17
    assert torch.equal(codes[others], expected[others])
    codebook[5] = value
    codes = vector_quantize(x, codebook, backend="cpp")[0]
    without = [k for k in range(70) if k != 5]
    assert torch.equal(codes, torch.tensor(without)[vector_quantize(x, codebook[without], backend="cpp")[0]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_formula(backend):
    x, codebook = (tensor.requires_grad_() for tensor in sample())
    _, quantized, loss = vector_quantize(x, codebook, 0.3, 0.7, backend=backend)
    direction = torch.randn_like(quantized)
    of_x, of_codebook = torch.autograd.grad((quantized, loss), (x, codebook), (direction, torch.tensor(2.0).double()))
    error = (x - quantized).detach()
    testing.assert_matches(of_x, direction + 2 * 0.3 * 2 / x.numel() * error)
    codes = vector_quantize(x, codebook, backend=backend)[0]
    expected = torch.zeros_like(codebook).index_add(0, codes, error)
    testing.assert_matches(of_codebook, -2 * 0.7 * 2 / x.numel() * expected)


def test_value_passes_its_gradient_unchanged():
    x, codebook = (tensor.requires_grad_() for tensor in sample(dtype=torch.float32))
    quantized = vector_quantize(x, codebook, backend="cpp")[1]
    direction = torch.randn_like(quantized)
    of_x, of_codebook = torch.autograd.grad(quantized, (x, codebook), direction)
    testing.assert_identical(of_x, direction)
    assert not of_codebook.any()


def test_codebook_gradient_is_made_where_it_is_wanted():
    x, codebook = sample(dtype=torch.float32)
    codes, quantized, loss = vector_quantize(x, codebook, backend="cpp")
    backward = torch.ops.genfast.vector_quantize_backward
    given = torch.ones_like(quantized), torch.ones_like(loss), x, codebook, codes, 0.25, 1.0
    alone, nothing = backward(*given, 1, backend="cpp")
    both, of_codebook = backward(*given, 3, backend="cpp")
    assert nothing.numel() == 0 and of_codebook.shape == codebook.shape
    testing.assert_identical(alone, both)


def test_codebook_gradient_does_not_cancel():
    """Vectors near their codes and far from zero: count e - sum x would keep two digits."""
    x, codebook = sample(4000, 6, 8, torch.float32)
    x = (1000 + 10 * codebook)[torch.arange(4000) % 8] + 1e-2 * x
    codebook = (1000 + 10 * codebook).requires_grad_()

    def gradient(x, codebook, backend):
        return torch.autograd.grad(vector_quantize(x, codebook, backend=backend)[2], codebook)[0]

    expected = gradient(x.double(), codebook.double(), "reference")
    got = gradient(x, codebook, "cpp")
    testing.assert_matches(got, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("offset", [0, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_for_batches_threads_and_isas(dtype, offset):
    """More rows than a chunk, and codes that end within a tile, a vector and a panel."""
    x, codebook = (values.add(offset).to(dtype) for values in sample(700, 33, 1041))
    active = genfast.backends()["cpp"]
    with testing.threads(1):
        expected = vector_quantize(x, codebook, backend="cpp")
        for size in (1, 5, 241, 500):
            parts = [vector_quantize(part, codebook, backend="cpp")[0] for part in x.split(size)]
            assert torch.equal(torch.cat(parts), expected[0])
    for isa, count in [(active.isa, 2), (active.isa, 3), *((isa, 1) for isa in active.isas)]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = vector_quantize(x, codebook, backend="cpp")
        finally:
            genfast.set_isa(active.isa)
        for a, b in zip(got, expected):
            testing.assert_identical(a, b, name=f"{isa}, {count} threads")


def test_vectors_that_fill_a_cache():
    x, codebook = sample(30, 5000, 70, torch.float32)
    assert torch.equal(vector_quantize(x, codebook, backend="cpp")[0], nearest_codes(x.double(), codebook.double()))


@pytest.mark.parametrize("depth", (3, 33))
def test_statistics_are_summed_in_order(depth):
    """As numpy adds one row after the other, to the bit."""
    x, _ = sample(999, depth, dtype=torch.float32)
    codes = torch.randint(40, (999,), generator=torch.Generator().manual_seed(1)) // 2 * 2
    expected = np.zeros((41, depth), np.float32)
    np.add.at(expected, codes.numpy(), x.numpy())
    for threads in (1, 2, 3):
        with testing.threads(threads):
            counts, sums = codebook_statistics(x, codes, 41, backend="cpp")
        assert np.array_equal(sums.numpy(), expected)
        assert np.array_equal(counts.numpy(), np.bincount(codes.numpy(), minlength=41))


def test_a_code_that_is_none_counts_nowhere():
    """What only a compiled graph can ask for, which does not look at values, writes outside no memory."""
    x, codes = torch.ones(4, 3), torch.tensor([0, 7, -1, 2**40])
    counts, sums = torch.ops.genfast.codebook_statistics(x, codes, 2, backend="cpp")
    assert counts.tolist() == [1, 0] and sums.tolist() == [[1, 1, 1], [0, 0, 0]]
    codebook, ones = torch.zeros(2, 3), torch.ones(())
    of_x, of_codebook = torch.ops.genfast.vector_quantize_backward(x, ones, x, codebook, codes, 1.0, 1.0, 2)
    assert of_x.isfinite().all() and not of_codebook[1].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows(backend):
    x, codebook = (tensor.requires_grad_() for tensor in sample(0))
    codes, quantized, loss = vector_quantize(x, codebook, backend=backend)
    assert codes.shape == (0,) and quantized.shape == x.shape and loss == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, (x, codebook), materialize_grads=True))


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    "error, match, call",
    [
        (ValueError, r"codebook must have shape .* K>=1, D=2; got \(0, 2\)", lambda: vector_quantize(X, X[:0])),
        (ValueError, r"codebook must have shape .*; got \(3, 1\)", lambda: vector_quantize(X, X[:, :1])),
        (ValueError, r"x must have shape .* with D>=1; got \(3, 0\)", lambda: vector_quantize(X[:, :0], X[:, :0])),
        (TypeError, "codebook must have the dtype of x", lambda: vector_quantize(X, X.double())),
        (ValueError, "commitment must be finite and at least 0; got -1", lambda: vector_quantize(X, X, -1)),
        (TypeError, "codebook_weight must be a number; got str", lambda: vector_quantize(X, X, 1, "1")),
        (TypeError, "codes must be an int64 tensor", lambda: codebook_statistics(X, X[:, 0], 2)),
        (
            ValueError,
            r"codes must lie in 0 .. 1; got 2",
            lambda: codebook_statistics(X, torch.tensor([0, 2, 1]), 2),
        ),
        (ValueError, r"codes must have shape \[N\] with N=3", lambda: codebook_statistics(X, torch.tensor([0]), 2)),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
