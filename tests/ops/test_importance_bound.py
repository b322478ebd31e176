"""What is special to `importance_bound`: its judges, any scale, impossible samples, the doubly reparameterised
gradient, and its errors."""

import math

import pytest
import torch
from torch.distributions import Normal

import genfast
from genfast import importance_bound, testing

BACKENDS = ("reference", "cpp")


def weights(batch, samples, scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(batch, samples, generator=generator, dtype=torch.float64)).to(dtype)


def judge(log_weights):
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


@pytest.mark.parametrize("samples", [1, 2, 50, 5000])
@pytest.mark.parametrize("offset, scale", [(0, 3), (1e4, 3), (-1e4, 3), (0, 1e4), (-1e4, 1e-3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_logsumexp_at_any_scale(backend, offset, scale, samples):
    inputs = {"log_weights": weights(5, samples, scale) + offset}
    got, expected = testing.evaluate(importance_bound, inputs, backend=backend), testing.evaluate(judge, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    low = testing.evaluate(importance_bound, {"log_weights": inputs["log_weights"].float()}, backend=backend)
    truth = testing.evaluate(judge, {"log_weights": inputs["log_weights"].float().double()})
    for name in truth:
        testing.assert_matches(low[name], truth[name], name=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_sample_is_its_weight(backend):
    log_weights = weights(7, 1, 1e4, torch.float32).requires_grad_()
    bound = importance_bound(log_weights, backend=backend)
    testing.assert_identical(bound, log_weights[:, 0])
    assert (torch.autograd.grad(bound.sum(), log_weights)[0] == 1).all()


@pytest.mark.parametrize("samples", [3, 17, 50])
@pytest.mark.parametrize("backend", BACKENDS)
def test_impossible_samples(backend, samples):
    """A weight of 0 counts in the mean and has gradient 0; where all are 0 the bound is -inf."""
    log_weights = weights(4, samples)
    log_weights[0, ::2] = -torch.inf
    log_weights[1] = -torch.inf
    leaf = log_weights.clone().requires_grad_()
    bound = importance_bound(leaf, backend=backend)
    (grad,) = torch.autograd.grad(bound[[0, 2, 3]].sum(), leaf)
    assert bound[1] == -torch.inf
    testing.assert_matches(bound[0], log_weights[0, 1::2].logsumexp(0) - math.log(samples))
    assert (grad[0, ::2] == 0).all()
    testing.assert_matches(grad[0, 1::2], log_weights[0, 1::2].softmax(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_shows(backend):
    log_weights = weights(3, 20, dtype=torch.float32)
    log_weights[1, 7] = torch.nan
    assert importance_bound(log_weights, backend=backend).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    """float32 comes out, however large."""
    log_weights = weights(5, 50, 1e3, dtype)
    bound = importance_bound(log_weights)
    assert bound.dtype == torch.float32
    testing.assert_matches(bound, judge(log_weights.double()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_tightens_with_the_number_of_samples(backend):
    """In expectation: the bound of more samples is larger, and never above the logarithm of the mean."""
    log_weights = weights(1, 2**14, 1.5)
    bounds = [importance_bound(log_weights.view(-1, s), backend=backend).mean() for s in (1, 2, 8, 64, 2**14)]
    assert all(a < b for a, b in zip(bounds, bounds[1:]))


class Model:
    """p(z) = N(0, 1), p(x | z) = N(z, 1), q(z | x) = N(phi[0] + x phi[1], exp(phi[2])): log p(x) is N(0, 2)'s."""

    def __init__(self, x, samples):
        self.x, self.samples = x.view(-1, 1), samples
        self.phi = torch.tensor([0.3, 0.2, -0.2], dtype=torch.float64, requires_grad=True)

    def draw(self, noise):
        mean, deviation = self.phi[0] + self.x * self.phi[1], (0.5 * self.phi[2]).exp()
        return (mean + deviation * noise.view(len(self.x), self.samples)).reshape(-1, 1)

    def log_weights(self, z, phi):
        z = z.view(len(self.x), self.samples)
        q = Normal(phi[0] + self.x * phi[1], (0.5 * phi[2]).exp())
        return Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(self.x) - q.log_prob(z)


def gradients(model, noise, doubly, backend="auto"):
    z = model.draw(noise)
    if not doubly:
        return torch.autograd.grad(importance_bound(model.log_weights(z, model.phi), backend=backend).sum(), model.phi)[
            0
        ]
    bound = importance_bound(model.log_weights(z, model.phi.detach()), z, backend=backend)
    return torch.autograd.grad(bound.sum(), model.phi)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_path_squares_the_weights(backend):
    """sum over s of w_s^2 dlog w_s/dz_s dz_s/dphi, worked out sample by sample."""
    model = Model(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), 4)
    noise = torch.randn(12, dtype=torch.float64)
    got = gradients(model, noise, True, backend)
    z = model.draw(noise)
    log_weights = model.log_weights(z, model.phi.detach())
    share = log_weights.softmax(1).flatten().detach()
    (of_z,) = torch.autograd.grad(log_weights.sum(), z, retain_graph=True)
    expected = torch.zeros(3, dtype=torch.float64)
    for s in range(12):
        expected += share[s] ** 2 * of_z[s, 0] * torch.autograd.grad(z[s, 0], model.phi, retain_graph=True)[0]
    testing.assert_matches(got, expected)


def test_path_is_unbiased_and_less_noisy():
    """Both estimators have the mean of the derivative of the expected bound; the doubly reparameterised one varies
    less, and the more samples the less so beside the other."""
    repetitions, ratios = 4000, []
    for samples in (2, 32):
        x = torch.tensor([1.0], dtype=torch.float64).expand(repetitions)
        noise = torch.randn(
            repetitions * samples, generator=torch.Generator().manual_seed(samples), dtype=torch.float64
        )
        estimates = []
        for doubly in (False, True):
            model = Model(x, samples)
            # A copy of the parameters for every repetition, so that each has a gradient of its own.
            model.phi = model.phi.detach()[:, None, None].repeat(1, repetitions, 1).requires_grad_()
            estimates.append(gradients(model, noise, doubly)[:, :, 0])
        single, double = estimates
        error = (single.mean(1) - double.mean(1)).abs()
        deviation = (single - double).std(1) / math.sqrt(repetitions)
        assert (error < 3 * deviation).all(), (samples, error / deviation)
        assert (double.var(1) < single.var(1)).all()
        ratios.append(double.var(1) / single.var(1))
    assert (ratios[1] < ratios[0]).all()


def test_path_leaves_the_bound_and_the_gradient_of_p():
    """Only what flows through z is reweighted: parameters of p have the gradient of the plain bound."""
    noise, theta = torch.randn(15, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    model = Model(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), 5)
    z = model.draw(noise)
    plain = importance_bound(model.log_weights(z, model.phi) + theta * z.view(3, 5))
    path = importance_bound(model.log_weights(z, model.phi.detach()) + theta * z.view(3, 5), z)
    testing.assert_identical(path, plain)
    (a,), (b,) = (torch.autograd.grad(bound.sum(), theta, retain_graph=True) for bound in (plain, path))
    testing.assert_matches(b, a)


def test_no_path_without_gradients():
    """Where no gradient is taken, path changes nothing, and may be a plain tensor."""
    with torch.no_grad():
        testing.assert_identical(importance_bound(weights(2, 3), torch.zeros(6, 4)), importance_bound(weights(2, 3)))


L = torch.zeros(2, 3)
BAD = [
    ((L.tolist(),), TypeError, "log_weights must be a torch.Tensor; got list"),
    ((L.long(),), TypeError, "log_weights must have dtype float32, float64, bfloat16 or float16; got torch.int64"),
    ((L[0],), ValueError, "log_weights must have shape [B, S] with S>=1; got (3,)"),
    ((L[:, :0],), ValueError, "log_weights must have shape [B, S] with S>=1; got (2, 0)"),
    ((L, [1]), TypeError, "path must be a torch.Tensor; got list"),
    ((L, torch.zeros(5, 2)), ValueError, "path must have shape [B S, ...] with B=2, S=3; got (5, 2)"),
    ((L, torch.zeros(6, 2)), RuntimeError, "path must be what the gradient of q flows through; got a tensor without"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("args, error, text", BAD, ids=[text for *_, text in BAD])
def test_bad_arguments(args, error, text, backend):
    with pytest.raises(error) as raised:
        importance_bound(*args, backend=backend)
    assert str(raised.value).startswith(f"importance_bound: {text}")


def test_explain():
    assert genfast.explain("importance_bound", L).backend == "cpp"


def test_a_path_is_given_once():
    """A second hook would multiply by the weights again."""
    z = torch.zeros(6, 2, requires_grad=True) * 1
    importance_bound(L, z)
    with pytest.raises(RuntimeError, match="importance_bound: path must be given once; got one whose gradient is"):
        importance_bound(L, z)
