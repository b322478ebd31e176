"""What is special to `masked_conv2d`: which taps it reads, its colours, memory layouts, and its errors."""

import re

import pytest
import torch
from torch.nn import functional as F

import genfast
from genfast import masked_conv2d, testing

BACKENDS = ("reference", "cpp")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def written_out(weight, mask, colors):
    """The weight that a plain convolution would need: every element by its own rule."""
    outputs, inputs, height, width = weight.shape
    used = torch.zeros_like(weight)
    for o in range(outputs):
        for c in range(inputs):
            of_output, of_input = o * colors // outputs, c * colors // inputs
            for t in range(height):
                for k in range(width):
                    before = (t, k) < (height // 2, width // 2)
                    centre = (t, k) == (height // 2, width // 2)
                    reads = of_input < of_output or (mask == "B" and of_input == of_output)
                    if before or (centre and reads):
                        used[o, c, t, k] = weight[o, c, t, k]
    return used


@every_backend
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("mask, colors", [("A", 1), ("B", 1), ("A", 3), ("B", 3)])
@pytest.mark.parametrize("size", [(3, 3), (7, 7), (1, 5), (5, 1), (1, 1), (3, 5)])
def test_is_a_convolution_of_the_weights_before_the_centre(size, mask, colors, dilation, backend):
    inputs = {"x": normal(2, 6, 6, 9), "weight": normal(5, 6, *size, seed=1), "bias": normal(5, seed=2)}
    padding = [dilation * (n // 2) for n in size]

    def plain(x, weight, bias):
        return F.conv2d(x, written_out(weight, mask, colors), bias, padding=padding, dilation=dilation)

    def masked(x, weight, bias):
        return masked_conv2d(x, weight, bias, mask, colors, dilation, backend=backend)

    got, expected = testing.evaluate(masked, inputs), testing.evaluate(plain, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@every_backend
def test_masked_weights_are_never_read(backend):
    weight = normal(4, 3, 3, 3)
    used = written_out(torch.ones_like(weight), "A", 3).bool()
    poisoned = torch.where(used, weight, torch.nan)
    x = normal(2, 3, 4, 5)
    expected = masked_conv2d(x, weight, mask="A", colors=3, backend=backend)
    testing.assert_matches(masked_conv2d(x, poisoned, mask="A", colors=3, backend=backend), expected)
    leaf = poisoned.requires_grad_()
    (grad,) = torch.autograd.grad(masked_conv2d(x, leaf, mask="A", colors=3, backend=backend).sum(), leaf)
    assert (grad[~used] == 0).all() and grad.isfinite().all()


@every_backend
@pytest.mark.parametrize("mask", ["A", "B"])
def test_causal_and_complete(mask, backend):
    """A pixel moves those that read it and no other: itself by mask B, no other image."""
    weight, x = normal(3, 2, 3, 3).abs() + 0.1, normal(2, 2, 5, 6)
    before = masked_conv2d(x, weight, mask=mask, backend=backend)
    for i in range(5):
        for j in range(6):
            changed = x.clone()
            changed[0, :, i, j] += 1
            moved = (masked_conv2d(changed, weight, mask=mask, backend=backend) != before).any(1)
            expected = torch.zeros(2, 5, 6, dtype=torch.bool)
            expected[0, i, j + 1 : j + 2] = True
            expected[0, i, j] = mask == "B"
            expected[0, i + 1 : i + 2, max(0, j - 1) : j + 2] = True
            assert torch.equal(moved, expected), (i, j)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_layouts_give_the_same_bits(dtype):
    x, weight = normal(3, 5, 6, 7, dtype=dtype), normal(4, 5, 3, 3, dtype=dtype)
    expected = masked_conv2d(x, weight, backend="cpp")
    assert expected.is_contiguous(memory_format=torch.channels_last)
    testing.assert_identical(masked_conv2d(x.to(memory_format=torch.channels_last), weight, backend="cpp"), expected)
    testing.assert_identical(masked_conv2d(x, weight.mT.contiguous().mT, backend="cpp"), expected)


def test_only_wanted_gradients_are_made():
    x, weight, bias = normal(2, 3, 4, 5), normal(4, 3, 3, 3, seed=1), normal(4, seed=2)
    every = testing.evaluate(masked_conv2d, {"x": x, "weight": weight, "bias": bias}, backend="cpp")
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    y = masked_conv2d(*leaves, backend="cpp")
    together = dict(zip(("x", "weight", "bias"), torch.autograd.grad(y, leaves, torch.ones_like(y))))
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        leaf = tensor.clone().requires_grad_()
        y = masked_conv2d(**{"x": x, "weight": weight, "bias": bias, name: leaf}, backend="cpp")
        (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        assert grad.shape == every[f"grad_{name}"].shape
        testing.assert_identical(grad, together[name])
    y = masked_conv2d(x, weight.requires_grad_(), backend="cpp")
    testing.assert_identical(y, masked_conv2d(x, weight, torch.zeros(4, dtype=torch.float64), backend="cpp"))


def test_there_is_no_triton_kernel():
    explanation = genfast.explain(masked_conv2d, normal(1, 1, 2, 2), normal(1, 1, 3, 3))
    assert explanation.backend == "cpp" and explanation.others["triton"] == "has no kernel of this op"
    with pytest.raises(RuntimeError, match="masked_conv2d: backend must be able to serve"):
        masked_conv2d(normal(1, 1, 2, 2), normal(1, 1, 3, 3), backend="triton")


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"mask": "C"}, ValueError, "mask must be 'A' or 'B'; got 'C'"),
        ({"colors": 4}, ValueError, "colors must be at most C and O, 3 and 4; got 4"),
        ({"dilation": 0}, ValueError, "dilation must lie in [1, 2**15); got 0"),
        ({"dilation": 1.5}, TypeError, "dilation must be an int; got float"),
        (
            {"weight": torch.zeros(4, 3, 2, 3)},
            ValueError,
            "KH and KW of weight must be odd and at most 255; got (2, 3)",
        ),
        ({"weight": torch.zeros(4, 2, 3, 3)}, ValueError, "weight must have shape [O, C, KH, KW] with C=3"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must have shape [O] with O=4; got (3,)"),
        ({"x": torch.zeros(3, 4, 4)}, ValueError, "x must have shape [B, C, H, W] with C>=1; got (3, 4, 4)"),
        ({"weight": torch.zeros(4, 3, 3, 3, dtype=torch.float64)}, TypeError, "weight must have the dtype of x"),
    ],
)
def test_errors(change, error, message):
    arguments = {"x": torch.zeros(1, 3, 4, 4), "weight": torch.zeros(4, 3, 3, 3), "bias": torch.zeros(4)}
    with pytest.raises(error, match=re.escape(f"masked_conv2d: {message}")):
        masked_conv2d(**(arguments | change))


def test_the_op_itself_refuses_a_kernel_without_centre():
    """Even sizes would read past the weights."""
    x, bias = torch.zeros(1, 4, 4, 3), torch.zeros(0)
    with pytest.raises(ValueError, match="KH and KW of weight must be odd"):
        torch.ops.genfast.masked_conv2d_forward(x, torch.zeros(4, 3, 2, 2), bias, 1, 1, False)
