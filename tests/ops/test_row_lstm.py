"""What is special to `row_lstm`: its independent judges, the triangle that a pixel reads, and its errors."""

import re

import pytest
import torch

from genfast import row_lstm, testing
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")


def sample(**sizes):
    return SPECS["row_lstm"].inputs(sizes, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 4])
def test_without_the_outer_taps_a_column_is_torch_lstm(backend, width):
    """Zero taps at the left and right: `torch.nn.LSTM` down every column, in the output and in every gradient."""
    batch, height, features, size = 3, 7, 5, 6
    judge = torch.nn.LSTM(features, size, batch_first=True, dtype=torch.float64)
    x = torch.randn(batch, height, width, features, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, size, dtype=torch.float64).requires_grad_()
    columns = x.transpose(1, 2).flatten(0, 1)
    expected, _ = judge(columns, tuple(s.expand(1, batch * width, -1).contiguous() for s in (h0, c0)))
    expected = expected.unflatten(0, (batch, width)).transpose(1, 2)
    gates = x @ judge.weight_ih_l0.T + judge.bias_ih_l0 + judge.bias_hh_l0
    middle = judge.weight_hh_l0.T
    weight = torch.stack((torch.zeros_like(middle), middle, torch.zeros_like(middle)))
    got = row_lstm(gates, weight, h0, c0, backend=backend)
    testing.assert_matches(got, expected)
    leaves, incoming = (x, h0, c0, *judge.parameters()), torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(got, leaves, incoming), torch.autograd.grad(expected, leaves, incoming)):
        testing.assert_matches(a, b)


def by_the_book(gates, weight, h0, c0):
    """The docstring's formula, pixel by pixel."""
    batch, height, width, size = *gates.shape[:3], weight.shape[1]
    hidden = torch.empty(batch, height, width, size, dtype=gates.dtype)
    for b in range(batch):
        h, c = {}, {}
        for i in range(height):
            for j in range(width):
                a = gates[b, i, j]
                for tap in range(3):
                    a = a + h.get((i - 1, j - 1 + tap), h0) @ weight[tap]
                p, f, g, o = a.split(size)
                c[i, j] = f.sigmoid() * c.get((i - 1, j), c0) + p.sigmoid() * g.tanh()
                hidden[b, i, j] = h[i, j] = o.sigmoid() * c[i, j].tanh()
    return hidden


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (5, 3), (4, 2), (1, 6), (6, 1)])
def test_formula_pixel_by_pixel(backend, height, width):
    inputs = sample(B=2, H=height, W=width, C=3)
    expected = testing.evaluate(by_the_book, inputs)
    got = testing.evaluate(row_lstm, inputs, backend=backend)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_boundary_is_zero(backend):
    inputs = sample(B=2, H=3, W=4, C=3)
    zeros = torch.zeros_like(inputs["h0"])
    expected = row_lstm(inputs["gates"], inputs["weight"], zeros, zeros, backend=backend)
    testing.assert_identical(row_lstm(inputs["gates"], inputs["weight"], backend=backend), expected)
    got = row_lstm(inputs["gates"], inputs["weight"], c0=inputs["c0"], backend=backend)
    expected = row_lstm(inputs["gates"], inputs["weight"], zeros, inputs["c0"], backend=backend)
    testing.assert_identical(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_exactly_a_triangle(backend):
    """Pixel (i, j) moves itself and, k rows further down, the columns j - k to j + k; nothing else, no other image."""
    inputs = sample(B=2, H=5, W=6, C=3)
    before = row_lstm(**inputs, backend=backend)
    rows, columns = torch.arange(5)[:, None], torch.arange(6)
    for i in range(5):
        for j in range(6):
            gates = inputs["gates"].clone()
            gates[0, i, j] += 1
            moved = (row_lstm(**{**inputs, "gates": gates}, backend=backend) != before).any(-1)
            assert not moved[1].any()
            assert torch.equal(moved[0], (columns - j).abs() <= rows - i), (i, j)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_saturated_gates(backend, scale):
    """Huge pre-activations give ones, zeros and exact zero gradients, never NaN."""
    inputs = sample(B=2, H=3, W=4, C=5)
    for dtype in (torch.float32, torch.float64):
        extreme = {n: t.to(dtype) for n, t in {**inputs, "gates": inputs["gates"] * scale}.items()}
        got = testing.evaluate(row_lstm, extreme, backend=backend)
        truth = testing.evaluate(SPECS["row_lstm"].reference, {n: t.double() for n, t in extreme.items()})
        for name in truth:
            testing.assert_matches(got[name], truth[name], name=name, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number_spreads_causally(backend):
    """A NaN pixel is never hidden, and never reaches what cannot see it."""
    inputs = sample(B=2, H=3, W=5, C=5)
    inputs["gates"][1, 1, 3, 0] = torch.nan
    hidden = row_lstm(**inputs, backend=backend).isnan().any(-1)
    expected = torch.zeros_like(hidden)
    expected[1, 1, 3] = expected[1, 2, 2:] = True
    assert torch.equal(hidden, expected)


def shaped(*shape, **options):
    return torch.ones(*shape, **options)


GATES, WEIGHT = shaped(1, 2, 3, 64), shaped(3, 16, 64)
META = {"device": "meta"}
BAD = {
    "weight must have shape [3, C, 4C] with C=16; got (3, 16, 48)": (GATES, shaped(3, 16, 48)),
    "weight must have shape [3, C, 4C] with C=16; got (2, 16, 64)": (GATES, shaped(2, 16, 64)),
    "gates must have shape [B, H, W, 4C] with C>=1; got (2, 3, 64)": (GATES[0], WEIGHT),
    "gates must have shape [B, H, W, 4C] with C>=1; got (1, 2, 3, 1, 64)": (GATES[:, :, :, None], WEIGHT),
    "gates must have shape [B, H, W, 4C] with C>=1; got (1, 2, 3, 6)": (shaped(1, 2, 3, 6), WEIGHT),
    "gates must have shape [B, H, W, 4C] with C>=1; got (1, 2, 3, 0)": (shaped(1, 2, 3, 0), WEIGHT),
    "h0 must have shape [C] with C=16; got (1, 16)": (GATES, WEIGHT, shaped(1, 16)),
    "c0 must have shape [C] with C=16; got (15,)": (GATES, WEIGHT, shaped(16), shaped(15)),
    "weight must have the dtype of gates, torch.float32; got torch.float64": (GATES, WEIGHT.double()),
    "gates must have dtype float32, float64, bfloat16 or float16; got torch.int64": (GATES.long(), WEIGHT.long()),
    "weight must be a torch.Tensor; got list": (GATES, WEIGHT.tolist()),
    "gates must be a strided tensor; got layout torch.sparse_coo": (GATES.to_sparse(), WEIGHT),
    "weight must be on the device of gates, cpu; got meta": (GATES, shaped(3, 16, 64, **META)),
    "c0 must be on the device of gates, cpu; got meta": (GATES, WEIGHT, None, shaped(16, **META)),
}


@pytest.mark.parametrize("backend", ["auto", "reference", "cpp", "triton"])
@pytest.mark.parametrize("message", BAD)
def test_bad_input(message, backend):
    kind = TypeError if re.search("dtype|torch.Tensor|strided", message) else ValueError
    with pytest.raises(kind) as error:
        row_lstm(*BAD[message], backend=backend)
    assert str(error.value) == f"row_lstm: {message}"
