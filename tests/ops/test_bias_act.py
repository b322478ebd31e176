"""What is special to `bias_act`: torch's own activations, memory layouts, where slopes change, long sums, errors."""

import math

import pytest
import torch
from torch.nn import functional as F

from genfast import bias_act, testing

BACKENDS = ("reference", "cpp")
JUDGES = {
    "linear": lambda x: x,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
}


def sample(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("limit", [None, 0.4, 0.0])
@pytest.mark.parametrize("activation", JUDGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_what_torch_has(backend, activation, limit):
    inputs = {"x": sample(3, 5, 4, 7), "bias": sample(5)}

    def judge(x, bias):
        y = JUDGES[activation](x + bias.view(1, -1, 1, 1)) * 1.7
        return y if limit is None else F.hardtanh(y, -limit - 1e-300, limit + 1e-300)

    got = testing.evaluate(bias_act, inputs, activation=activation, gain=1.7, limit=limit, backend=backend)
    for name, value in testing.evaluate(judge, inputs).items():
        testing.assert_matches(got[name], value, name=name)


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 9), (2, 3, 2, 3, 4)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_number_of_dimensions(backend, shape):
    x, bias = sample(*shape), sample(shape[1])
    got = bias_act(x, bias, "tanh", backend=backend)
    expected = torch.tanh(x.movedim(1, -1) + bias).movedim(-1, 1)
    testing.assert_matches(got, expected)


def test_channels_last_stays_and_is_read_in_place():
    x = sample(3, 6, 5, 4, dtype=torch.float32).to(memory_format=torch.channels_last).requires_grad_()
    bias = sample(6, dtype=torch.float32).requires_grad_()
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.__name__)
            return function(*args, **(kwargs or {}))

    with Watch():
        y = bias_act(x, bias, "swish", backend="cpp")
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not any("copy" in name or "clone" in name for name in seen), seen
    incoming = sample(3, 6, 5, 4, dtype=torch.float32)
    plain = bias_act(x.contiguous(), bias, "swish", backend="reference")
    got, expected = (torch.autograd.grad(output, (x, bias), incoming, retain_graph=True) for output in (y, plain))
    testing.assert_matches(y, plain)
    for a, b in zip(got, expected):
        testing.assert_matches(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_slopes_change(backend):
    """At 0 as torch has it, and at the limit itself the gradient still passes."""
    x = torch.tensor([[-0.0, 0.0, 2.0, 2.5, -2.0, -2.5]], dtype=torch.float64, requires_grad=True)
    for activation, expected in (("relu", [0, 0, 1, 0, 0, 0]), ("leaky_relu", [0.2, 0.2, 1, 0, 0.2, 0.2])):
        (gradient,) = torch.autograd.grad(bias_act(x, None, activation, limit=2.0, backend=backend).sum(), x)
        testing.assert_matches(gradient, torch.tensor([expected], dtype=torch.float64))


@pytest.mark.parametrize("activation", JUDGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_extremes_and_nan(backend, activation):
    x = torch.tensor([[-1e4, 1e4, -50.0, 50.0, math.nan]], dtype=torch.float32, requires_grad=True)
    y = bias_act(x, None, activation, backend=backend)
    expected = JUDGES[activation](x.detach().double())
    testing.assert_matches(y[:, :4], expected[:, :4], atol=1e-5)
    assert y[0, 4].isnan()
    if activation != "swish":  # -inf * 0
        ends = torch.tensor([[-math.inf, math.inf]])
        got, expected = bias_act(ends, None, activation, backend=backend), JUDGES[activation](ends)
        assert torch.allclose(got, expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(y[:, :4].sum(), x)
    assert gradient[:, :4].isfinite().all()


@pytest.mark.parametrize("shape", [(16, 3, 150, 151), (70_000, 5)])
def test_sums_of_the_bias_keep_their_precision(shape):
    inputs = {"x": sample(*shape, dtype=torch.float32), "bias": sample(shape[1], dtype=torch.float32)}
    got = testing.evaluate(bias_act, inputs, activation="leaky_relu", backend="cpp")["grad_bias"]
    truth = testing.evaluate(bias_act, testing.doubled(inputs), activation="leaky_relu", backend="reference")
    testing.assert_matches(got, truth["grad_bias"], atol=2e-3, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors(backend):
    x = sample(2, 3, 4)
    cases = {
        r"x must have shape \[N, C, ...\] with C>=1; got \(4,\)": (x[0, 0],),
        r"bias must have shape \[C\] with C=3; got \(4,\)": (x, x[0, 0]),
        "activation must be one of linear, relu, .*; got 'gelu'": (x, None, "gelu"),
        "slope must be finite and at least 0; got -1": (x, None, "leaky_relu", -1),
        "gain must be finite; got inf": (x, None, "linear", 0.2, math.inf),
        "limit must be finite and at least 0; got nan": (x, None, "linear", 0.2, 1.0, math.nan),
    }
    for text, args in cases.items():
        with pytest.raises(ValueError, match=f"bias_act: {text}"):
            bias_act(*args, backend=backend)
    with pytest.raises(TypeError, match="bias_act: gain must be a number; got str"):
        bias_act(x, gain="2", backend=backend)
