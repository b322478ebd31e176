"""What is special to power_iteration: torch's own module and the singular value decomposition as judges, layers large
and few or small and many, vectors of no length."""

import pytest
import torch
from torch.nn.utils import parametrizations

import genfast
from genfast import testing

parametrize = pytest.mark.parametrize
BACKENDS = ("reference", "cpp")
# Few layers are split over threads, many are not; the sizes are past the blocks of both ways.
SHAPES = [(1, 3, 2), (2, 130, 1153), (1, 700, 33), (17, 40, 70), (16, 5, 600), (3, 1, 40000)]


def vectors(layers, rows, columns, dtype=torch.float64):
    generator = torch.Generator().manual_seed(layers + rows + columns)
    shapes = (layers, rows, columns), (layers, rows), (layers, columns)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@parametrize("backend", BACKENDS)
def test_is_torchs_module(backend):
    """The vectors that the parametrization of torch has after each of its forward passes, and its weight."""
    torch.manual_seed(0)
    modules = [parametrizations.spectral_norm(torch.nn.Conv2d(5, 7, 3).double()) for _ in range(3)]
    inner = [module.parametrizations.weight[0] for module in modules]
    weight = torch.stack([module.parametrizations.weight.original.detach().flatten(1) for module in modules])
    u, v = (torch.stack([getattr(part, name) for part in inner]).clone() for name in ("_u", "_v"))
    for _ in range(3):
        expected = torch.stack([module.weight.detach().flatten(1) for module in modules])
        u, v = genfast.power_iteration(weight, u, v, backend=backend)
        for got, name in ((u, "_u"), (v, "_v")):
            testing.assert_matches(got, torch.stack([getattr(part, name) for part in inner]), name=name)
        testing.assert_matches(genfast.spectral_norm(weight, u, v, backend=backend), expected)


@parametrize("layers, rows, columns", [(3, 5, 7), (1, 40, 33), (17, 6, 6)])
@parametrize("backend", BACKENDS)
def test_finds_the_largest_singular_value(backend, layers, rows, columns):
    weight, u, v = vectors(layers, rows, columns)
    u, v = genfast.power_iteration(weight, u, v, 3000, backend=backend)
    largest = torch.linalg.svdvals(weight)[:, 0]
    testing.assert_matches(torch.einsum("lr,lrc,lc->l", u, weight, v), largest, rtol=1e-6)
    normalised = genfast.spectral_norm(weight, u, v, backend=backend)
    testing.assert_matches(torch.linalg.svdvals(normalised)[:, 0], torch.ones(layers), rtol=1e-6)


@parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
@parametrize("steps", (0, 1, 4))
@parametrize("shape", SHAPES)
def test_layers_large_and_small(shape, steps, dtype):
    inputs = vectors(*shape, dtype)
    expected = genfast.power_iteration(*(t.double() for t in inputs), steps, backend="reference")
    with testing.poisoned():
        got = genfast.power_iteration(*map(testing.embedded, inputs), steps, backend="cpp")
    for name, a, b in zip("uv", got, expected):
        assert a.dtype == torch.promote_types(dtype, torch.float32)
        testing.assert_matches(a, b, name=name, **({} if dtype == torch.float64 else {"atol": 2e-5}))


@parametrize("shape", SHAPES)
def test_same_bits_however_split(shape):
    """Threads, and a layer alone or among as many as are not split, for the vectors and for the matrices over them."""
    weight, u, v = vectors(*shape, torch.float32)

    def both(*inputs):
        u, v = genfast.power_iteration(*inputs, 2, backend="cpp")
        leaves = [t.clone().requires_grad_() for t in (inputs[0], u, v)]
        y = genfast.spectral_norm(*leaves, backend="cpp")
        return u, v, y.detach(), *torch.autograd.grad((y * inputs[0]).sum(), leaves)

    with testing.threads(1):
        expected = both(weight, u, v)
    with testing.threads(3):
        for a, b in zip(both(weight, u, v), expected):
            testing.assert_identical(a, b, name="threads")
    many = both(*(t.repeat(17, *[1] * (t.ndim - 1)) for t in (weight, u, v)))
    for a, b in zip(many, expected):
        testing.assert_identical(a[: shape[0]], b, name="among many")


@parametrize("backend", BACKENDS)
def test_no_length(backend):
    """What has less than 1e-12 is divided by that: zeros stay zeros."""
    weight, u, v = vectors(2, 5, 9, torch.float32)
    weight[0] = 0
    weight[1] *= 1e-15
    got = genfast.power_iteration(weight, u, v, backend=backend)
    left = torch.einsum("rc,c->r", weight[1].double(), v[1].double()) / 1e-12
    right = torch.einsum("rc,r->c", weight[1].double(), left) / 1e-12
    for vector, expected in zip(got, (left, right)):
        assert not vector[0].any()
        testing.assert_matches(vector[1].double(), expected, atol=0, rtol=1e-5)


@parametrize("backend", BACKENDS)
def test_results_are_memory_of_their_own(backend):
    weight, u, v = vectors(2, 3, 4, torch.float32)
    for steps in (0, 1):
        got = genfast.power_iteration(weight, u, v, steps, backend=backend)
        assert not {t.data_ptr() for t in got} & {u.data_ptr(), v.data_ptr()}
        kept = [t.clone() for t in (u, v)]
        for t in got:
            t.zero_()
        assert torch.equal(u, kept[0]) and torch.equal(v, kept[1])


@parametrize("backend", BACKENDS)
def test_errors(backend):
    weight, u, v = vectors(2, 3, 4, torch.float32)
    for wrong, error, message in (
        ({"iterations": -1}, ValueError, "power_iteration: iterations must"),
        ({"iterations": 1.5}, TypeError, "power_iteration: iterations must"),
        ({"u": v}, ValueError, r"power_iteration: u must have shape \[L, R\] with L=2, R=3; got \(2, 4\)"),
        ({"weight": weight[:, :0]}, ValueError, r"power_iteration: weight must have shape \[L, R, C\]"),
        ({"v": v.double()}, TypeError, "power_iteration: v must have the dtype of weight"),
    ):
        with pytest.raises(error, match=message):
            genfast.power_iteration(**{"weight": weight, "u": u, "v": v, **wrong}, backend=backend)
