"""What is special to `gated_activation`: memory layouts, saturation, what it saves, and its errors."""

import pytest
import torch

from genfast import gated_activation, testing
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")


def sample(dtype=torch.float64, B=3, C=5, H=6, W=7):
    return SPECS["gated_activation"].inputs({"B": B, "C": C, "H": H, "W": W}, dtype=dtype)["x"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("C, H, W", [(5, 6, 7), (32, 1, 1), (1, 70, 70), (3000, 2, 1)])
def test_channels_last_in_and_out(C, H, W, dtype):
    """The same bits as for contiguous memory, in the memory layout of x, forward and backward."""
    x = sample(dtype, C=C, H=H, W=W)
    last = x.to(memory_format=torch.channels_last).requires_grad_()
    expected = testing.evaluate(gated_activation, {"x": x}, backend="cpp")
    y = gated_activation(last, backend="cpp")
    assert y.is_contiguous(memory_format=torch.channels_last)
    testing.assert_identical(y, expected["output"])
    incoming = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    (grad,) = torch.autograd.grad(y, last, incoming)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    testing.assert_identical(grad, expected["grad_x"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_saturated(backend):
    """Any size: the halves reach their limits, and the gradients 0."""
    a = torch.tensor([1e30, -1e30, torch.inf, 50.0, 1e30, 1e30])
    b = torch.tensor([1e30, 1e30, torch.inf, -1e30, 0.0, -1e30])
    x = torch.cat((a, b)).view(1, 12, 1, 1).requires_grad_()
    y = gated_activation(x, backend=backend)
    testing.assert_matches(y.flatten(), torch.tensor([1, -1, 1, 0, 0.5, 0]), atol=1e-18)
    (grad,) = torch.autograd.grad(y.sum(), x)
    testing.assert_matches(grad[0, :6, 0, 0], torch.zeros(6), atol=1e-18)
    testing.assert_matches(grad[0, 6:, 0, 0], torch.tensor([0, 0, 0, 0, 0.25, 0]), atol=1e-18)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("half", [0, 1])
def test_nan_shows(backend, half):
    x = sample(torch.float32)
    x[1, 5 * half + 2, 3, 4] = torch.nan
    nan = gated_activation(x, backend=backend).isnan()
    assert nan[1, 2, 3, 4] and nan.sum() == 1


def test_saves_x_alone():
    x = sample(torch.float32).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        gated_activation(x, backend="cpp")
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]


BAD = [
    (torch.zeros(2, 4, 3), ValueError, "x must have shape [B, 2C, H, W] with C>=1; got (2, 4, 3)"),
    (torch.zeros(2, 5, 3, 3), ValueError, "x must have shape [B, 2C, H, W] with C>=1; got (2, 5, 3, 3)"),
    (torch.zeros(2, 0, 3, 3), ValueError, "x must have shape [B, 2C, H, W] with C>=1; got (2, 0, 3, 3)"),
    (torch.zeros(2, 4, 3, 3).int(), TypeError, "float32, float64, bfloat16 or float16; got torch.int32"),
    ([0.0], TypeError, "x must be a torch.Tensor; got list"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("x, error, text", BAD)
def test_bad_arguments(x, error, text, backend):
    with pytest.raises(error) as raised:
        gated_activation(x, backend=backend)
    assert str(raised.value).startswith("gated_activation: ") and str(raised.value).endswith(text)
