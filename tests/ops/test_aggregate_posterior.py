"""What is special to `aggregate_posterior`: its judges, points far away, the clamp, narrow Gaussians, its errors."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import genfast
from genfast import aggregate_posterior, testing
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")


def sample(points=20, count=35, latents=6, dtype=torch.float64):
    return SPECS["aggregate_posterior"].inputs({"B": points, "M": count, "Z": latents}, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_a_mixture_of_torch(backend):
    inputs = sample()

    def judge(z, mean, log_variance):
        parts = Normal(mean, (log_variance / 2).exp())
        count, latents = mean.shape
        joint = MixtureSameFamily(Categorical(torch.ones(count).double()), Independent(parts, 1)).log_prob(z)
        alone = Normal(mean.T, (log_variance.T / 2).exp())
        marginals = MixtureSameFamily(Categorical(torch.ones(latents, count).double()), alone).log_prob(z)
        return joint + math.log(count), marginals + math.log(count)

    got, expected = testing.evaluate(aggregate_posterior, inputs, backend=backend), testing.evaluate(judge, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_densities_integrate_to_their_number(backend):
    """By the trapezoid rule: of one latent, and of two together."""
    _, mean, log_variance = sample(count=5, latents=2).values()
    line = torch.linspace(-15, 15, 301, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    joint, marginals = aggregate_posterior(z, mean, log_variance, backend=backend)
    assert float(joint.exp().sum() * 0.1**2) == pytest.approx(5, rel=1e-8)
    assert float(marginals[:301, 1].exp().sum() * 0.1) == pytest.approx(5, rel=1e-8)


@pytest.mark.parametrize("distance", (30.0, 1e4, 1e12))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_points_far_away(dtype, distance):
    """Where every density is 0 as a number its logarithm is still right, and so are the gradients."""
    inputs = sample(dtype=dtype)
    inputs["z"] = inputs["z"] + distance
    got = testing.evaluate(aggregate_posterior, inputs, backend="cpp")
    expected = testing.evaluate(SPECS["aggregate_posterior"].reference, testing.doubled(inputs))
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-10}[dtype]
    for name in ("output0", "output1", "grad_z"):
        scale = float(expected[name].abs().max())
        testing.assert_matches(got[name], expected[name], name=name, rtol=tolerance, atol=tolerance * scale * 1e-2)
    assert all(value.isfinite().all() for value in got.values())


def test_what_no_float32_holds_is_infinite_and_no_nan():
    z = torch.tensor([[1e30], [0.0]])
    joint, marginals = aggregate_posterior(z, torch.zeros(3, 1), torch.full((3, 1), -30.0), backend="cpp")
    assert joint[0] == marginals[0, 0] == -torch.inf
    assert joint[1] == marginals[1, 0] and joint[1].isfinite()


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_variances_are_held(backend):
    """To [-30, 20]; beyond the gradient is 0, at the ends it is not."""
    inputs = sample(8, 6, 1)
    inputs["log_variance"] = torch.tensor([-100.0, -30.0, 20.0, 20.1, 1e5, -31.0]).double()[:, None]
    inputs["z"][:6] = inputs["mean"] + 1e-7
    held = {**inputs, "log_variance": inputs["log_variance"].clamp(-30, 20)}
    got = testing.evaluate(aggregate_posterior, inputs, backend=backend)
    expected = testing.evaluate(aggregate_posterior, held, backend="reference")
    outside = torch.tensor([True, False, False, True, True, True])
    assert not got["grad_log_variance"][outside].any() and got["grad_log_variance"][~outside].all()
    expected["grad_log_variance"][outside] = 0
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name, rtol=1e-9)


def test_narrow_gaussians_in_float32():
    """The difference is taken before it is scaled: z scale - mean scale would be noise of 0.2."""
    inputs = sample(35, 35, 3, torch.float32)
    inputs["log_variance"] = torch.full_like(inputs["log_variance"], -28)
    inputs["z"] = inputs["mean"] + inputs["z"] * 1e-6
    got = testing.evaluate(aggregate_posterior, inputs, backend="cpp")
    expected = testing.evaluate(SPECS["aggregate_posterior"].reference, testing.doubled(inputs))
    for name in expected:
        scale = max(1.0, float(expected[name].abs().max()))
        testing.assert_matches(got[name], expected[name], name=name, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_same_bits_for_batches_threads_and_isas(dtype):
    inputs = sample(101, 67, 5, dtype)
    active = genfast.backends()["cpp"]
    with testing.threads(1):
        expected = testing.evaluate(aggregate_posterior, inputs, backend="cpp")
        for size in (1, 7, 64):
            parts = [aggregate_posterior(**{**inputs, "z": part}, backend="cpp") for part in inputs["z"].split(size)]
            for i, output in enumerate(map(torch.cat, zip(*parts))):
                testing.assert_identical(output, expected[f"output{i}"], name=f"output {i}, parts of {size}")
    for isa, count in [(active.isa, 2), (active.isa, 3), *((isa, 1) for isa in active.isas)]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = testing.evaluate(aggregate_posterior, inputs, backend="cpp")
        finally:
            genfast.set_isa(active.isa)
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=f"{name} ({isa}, {count} threads)")


def test_total_correlation_of_an_aggregate_that_factorises():
    """Gaussians on a grid: the joint density is the product of the marginals."""
    line = torch.linspace(-2, 2, 5)
    mean = torch.cartesian_prod(line, line).double()
    z = torch.randn(40, 2, dtype=torch.float64)
    joint, marginals = aggregate_posterior(z, mean, torch.zeros_like(mean), backend="cpp")
    count = math.log(len(mean))
    testing.assert_matches(joint - count, (marginals - count).sum(1))


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    "error, match, call",
    [
        (ValueError, r"mean must have shape .* with M>=1, Z=2; got \(0, 2\)", lambda: aggregate_posterior(X, X[:0], X)),
        (ValueError, "log_variance must have shape", lambda: aggregate_posterior(X, X, X[:2])),
        (ValueError, r"z must have shape \[N, Z\]; got \(3,\)", lambda: aggregate_posterior(X[:, 0], X, X)),
        (TypeError, "mean must have the dtype of z", lambda: aggregate_posterior(X, X.double(), X)),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
