"""What is special to `gaussian`: its judges, weights, missing pixels, extreme log-variances, and its errors."""

import math

import pytest
import scipy.integrate
import torch
from torch.distributions import Normal

import genfast
from genfast import gaussian_nll, testing

BACKENDS = ("reference", "cpp")
NAMES = ("x", "mean", "log_variance")


def sample(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name in NAMES}


def judge(x, mean, log_variance, weight=None):
    nats = -Normal(mean, (0.5 * log_variance).exp()).log_prob(x)
    return (nats if weight is None else nats * weight).reshape(len(x), -1).sum(1)


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (4, 9), (3,), (2, 1, 1030)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_normal_of_torch(backend, shape):
    """Value and all gradients, that of x too."""
    inputs = sample(*shape)
    got = testing.evaluate(gaussian_nll, inputs, backend=backend)
    expected = testing.evaluate(judge, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("mean, log_variance", [(0.0, 0.0), (1.5, 3.0), (-2.0, -7.0), (0.0, 20.0), (0.0, -30.0)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_density_integrates_to_one(backend, mean, log_variance):
    def density(x):
        tensors = (torch.tensor([[value]], dtype=torch.float64) for value in (x, mean, log_variance))
        return math.exp(-gaussian_nll(*tensors, backend=backend).item())

    width = 10 * math.exp(log_variance / 2)
    total, _ = scipy.integrate.quad(density, mean - width, mean + width)
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("kind", ["bool", "uint8", "float"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_weights(backend, dtype, kind):
    """Each value counts as often as its weight says."""
    inputs = sample(3, 2, 5, 7, dtype=dtype)
    weight = torch.rand((3, 2, 5, 7), generator=torch.Generator().manual_seed(5)).mul(3).floor().clamp(0, 2)
    weight = (weight > 0).to(getattr(torch, kind)) if kind != "float" else weight.to(dtype)
    got = testing.evaluate(gaussian_nll, inputs, weight=weight, backend=backend)
    truth = testing.evaluate(judge, testing.doubled(inputs), weight=weight.double())
    for name in truth:
        narrow = got[name].dtype == torch.bfloat16
        testing.assert_matches(got[name], truth[name], name=name, atol=2e-2 if narrow else None)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_pixels_may_hold_anything(backend, kind):
    """NaN, infinity and huge values under a weight of 0 change nothing, and their gradients are 0."""
    inputs = sample(2, 3, 4, 5, dtype=torch.float32)
    weight = torch.ones(2, 3, 4, 5, dtype=kind)
    weight[0, 1, 2, 3] = weight[1, 0, :2] = 0
    clean = testing.evaluate(gaussian_nll, inputs, weight=weight, backend=backend)
    for name in NAMES:
        for value in (torch.nan, torch.inf, -torch.inf, 1e38):
            changed = {**inputs, name: inputs[name].masked_fill(weight == 0, value)}
            got = testing.evaluate(gaussian_nll, changed, weight=weight, backend=backend)
            for key in clean:
                testing.assert_identical(got[key], clean[key], name=f"{key} with {name} {value}")
    assert all((clean[f"grad_{name}"][weight == 0] == 0).all() for name in NAMES)
    nothing = gaussian_nll(**inputs, weight=torch.zeros_like(weight), backend=backend)
    assert (nothing == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_shows(backend, name):
    inputs = sample(3, 1, 4, 5, dtype=torch.float32)
    inputs[name][1, 0, 2, 3] = torch.nan
    assert gaussian_nll(**inputs, backend=backend).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_log_variances(backend, dtype):
    """Out of range they count as the nearer end, with gradient 0; everything stays finite."""
    outside = torch.tensor([[-1e30, -torch.inf, -31.0, 21.0, 1e30, torch.inf]], dtype=dtype)
    ends = torch.tensor([[-30.0, -30.0, -30.0, 20.0, 20.0, 20.0]], dtype=dtype)
    x, mean = torch.full((1, 6), 1e3, dtype=dtype), torch.zeros(1, 6, dtype=dtype)
    got, expected = (
        testing.evaluate(gaussian_nll, {"x": x, "mean": mean, "log_variance": v}, backend=backend)
        for v in (outside, ends)
    )
    for name in ("output", "grad_x", "grad_mean"):
        testing.assert_identical(got[name], expected[name], name=name)
        assert got[name].isfinite().all()
    assert (got["grad_log_variance"] == 0).all() and (expected["grad_log_variance"] != 0).all()
    assert expected["output"].item() == pytest.approx(0.5e6 * (3 * math.exp(30) + 3 * math.exp(-20)), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_does_not_overflow(dtype):
    """A sum beyond float16's 65504, and squares beyond it."""
    x, mean, log_variance = (torch.full((2, 1000), v, dtype=dtype) for v in (600.0, -600.0, 2.0))
    nll = gaussian_nll(x, mean, log_variance)
    expected = 500 * (math.log(2 * math.pi) + 2 + 1200**2 * math.exp(-2))
    assert nll.dtype == torch.float32 and nll.tolist() == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (2, 1, 1), (3, 2, 1, 1), (5, 7)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_log_variance_broadcasts(backend, shape):
    """One for everything, one a channel, one an image: its gradient is summed."""
    inputs = sample(3, 2, 5, 7)
    inputs["log_variance"] = torch.randn(shape, dtype=torch.float64)
    got, expected = testing.evaluate(gaussian_nll, inputs, backend=backend), testing.evaluate(judge, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    assert got["grad_log_variance"].shape == shape


def test_gradient_of_x_only_where_it_is_wanted():
    """Neither made nor returned: the backward pass allocates two tensors of that size, not three."""
    inputs = sample(4, 3, 32, 32, dtype=torch.float32)
    mean, log_variance = (inputs[name].requires_grad_() for name in ("mean", "log_variance"))
    with torch.profiler.profile(profile_memory=True) as profile:
        gaussian_nll(inputs["x"], mean, log_variance, backend="cpp").sum().backward()
    events = profile.profiler.kineto_results.events()
    large = [e for e in events if e.name() == "[memory]" and e.nbytes() >= 4 * mean.numel()]
    assert len(large) == 2


def test_nothing_is_saved_but_the_inputs():
    inputs = {name: tensor.requires_grad_() for name, tensor in sample(8, 64, dtype=torch.float32).items()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        gaussian_nll(**inputs, backend="cpp")
    assert {t.data_ptr() for t in saved if t.numel()} <= {t.data_ptr() for t in inputs.values()}


X = torch.zeros(2, 3)
W = torch.ones(2, 3)
BAD = [
    ({"x": X.tolist()}, TypeError, "x must be a torch.Tensor; got list"),
    ({"x": X.byte()}, TypeError, "x must have dtype float32, float64, bfloat16 or float16; got torch.uint8"),
    ({"mean": X.double()}, TypeError, "mean must have the dtype of x, torch.float32; got torch.float64"),
    ({"mean": X[:1]}, ValueError, "mean must have shape [B, ...] with B=2; got (1, 3)"),
    ({"log_variance": X[:, :2]}, ValueError, "log_variance must broadcast to (2, 3); got (2, 2)"),
    ({"x": X.sum()}, ValueError, "x must have shape [B, ...]; got ()"),
    ({"mean": X.to("meta")}, ValueError, "mean must be on the device of x, cpu; got meta"),
    ({"weight": W[:1]}, ValueError, "weight must have shape (2, 3); got (1, 3)"),
    ({"weight": W.long()}, TypeError, "weight must have dtype torch.bool or torch.uint8 or torch.float32; got torch.i"),
    ({"weight": -W}, ValueError, "weight must be finite and at least 0; got -1"),
    ({"weight": W * torch.nan}, ValueError, "weight must be finite and at least 0; got nan"),
    ({"weight": W * torch.inf}, ValueError, "weight must be finite and at least 0; got inf"),
    ({"weight": W.byte() + 1}, ValueError, "weight must be 0 or 1 as uint8; got 2"),
    ({"weight": 1.0}, TypeError, "weight must be a torch.Tensor; got float"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("changed, error, text", BAD, ids=[text for *_, text in BAD])
def test_bad_arguments(changed, error, text, backend):
    with pytest.raises(error) as raised:
        gaussian_nll(**{"x": X, "mean": X, "log_variance": X, **changed}, backend=backend)
    assert str(raised.value).startswith(f"gaussian_nll: {text}")


def test_the_same_tensor_twice_compiles():
    """log N(z; 0, 1), as models write it: mean and log-variance are one tensor."""
    z, zero = torch.randn(3, 4, requires_grad=True), torch.zeros(3, 4)
    torch._dynamo.reset()
    compiled = torch.compile(lambda z, zero: gaussian_nll(z, zero, zero), fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(z, zero).sum(), z)
    testing.assert_matches(got, z.detach())


def test_explain():
    assert genfast.explain("gaussian_nll", X, X, X).backend == "cpp"
