"""What is special to `diagonal_block`: its composition, its causality, and its errors."""

import re

import pytest
import torch

import genfast
from genfast import diagonal_block, testing
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")


def sample(dtype=torch.float64, **sizes):
    return SPECS["diagonal_block"].inputs(sizes, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_row_is_torch_lstm(backend):
    """In the first row only the left-to-right map is added: an `nn.LSTM`, a linear layer and a residual."""
    inputs = sample(B=3, H=1, W=8, F=5, C=4)
    inputs["weight"][:, 0] = 0
    judge = torch.nn.LSTM(5, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        judge.weight_ih_l0.copy_(inputs["input_weight"][:, 0].T)
        judge.weight_hh_l0.copy_(inputs["weight"][0, 1].T)
        judge.bias_ih_l0.copy_(inputs["input_bias"][0])
        judge.bias_hh_l0.zero_()
        start = tuple(s[:1, None].expand(-1, 3, -1).contiguous() for s in (inputs["h0"], inputs["c0"]))
        hidden, _ = judge(inputs["x"][:, 0], start)
        expected = inputs["x"][:, 0] + hidden @ inputs["output_weight"] + inputs["output_bias"]
    testing.assert_matches(diagonal_block(**inputs, backend=backend)[:, 0], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_scan_with_what_surrounds_it(backend):
    inputs = sample(B=2, H=4, W=5, F=3, C=2)

    def composed(x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias):
        gates = torch.einsum("bhwf,fdg->bhwdg", x, input_weight) + input_bias
        hidden = genfast.diagonal_lstm(gates, weight, h0, c0)
        first, rest = hidden[:, :1, :, 0], hidden[:, 1:, :, 0] + hidden[:, :-1, :, 1]
        return x + torch.cat((first, rest), 1) @ output_weight + output_bias

    got = testing.evaluate(diagonal_block, inputs, backend=backend)
    expected = testing.evaluate(composed, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_causal_and_complete(backend):
    """Pixel (i, j) moves itself, all to its right and every row below; nothing before it, no other image."""
    inputs = sample(B=2, H=4, W=5, F=3, C=2)
    before = diagonal_block(**inputs, backend=backend)
    rows, columns = torch.arange(4)[:, None], torch.arange(5)
    for i in range(4):
        for j in range(5):
            x = inputs["x"].clone()
            x[0, i, j] += 1
            moved = (diagonal_block(**{**inputs, "x": x}, backend=backend) != before).any(-1)
            assert not moved[1].any()
            assert torch.equal(moved[0], (rows > i) | ((rows == i) & (columns >= j))), (i, j)


@pytest.mark.parametrize("layers", [1, 3])
def test_training_step_agrees_with_the_reference(layers):
    """Stacked layers, one optimiser step in float32: the parameters end where those of the reference end."""

    def train(backend):
        torch.manual_seed(0)
        inputs = [sample(torch.float32, B=4, H=6, W=7, F=6, C=3) for _ in range(layers)]
        x = inputs[0]["x"]
        stack = [[t.clone().requires_grad_() for n, t in m.items() if n != "x"] for m in inputs]
        parameters = [t for layer in stack for t in layer]
        optimiser = torch.optim.SGD(parameters, lr=1e-3)
        for layer in stack:
            x = diagonal_block(x, *layer, backend=backend)
        x.square().mean().backward()
        optimiser.step()
        return parameters

    for got, expected in zip(train("cpp"), train("reference")):
        testing.assert_matches(got, expected)


def shaped(*shape, **options):
    return torch.ones(*shape, **options)


GOOD = {name: shaped(*t.shape) for name, t in sample(B=2, H=3, W=4, F=6, C=5).items()}
SIZES = "with F=6, C=5; got"
BAD = {
    "x must have shape [B, H, W, F] with F>=1; got (3, 4, 6)": {"x": shaped(3, 4, 6)},
    "x must have shape [B, H, W, F] with F>=1; got (2, 3, 4, 0)": {"x": shaped(2, 3, 4, 0)},
    "weight must have shape [2, 2, C, 4C] with C>=1; got (2, 5, 20)": {"weight": shaped(2, 5, 20)},
    f"weight must have shape [2, 2, C, 4C] {SIZES} (1, 2, 5, 20)": {"weight": shaped(1, 2, 5, 20)},
    f"input_weight must have shape [F, 2, 4C] {SIZES} (7, 2, 20)": {"input_weight": shaped(7, 2, 20)},
    f"input_bias must have shape [2, 4C] {SIZES} (20,)": {"input_bias": shaped(20)},
    f"h0 must have shape [2, C] {SIZES} (1, 5)": {"h0": shaped(1, 5)},
    f"c0 must have shape [2, C] {SIZES} (2, 6)": {"c0": shaped(2, 6)},
    f"output_weight must have shape [C, F] {SIZES} (6, 5)": {"output_weight": shaped(6, 5)},
    f"output_bias must have shape [F] {SIZES} (5,)": {"output_bias": shaped(5)},
    "h0 must be a torch.Tensor; got NoneType": {"h0": None},
    "x must have dtype float32, float64, bfloat16 or float16; got torch.uint8": {"x": GOOD["x"].byte()},
    "weight must have the dtype of x, torch.float32; got torch.bfloat16": {"weight": GOOD["weight"].bfloat16()},
    "output_bias must be on the device of x, cpu; got meta": {"output_bias": shaped(6, device="meta")},
}


@pytest.mark.parametrize("backend", ["auto", "reference", "cpp", "triton"])
@pytest.mark.parametrize("message", BAD)
def test_bad_input(message, backend):
    kind = TypeError if re.search("dtype|torch.Tensor|strided", message) else ValueError
    with pytest.raises(kind) as error:
        diagonal_block(**{**GOOD, **BAD[message]}, backend=backend)
    assert str(error.value) == f"diagonal_block: {message}"
