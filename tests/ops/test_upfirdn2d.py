"""What is special to upfirdn2d: scipy and plain loops as judges, gradients of any order, edges, padding, errors."""

import re
import sys

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings, strategies
from torch.nn import functional as F

import genfast
from genfast import testing
from genfast.reference.upfirdn2d import upfirdn2d_ref

parametrize = pytest.mark.parametrize
BACKENDS = ("reference", "cpp")


def loops(x, filter, up, down, padding):
    """The sum of the docstring, one output at a time; `filter` [KH, KW], `x` [H, W]."""
    (height, width), (rows, columns), (left, right, top, bottom) = x.shape, filter.shape, padding
    outputs = np.zeros(
        (
            (height * up[0] + top + bottom - rows) // down[0] + 1,
            (width * up[1] + left + right - columns) // down[1] + 1,
        )
    )
    for at in np.ndindex(*outputs.shape):
        for k in np.ndindex(rows, columns):
            v = at[0] * down[0] + rows - 1 - k[0] - top
            h = at[1] * down[1] + columns - 1 - k[1] - left
            if v % up[0] == 0 and h % up[1] == 0 and 0 <= v // up[0] < height and 0 <= h // up[1] < width:
                outputs[at] += filter[k] * x[v // up[0], h // up[1]]
    return outputs


@parametrize("up, down, taps", [(1, 1, 4), (2, 1, 4), (3, 2, 7), (1, 2, 12), (2, 3, 5), (5, 4, 1), (4, 6, 9)])
@parametrize("backend", BACKENDS)
def test_rows_are_scipys(backend, up, down, taps):
    """scipy pads nothing, and makes all outputs that meet a sample."""
    x, filter = torch.randn(2, 3, 4, 37, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    expected = torch.from_numpy(scipy.signal.upfirdn(filter.numpy(), x.numpy(), up, down))
    padding = (taps - 1, taps - 1, 0, 0)
    got = genfast.upfirdn2d(x, filter[None], (1, up), (1, down), padding, backend=backend)
    testing.assert_matches(got[..., : expected.shape[-1]], expected)
    columns = genfast.upfirdn2d(x.mT, filter[:, None], (up, 1), (down, 1), (0, 0, *padding[:2]), backend=backend)
    testing.assert_matches(columns.mT[..., : expected.shape[-1]], expected)


@parametrize("backend", BACKENDS)
def test_one_dimension_is_both_axes(backend):
    x, filter = torch.randn(1, 2, 9, 14, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    both = x.numpy()
    for axis in (2, 3):
        both = scipy.signal.upfirdn(filter.numpy(), both, 2, 3, axis=axis)
    got = genfast.upfirdn2d(x, filter, 2, 3, 5, backend=backend)
    testing.assert_matches(got[:, :, : both.shape[2], : both.shape[3]], torch.from_numpy(both))


FACTORS, SIDES = strategies.integers(1, 5), strategies.integers(-6, 12)


@parametrize("backend", BACKENDS)
@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    size=strategies.tuples(strategies.integers(1, 9), strategies.integers(1, 40)),
    taps=strategies.tuples(strategies.integers(1, 9), strategies.integers(1, 9)),
    up=strategies.tuples(FACTORS, FACTORS),
    down=strategies.tuples(FACTORS, FACTORS),
    padding=strategies.tuples(SIDES, SIDES, SIDES, SIDES),
)
def test_is_the_sum_of_the_docstring(backend, size, taps, up, down, padding):
    left, right, top, bottom = padding
    # The padded image is to be as large as the filter.
    bottom = max(bottom, taps[0] - size[0] * up[0] - top)
    right = max(right, taps[1] - size[1] * up[1] - left)
    x, filter = torch.randn(size, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    expected = loops(x.numpy(), filter.numpy(), up, down, (left, right, top, bottom))
    arguments = (filter, up, down, (left, right, top, bottom))
    with testing.poisoned():
        got = genfast.upfirdn2d(testing.embedded(x[None, None]), *arguments, backend=backend)
    testing.assert_matches(got[0, 0], torch.from_numpy(expected))
    # <y, A x> = <A^T y, x> whatever the map is.
    leaf, weight = x[None, None].clone().requires_grad_(), torch.randn_like(got)
    (gradient,) = torch.autograd.grad(genfast.upfirdn2d(leaf, *arguments, backend=backend), leaf, weight)
    testing.assert_matches((gradient * leaf).sum(), (got * weight).sum(), atol=1e-10)


@parametrize("up, down, taps", [(1, 1, 4), (2, 1, 4), (1, 2, 4), (1, 2, 3), (2, 1, 3), (3, 1, 5), (1, 3, 4), (2, 2, 4)])
@parametrize("two", (False, True))
@parametrize("dtype", (torch.float32, torch.bfloat16))
def test_wide_rows(dtype, two, up, down, taps):
    """Past the blocks in which rows are made, and the bands of rows that threads take."""
    x, filter = torch.randn(1, 1, 19, 4999), torch.randn((taps, taps) if two else (taps,))
    x, filter = x.to(dtype), filter.to(dtype)
    padding = (taps, taps - 1, taps - 1, 1)
    got = genfast.upfirdn2d(x, filter, up, down, padding, backend="cpp")
    truth = upfirdn2d_ref(x.double(), filter.double(), (up, up), (down, down), padding)
    if dtype == torch.float32:
        testing.assert_matches(got, truth)
    else:
        rival = upfirdn2d_ref(x, filter, (up, up), (down, down), padding)
        testing.assert_no_worse(got, rival, truth)


def test_tall_planes_are_split():
    x, filter = torch.randn(1, 1, 700, 300), torch.randn(7)
    got = genfast.upfirdn2d(x, filter, (2, 1), (1, 1), 3, backend="cpp")
    testing.assert_matches(got, upfirdn2d_ref(x.double(), filter.double(), (2, 1), (1, 1), (3, 3, 3, 3)))
    with testing.threads(3):
        testing.assert_identical(genfast.upfirdn2d(x, filter, (2, 1), (1, 1), 3, backend="cpp"), got)


@parametrize("backend", BACKENDS)
def test_third_derivative(backend):
    """The gradient is the op itself, so that torch may go on: through a cube, to the third order."""
    torch.manual_seed(0)
    x, filter = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    leaf = x.requires_grad_()

    def derivatives(backend):
        y = genfast.upfirdn2d(leaf, filter, 2, 3, (3, 2, 1, 4), backend=backend)
        value = (y**4).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            yield gradient.detach()
            value = (gradient**2).sum()

    for order, (got, expected) in enumerate(zip(derivatives(backend), derivatives("reference"), strict=True), 1):
        scale = expected.abs().max()
        testing.assert_matches(got / scale, expected / scale, name=f"order {order}")


def test_no_reference_in_the_gradient(monkeypatch):
    def refuse(*args):
        raise AssertionError("upfirdn2d: expected the native op; got the reference")

    monkeypatch.setattr(sys.modules["genfast.ops.upfirdn2d"], "upfirdn2d_ref", refuse)
    leaf = torch.randn(1, 1, 4, 5, requires_grad=True)
    y = genfast.upfirdn2d(leaf, torch.ones(4), 2, 1, 2, backend="cpp")
    (first,) = torch.autograd.grad((y**2).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), leaf, create_graph=True)
    assert second.shape == leaf.shape and second.requires_grad


@parametrize("padding", [(900, 3, 2, 800), (-36, 40, -5, 9), (-30, -6, -4, -3), (40, -36, 9, -7)])
@parametrize("backend", BACKENDS)
def test_huge_and_negative_padding(backend, padding):
    x, filter = torch.randn(1, 1, 8, 37, dtype=torch.float64), torch.randn(1, 1, dtype=torch.float64)
    left, right, top, bottom = padding
    expected = F.pad(F.pad(x, [max(p, 0) for p in padding]), [min(p, 0) for p in padding]) * filter
    got = genfast.upfirdn2d(x, filter, padding=padding, backend=backend)
    assert got.shape == (1, 1, 8 + top + bottom, 37 + left + right)
    testing.assert_matches(got, expected)


@parametrize("up, down, taps", [(10**6, 10**6, 1), (1000, 1, 3), (1, 1000, 3), (7, 1000, 2)])
def test_huge_factors(up, down, taps):
    x, filter = torch.randn(1, 1, 1, 3, dtype=torch.float64), torch.randn(1, taps, dtype=torch.float64)
    padding = (down, 2 * down, 0, 0)
    got = genfast.upfirdn2d(x, filter, (1, up), (1, down), padding, backend="cpp")
    expected = loops(x[0, 0].numpy(), filter.numpy(), (1, up), (1, down), padding)
    testing.assert_matches(got[0, 0], torch.from_numpy(expected))


@parametrize("backend", BACKENDS)
def test_nan_outside_is_not_read(backend):
    """Neither beyond the edges of a plane, nor in what is cropped; a NaN inside is in what its taps reach alone."""
    x = torch.randn(3, 1, 6, 21)
    filter = torch.randn(3, 3)
    clean = genfast.upfirdn2d(x[1:2], filter, 2, 1, (2, 2, -4, -4), backend=backend)
    spoiled = x.clone()
    spoiled[0] = spoiled[2] = torch.nan
    spoiled[1, :, 0] = spoiled[1, :, 5] = torch.nan
    got = genfast.upfirdn2d(spoiled, filter, 2, 1, (2, 2, -4, -4), backend=backend)
    testing.assert_matches(got[1:2], clean)
    spoiled = x.clone()
    spoiled[1, 0, 3, 10] = torch.nan
    got = genfast.upfirdn2d(spoiled, filter, backend=backend)
    reached = torch.zeros_like(got, dtype=torch.bool)
    reached[1, 0, 1:4, 8:11] = True
    assert torch.equal(got.isnan(), reached)


@parametrize("backend", BACKENDS)
def test_errors(backend):
    x, filter = torch.randn(1, 1, 4, 4), torch.randn(3)
    for wrong, message in (
        ({"x": x[0]}, "x must have shape [N, C, H, W]; got (1, 4, 4)"),
        ({"filter": filter[:0]}, "filter must have shape [K] or [KH, KW] without zeros; got (0,)"),
        ({"filter": torch.randn(1, 1, 1)}, "filter must have shape [K] or [KH, KW] without zeros; got (1, 1, 1)"),
        ({"up": 0}, "up must be at least 1; got 0"),
        ({"down": (1, -1)}, "down must be at least 1; got (1, -1)"),
        ({"padding": -1}, "the padded image must be as large as the filter, 3 x 3; got 2 x 2 of x (1, 1, 4, 4)"),
        ({"filter": filter.clone().requires_grad_()}, "filter must not require a gradient"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"upfirdn2d: {message}")):
            genfast.upfirdn2d(**{"x": x, "filter": filter, **wrong}, backend=backend)
    for wrong in ({"up": 1.5}, {"down": (1, 2, 3)}, {"padding": (1, 2)}, {"up": True}, {"filter": filter.double()}):
        with pytest.raises(TypeError, match=f"upfirdn2d: {next(iter(wrong))} must"):
            genfast.upfirdn2d(**{"x": x, "filter": filter, **wrong}, backend=backend)
