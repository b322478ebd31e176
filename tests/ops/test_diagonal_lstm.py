"""What is special to `diagonal_lstm`: its independent judges, its causality, and its errors."""

import re

import pytest
import torch

from genfast import diagonal_lstm, testing
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")


def sample(**sizes):
    return SPECS["diagonal_lstm"].inputs(sizes, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("directions", [1, 2])
def test_one_row_is_torch_lstm(backend, directions):
    """H = 1 and zero taps above: `torch.nn.LSTM`, bidirectional for D = 2, in the output and in every gradient."""
    batch, width, features, size = 3, 9, 5, 7
    judge = torch.nn.LSTM(features, size, batch_first=True, bidirectional=directions == 2, dtype=torch.float64)
    x = torch.randn(batch, width, features, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, directions, size, dtype=torch.float64).requires_grad_()
    expected, _ = judge(x, tuple(s[:, None].expand(-1, batch, -1).contiguous() for s in (h0, c0)))
    names = [f"l0{'_reverse' * d}" for d in range(directions)]

    def stacked(kind):
        return torch.stack([getattr(judge, f"{kind}_{name}") for name in names])

    gates = torch.einsum("bwf,dgf->bwdg", x, stacked("weight_ih")) + stacked("bias_ih") + stacked("bias_hh")
    side = stacked("weight_hh").transpose(1, 2)
    got = diagonal_lstm(gates[:, None], torch.stack((torch.zeros_like(side), side), 1), h0, c0, backend=backend)
    got = got[:, 0].flatten(2)
    testing.assert_matches(got, expected)
    leaves, incoming = (x, h0, c0, *judge.parameters()), torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(got, leaves, incoming), torch.autograd.grad(expected, leaves, incoming)):
        testing.assert_matches(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_column_is_torch_lstm_cell(backend):
    """W = 1 with the taps exchanged: `torch.nn.LSTMCell` down the rows; the cell comes from the side, so from c0."""
    batch, height, features, size = 3, 6, 5, 4
    judge = torch.nn.LSTMCell(features, size, dtype=torch.float64)
    x = torch.randn(batch, height, features, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, 1, size, dtype=torch.float64).requires_grad_()
    states, h = [], h0.expand(batch, -1)
    for i in range(height):
        h, _ = judge(x[:, i], (h, c0.expand(batch, -1)))
        states.append(h)
    expected = torch.stack(states, 1)
    gates = (x @ judge.weight_ih.T + judge.bias_ih + judge.bias_hh)[:, :, None, None]
    above = judge.weight_hh.T[None]
    got = diagonal_lstm(gates, torch.stack((above, torch.zeros_like(above)), 1), h0, c0, backend=backend)
    got = got[:, :, 0, 0]
    testing.assert_matches(got, expected)
    leaves, incoming = (x, h0, c0, *judge.parameters()), torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(got, leaves, incoming), torch.autograd.grad(expected, leaves, incoming)):
        testing.assert_matches(a, b)


def by_the_book(gates, weight, h0, c0):
    """The docstring's formula, pixel by pixel."""
    batch, height, width, directions, size = *gates.shape[:4], weight.shape[2]
    hidden = torch.empty(batch, height, width, directions, size, dtype=gates.dtype)
    for b in range(batch):
        for d, step in enumerate((1, -1)[:directions]):
            h, c = {}, {}
            for i in range(height):
                for j in range(width)[::step]:
                    side = h.get((i, j - step), h0[d])
                    a = gates[b, i, j, d] + h.get((i - 1, j), h0[d]) @ weight[d, 0] + side @ weight[d, 1]
                    p, f, g, o = a.split(size)
                    c[i, j] = f.sigmoid() * c.get((i, j - step), c0[d]) + p.sigmoid() * g.tanh()
                    hidden[b, i, j, d] = h[i, j] = o.sigmoid() * c[i, j].tanh()
    return hidden


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (5, 3), (4, 4), (1, 6), (6, 1)])
def test_formula_pixel_by_pixel(backend, height, width):
    inputs = sample(B=2, H=height, W=width, D=2, C=3)
    testing.assert_matches(diagonal_lstm(**inputs, backend=backend), by_the_book(**inputs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_boundary_is_zero(backend):
    inputs = sample(B=2, H=3, W=4, D=2, C=3)
    zeros = torch.zeros_like(inputs["h0"])
    expected = diagonal_lstm(inputs["gates"], inputs["weight"], zeros, zeros, backend=backend)
    testing.assert_identical(diagonal_lstm(inputs["gates"], inputs["weight"], backend=backend), expected)
    got = diagonal_lstm(inputs["gates"], inputs["weight"], c0=inputs["c0"], backend=backend)
    expected = diagonal_lstm(inputs["gates"], inputs["weight"], zeros, inputs["c0"], backend=backend)
    testing.assert_identical(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_causal_and_complete(backend):
    """Pixel (i, j) moves exactly the pixels at or below it that its direction reaches, and no other image."""
    inputs = sample(B=2, H=5, W=6, D=2, C=3)
    before = diagonal_lstm(**inputs, backend=backend)
    rows, columns = torch.arange(5)[:, None], torch.arange(6)
    for i in range(5):
        for j in range(6):
            gates = inputs["gates"].clone()
            gates[0, i, j] += 1
            moved = (diagonal_lstm(**{**inputs, "gates": gates}, backend=backend) != before).any(-1)
            assert not moved[1].any()
            assert torch.equal(moved[0, :, :, 0], (rows >= i) & (columns >= j)), (i, j)
            assert torch.equal(moved[0, :, :, 1], (rows >= i) & (columns <= j)), (i, j)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_saturated_gates(backend, scale):
    """Huge pre-activations give ones, zeros and exact zero gradients, never NaN."""
    inputs = sample(B=2, H=3, W=4, D=2, C=5)
    for dtype in (torch.float32, torch.float64):
        extreme = {n: t.to(dtype) for n, t in {**inputs, "gates": inputs["gates"] * scale}.items()}
        got = testing.evaluate(diagonal_lstm, extreme, backend=backend)
        truth = testing.evaluate(SPECS["diagonal_lstm"].reference, {n: t.double() for n, t in extreme.items()})
        for name in truth:
            testing.assert_matches(got[name], truth[name], name=name, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number_spreads_causally(backend):
    """A NaN pixel is never hidden, and never reaches what cannot see it."""
    inputs = sample(B=2, H=3, W=4, D=2, C=5)
    inputs["gates"][1, 1, 2, :, 0] = torch.nan
    hidden = diagonal_lstm(**inputs, backend=backend)
    assert hidden[1, 1:, 2:, 0].isnan().any(-1).all() and hidden[1, 1:, :3, 1].isnan().any(-1).all()
    assert not hidden[0].isnan().any() and not hidden[1, 0].isnan().any()


def test_output_may_not_be_changed_before_backward():
    """The hidden map is kept for the backward pass: torch must see a change of it."""
    inputs = sample(B=1, H=2, W=2, D=1, C=2)
    hidden = diagonal_lstm(inputs["gates"].requires_grad_(), inputs["weight"])
    hidden.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hidden.sum().backward()


def shaped(*shape, **options):
    return torch.ones(*shape, **options)


GATES, WEIGHT = shaped(1, 2, 3, 1, 64), shaped(1, 2, 16, 64)
META = {"device": "meta"}
BAD = {
    "weight must have shape [D, 2, C, 4C] with D=1, C=16; got (1, 2, 16, 48)": (GATES, shaped(1, 2, 16, 48)),
    "weight must have shape [D, 2, C, 4C] with D=1, C=16; got (2, 2, 16, 64)": (GATES, shaped(2, 2, 16, 64)),
    "gates must have shape [B, H, W, D, 4C] with D=1 or 2, C>=1; got (2, 3, 1, 64)": (GATES[0], WEIGHT),
    "gates must have shape [B, H, W, D, 4C] with D=1 or 2, C>=1; got (1, 2, 3, 3, 8)": (shaped(1, 2, 3, 3, 8), WEIGHT),
    "gates must have shape [B, H, W, D, 4C] with D=1 or 2, C>=1; got (1, 2, 3, 1, 6)": (shaped(1, 2, 3, 1, 6), WEIGHT),
    "gates must have shape [B, H, W, D, 4C] with D=1 or 2, C>=1; got (1, 2, 3, 1, 0)": (shaped(1, 2, 3, 1, 0), WEIGHT),
    "h0 must have shape [D, C] with D=1, C=16; got (16,)": (GATES, WEIGHT, shaped(16)),
    "c0 must have shape [D, C] with D=1, C=16; got (1, 15)": (GATES, WEIGHT, shaped(1, 16), shaped(1, 15)),
    "weight must have the dtype of gates, torch.float32; got torch.float64": (GATES, WEIGHT.double()),
    "gates must have dtype float32, float64, bfloat16 or float16; got torch.int64": (GATES.long(), WEIGHT.long()),
    "weight must be a torch.Tensor; got list": (GATES, WEIGHT.tolist()),
    "gates must be a torch.Tensor; got NoneType": (None, WEIGHT),
    "gates must be a strided tensor; got layout torch.sparse_coo": (GATES.to_sparse(), WEIGHT),
    "weight must be on the device of gates, cpu; got meta": (GATES, shaped(1, 2, 16, 64, **META)),
    "c0 must be on the device of gates, cpu; got meta": (GATES, WEIGHT, None, shaped(1, 16, **META)),
}


@pytest.mark.parametrize("backend", ["auto", "reference", "cpp", "triton"])
@pytest.mark.parametrize("message", BAD)
def test_bad_input(message, backend):
    kind = TypeError if re.search("dtype|torch.Tensor|strided", message) else ValueError
    with pytest.raises(kind) as error:
        diagonal_lstm(*BAD[message], backend=backend)
    assert str(error.value) == f"diagonal_lstm: {message}"
