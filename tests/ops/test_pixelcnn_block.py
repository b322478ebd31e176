"""What is special to `pixelcnn_block`: its composition, its causality, ReLUs at 0, and its errors."""

import re

import pytest
import torch
from torch.nn import functional as F

import genfast
from genfast import pixelcnn_block, testing
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def sample(dtype=torch.float64, **sizes):
    return SPECS["pixelcnn_block"].inputs({"B": 2, "H": 4, "W": 5, "F": 6, "C": 3, "K": 3} | sizes, dtype=dtype)


@every_backend
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_is_what_plain_layers_compute(taps, backend):
    inputs = sample(K=taps)
    mask = torch.zeros(taps, taps, dtype=torch.float64)
    mask.view(-1)[: taps * taps // 2 + 1] = 1  # raster order up to the centre

    def composed(x, down_weight, down_bias, weight, bias, up_weight, up_bias):
        image = x.permute(0, 3, 1, 2)
        inner = F.relu(F.conv2d(F.relu(image), down_weight[:, :, None, None], down_bias))
        outer = F.relu(F.conv2d(inner, weight * mask, bias, padding=taps // 2))
        return (image + F.conv2d(outer, up_weight[:, :, None, None], up_bias)).permute(0, 2, 3, 1)

    got, expected = testing.evaluate(pixelcnn_block, inputs, backend=backend), testing.evaluate(composed, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@every_backend
def test_causal_and_complete(backend):
    """A pixel moves itself, its right neighbour and three below; nothing before it, no other image."""
    inputs = {name: tensor.abs() + 0.1 for name, tensor in sample().items()}
    before = pixelcnn_block(**inputs, backend=backend)
    for i in range(4):
        for j in range(5):
            x = inputs["x"].clone()
            x[0, i, j] += 1
            moved = (pixelcnn_block(**inputs | {"x": x}, backend=backend) != before).any(3)
            expected = torch.zeros(2, 4, 5, dtype=torch.bool)
            expected[0, i, j : j + 2] = True
            expected[0, i + 1 : i + 2, max(0, j - 1) : j + 2] = True
            assert torch.equal(moved, expected), (i, j)


@every_backend
def test_relus_at_zero(backend):
    """The derivative of a ReLU at 0 is 0: of x = 0 only the residual is left."""
    inputs = sample()
    inputs["x"] = torch.zeros_like(inputs["x"])
    leaf = inputs["x"].requires_grad_()
    y = pixelcnn_block(**inputs | {"x": leaf}, backend=backend)
    incoming = torch.randn_like(y)
    testing.assert_identical(torch.autograd.grad(y, leaf, incoming)[0], incoming)


@every_backend
def test_nan_passes(backend):
    inputs = sample()
    inputs["x"][0, 1, 2, 0] = torch.nan
    y = pixelcnn_block(**inputs, backend=backend)
    assert y[0, 1, 2].isnan().all() and y[0, 1, 3].isnan().all() and y[0, 2, 1:4].isnan().all()
    assert y[0, 0].isfinite().all() and y[1].isfinite().all()


def test_there_is_no_triton_kernel():
    explanation = genfast.explain(pixelcnn_block, **sample())
    assert explanation.backend == "cpp" and explanation.others["triton"] == "has no kernel of this op"


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": torch.zeros(2, 4, 5)}, ValueError, "x must have shape [B, H, W, F] with F>=1; got (2, 4, 5)"),
        (
            {"weight": torch.zeros(3, 3, 2, 3)},
            ValueError,
            "KH and KW of weight must be odd and at most 255; got (2, 3)",
        ),
        ({"weight": torch.zeros(3, 2, 3, 3)}, ValueError, "weight must have shape [C, C, KH, KW] with F=6, C=3"),
        ({"down_weight": torch.zeros(6, 3)}, ValueError, "down_weight must have shape [C, F] with F=6, C=3"),
        ({"up_bias": torch.zeros(3)}, ValueError, "up_bias must have shape [F] with F=6, C=3; got (3,)"),
        ({"bias": torch.zeros(3, dtype=torch.float64)}, TypeError, "bias must have the dtype of x"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=re.escape(f"pixelcnn_block: {message}")):
        pixelcnn_block(**sample(torch.float32) | change)
