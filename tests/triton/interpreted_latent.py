"""The Triton kernels of the variational family in Triton's interpreter, with guards around every tensor, through the
public functions. Run by test_triton.py in a process of its own, as triton_interpreted.py is."""

import contextlib
import importlib
import math
from unittest import mock

import pytest
import torch
from triton_interpreted import _addresses, guarded_outputs  # noqa: F401

import genfast
from genfast import testing
from genfast._native import backends
from genfast.kernels import _products
from genfast.reference import NON_DIFFERENTIABLE, SPECS
from genfast.reference.gaussian_latent import latent_noise

OPS = ("gaussian_latent", "gaussian_nll", "bernoulli_nll", "importance_bound", "vector_quantize", "aggregate_posterior")
CASES = [(op, shape) for op in OPS for shape in range(len(SPECS[op].shapes))]
MEASURE_OPS = ("codebook_statistics", "nearest_neighbors", "kernel_sum")
MEASURED = [(op, shape) for op in MEASURE_OPS for shape in range(len(NON_DIFFERENTIABLE[op].shapes))]
# float64 results of float32 products and tile sums.
FLOAT32 = {"atol": 1e-5, "rtol": 1e-5}


@contextlib.contextmanager
def guarded(op):
    """The buffers of the launchers, and they alone, lie between guards."""
    module = importlib.import_module(f"genfast.kernels.{backends.stem(op)}")
    with contextlib.ExitStack() as stack:
        for name in [name for name in vars(module) if name in (f"{op}_forward", f"{op}_backward", op)]:
            function = getattr(module, name)

            def inside(*args, function=function):
                with guarded_outputs():
                    return function(*args)

            stack.enter_context(mock.patch.object(module, name, inside))
        yield


def smaller(sizes, op):
    """Few images, which the interpreter walks one by one, where images do not share a program."""
    alone = ("gaussian_latent", "gaussian_nll", "bernoulli_nll", "importance_bound")
    return {**sizes, "B": min(sizes["B"], 1 if sizes.get("S", 1) > 10 else 4)} if op in alone else sizes


def check(op, inputs, used=None, exact=True):
    """Of the outputs in `used` the gradients, `exact` to the tolerance of float32 or no worse than torch's."""
    function = getattr(genfast.ops, op)
    with guarded(op):
        got = testing.evaluate(function, inputs, used=used, backend="triton")
    truth = testing.evaluate(function, testing.doubled(inputs), used=used, backend="reference")
    rival = testing.evaluate(function, inputs, used=used, backend="reference")
    for name, value in got.items():
        assert value.dtype == rival[name].dtype, name
        if value.dtype == torch.int64:
            assert torch.equal(value, rival[name]), name
        elif not exact or next(iter(testing.learned(inputs).values())).dtype == torch.float16:
            testing.assert_no_worse(value, rival[name], truth[name], name=name)
        else:
            testing.assert_matches(value, truth[name], name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("op, shape", CASES)
def test_matches_reference(op, shape, dtype):
    spec = SPECS[op]
    check(op, testing.each_tensor(testing.embedded, spec.inputs(smaller(spec.shapes[shape], op), dtype=dtype)))


OUTPUTS = [("gaussian_latent", 0), ("gaussian_latent", 1), ("vector_quantize", 1), ("vector_quantize", 2)]
OUTPUTS += [("aggregate_posterior", 0), ("aggregate_posterior", 1)]


@pytest.mark.parametrize("op, used", OUTPUTS)
def test_gradient_of_one_output(op, used):
    """That of the others comes as an empty tensor."""
    for sizes in SPECS[op].shapes[1:4]:
        check(op, SPECS[op].inputs(smaller(sizes, op)), [used])


@pytest.mark.parametrize("op, shape", MEASURED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_measure(op, shape, dtype):
    spec = NON_DIFFERENTIABLE[op]
    inputs = testing.each_tensor(testing.embedded, spec.inputs(spec.shapes[shape], dtype=dtype))
    function = getattr(genfast.ops, op)
    with guarded(op):
        got = function(**inputs, backend="triton")
    expected = function(**testing.doubled(inputs), backend="reference")
    for value, truth in zip(*((made,) if torch.is_tensor(made) else made for made in (got, expected))):
        if value.dtype == torch.int64:
            assert torch.equal(value, truth)
        else:
            testing.assert_matches(value, truth, **FLOAT32)


@pytest.mark.parametrize("op", ["gaussian_nll", "bernoulli_nll"])
@pytest.mark.parametrize("kind", [bool, torch.uint8, torch.float32])
def test_missing_values(op, kind):
    """What stands where the weight is 0, a NaN too, counts for nothing."""
    inputs = SPECS[op].inputs({"B": 3, "C": 2, "H": 5, "W": 7, "M": 1})
    weight = inputs["weight"]
    inputs["weight"] = weight.bool() if kind is bool else weight.to(kind) * (0.75 if kind.is_floating_point else 1)
    leaf = "logits" if op == "bernoulli_nll" else "log_variance"
    inputs[leaf] = torch.where(weight > 0, inputs[leaf], torch.nan)
    weights = inputs.pop("weight")
    function = getattr(genfast.ops, op)

    def weighted(backend="triton", **kwargs):
        weight = weights.to(kwargs[leaf].dtype) if weights.is_floating_point() else weights
        return function(**kwargs, weight=weight, backend=backend)

    got = testing.evaluate(weighted, inputs)
    truth = testing.evaluate(weighted, testing.doubled(inputs), backend="reference")
    for name, value in got.items():
        testing.assert_matches(value, truth[name], name=name)


def test_gradient_that_is_not_wanted():
    inputs = SPECS["gaussian_nll"].inputs({"B": 2, "C": 1, "H": 3, "W": 3, "M": 0})
    inputs["mean"].requires_grad_()
    genfast.gaussian_nll(**inputs, backend="triton").sum().backward()
    assert inputs["mean"].grad is not None and inputs["x"].grad is None
    x, codebook = torch.randn(5, 3).requires_grad_(), torch.randn(4, 3)
    genfast.vector_quantize(x, codebook, backend="triton")[2].backward()
    testing.assert_matches(x.grad, 0.5 / 15 * (x - codebook[genfast.vector_quantize(x, codebook)[0]]))


def test_noise_within_four_ulp():
    """Of all places, those of the largest and smallest numbers among them: z = noise where the mean is 0."""
    size = 1 << 14
    zeros = torch.zeros(1, size)
    z, _ = genfast.gaussian_latent(zeros, zeros, 2**63 + 11, first_index=2**40 + 3, first_sample=2**32 - 1,
                                   backend="triton")  # fmt: skip
    exact = latent_noise(zeros.double(), 2**63 + 11, 2**40 + 3, 1, 2**32 - 1).view(1, size)
    ulp = torch.exp2(torch.floor(torch.log2(exact.abs())) - 23)
    assert ((z - exact).abs() / ulp).max() <= 4
    assert abs(z.mean()) < 0.04 and abs(z.std() - 1) < 0.03


@pytest.mark.parametrize("spread", [-60.0, -29.9, -5.0, 0.0, 12.0, 19.9, 40.0])
def test_wide_and_narrow_latents(spread):
    """Standard deviations from e^-15 to e^10, within 4 ulp too; nothing moves beyond the bounds."""
    mean, log_variance = torch.zeros(2, 37), spread + 0.3 * torch.randn(2, 37)
    leaf = log_variance.clone().requires_grad_()
    z, kl = genfast.gaussian_latent(mean, leaf, 3, backend="triton")
    exact, nats = genfast.gaussian_latent(mean.double(), log_variance.double(), 3, backend="reference")
    ulp = torch.exp2(torch.floor(torch.log2(exact.abs())) - 23)
    assert ((z - exact).abs() / ulp).max() <= 5
    testing.assert_matches(kl, nats)
    (z.sum() + kl.sum()).backward()
    assert (leaf.grad == 0).all() == (abs(spread) > 30)


def test_small_divergence():
    """Near the prior the terms cancel: exp(x) - 1 - x is x^2 / 2."""
    log_variance = torch.full((1, 8), 1e-4)
    _, kl = genfast.gaussian_latent(torch.zeros(1, 8), log_variance, 0, per_latent=True, backend="triton")
    testing.assert_matches(
        kl.double(), torch.full((1, 8), 2.5e-9 * (1 + 1e-4 / 3), dtype=torch.float64), atol=0, rtol=1e-5
    )


@pytest.mark.parametrize("samples", [1, 3])
def test_noise_depends_on_image_and_sample_alone(samples):
    mean, log_variance = torch.randn(5, 11), torch.randn(5, 11)
    z, kl = genfast.gaussian_latent(mean, log_variance, 4, first_index=9, samples=samples, backend="triton")
    part, of_part = genfast.gaussian_latent(
        mean[2:], log_variance[2:], 4, first_index=11, samples=samples, backend="triton"
    )
    testing.assert_identical(part, z[2 * samples :])
    testing.assert_identical(of_part, kl[2:])
    later, _ = genfast.gaussian_latent(mean, log_variance, 4, 9, first_sample=samples - 1, backend="triton")
    testing.assert_identical(later, z[samples - 1 :: samples])


def test_infinite_weights():
    rows = [[-torch.inf, -2.0, -1e30], [-torch.inf] * 3, [torch.inf, 1, 2], [1e4, -1e4, 0], [torch.nan, 0, 1]]
    got = genfast.importance_bound(torch.tensor(rows), backend="triton")
    expected = torch.tensor([-2 - math.log(3), -torch.inf, torch.inf, 1e4 - math.log(3), torch.nan])
    assert torch.equal(got.isnan(), expected.isnan()) and torch.allclose(got[:-1], expected[:-1])
    # A block of nothing before one of something.
    long = torch.full((1, 3000), -torch.inf)
    long[0, 2500] = -1000.0
    got = genfast.importance_bound(long, backend="triton")
    testing.assert_matches(got, torch.tensor([-1000 - math.log(3000)]))


def test_lowest_of_equal_codes():
    """In one tile, and in two."""
    x, codebook = torch.randn(9, 5), torch.randn(70, 5)
    best = genfast.vector_quantize(x, codebook, backend="reference")[0]
    for n, code in enumerate(best):
        other = torch.cat((codebook, codebook[code][None], codebook[code][None]))
        assert genfast.vector_quantize(x[n : n + 1], other, backend="triton")[0] == code
        other = torch.cat((codebook[code][None], codebook))
        assert genfast.vector_quantize(x[n : n + 1], other, backend="triton")[0] == 0


def test_unused_and_crowded_codes():
    x, codes = torch.randn(131, 130), torch.full((131,), 2)
    codes[7], codes[90] = 0, 0
    counts, sums = genfast.codebook_statistics(x, codes, 4, backend="triton")
    assert counts.tolist() == [2, 0, 129, 0] and (sums[[1, 3]] == 0).all()
    testing.assert_matches(sums[2], x.double()[codes == 2].sum(0))


@pytest.mark.parametrize("order", ["random", "nearer and nearer", "further and further", "equal"])
@pytest.mark.parametrize("k", [1, 7, 64, 65])
def test_neighbours_in_any_order(order, k):
    """Rows of y that all go in, that never do, that are equal to each other; more than one run of the kernel."""
    y = torch.randn(90, 3).double()
    y = {
        "random": y, "equal": y[:3].repeat(30, 1),
        "nearer and nearer": y[y.norm(dim=1).argsort(descending=True)],
        "further and further": y[y.norm(dim=1).argsort()],
    }[order].float()  # fmt: skip
    x = torch.randn(5, 3) * 1e-3
    with guarded("nearest_neighbors"):
        squares, indices = genfast.nearest_neighbors(x, y, k, backend="triton")
    exact, expected = genfast.nearest_neighbors(x.double(), y.double(), k, backend="reference")
    assert torch.equal(indices, expected)
    testing.assert_matches(squares, exact)


def test_neighbours_of_no_number():
    """A NaN is nobody's neighbour, and none of its own are out of range."""
    x, y = torch.randn(3, 4), torch.randn(6, 4)
    x[1], y[2, 0] = torch.nan, torch.nan
    _, indices = genfast.nearest_neighbors(x, y, 5, backend="triton")
    assert sorted(indices[0].tolist()) == [0, 1, 3, 4, 5] and ((indices >= 0) & (indices < 6)).all()


@pytest.mark.parametrize("size", [65, 20])
def test_products_in_several_parts(size, monkeypatch):
    """More values than a tile holds, of a newer GPU and of an older one."""
    if size == 20:
        monkeypatch.setattr(_products, "shared_memory", lambda _: 0)
    x, y = torch.randn(5, size), torch.randn(67, size)
    squares, indices = genfast.nearest_neighbors(x, y, 3, backend="triton")
    exact, expected = genfast.nearest_neighbors(x.double(), y.double(), 3, backend="reference")
    assert torch.equal(indices, expected)
    testing.assert_matches(squares, exact)
    check("vector_quantize", {"x": x, "codebook": y})


@pytest.mark.parametrize("size", [33, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_distances_far_from_the_origin(dtype, size):
    """Of vectors in one part and in several; half precision has its spacing there as their spread."""
    offset, spread = (1000, 1) if dtype == torch.float32 else (2048, 32)
    x, y = ((offset + spread * torch.randn(n, size)).to(dtype) for n in (40, 150))
    every = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    exact = every.topk(5, largest=False)
    squares, indices = genfast.nearest_neighbors(x, y, 5, backend="triton")
    testing.assert_matches(squares, exact.values, rtol=1e-5)
    assert torch.equal(every.gather(1, indices), exact.values)
    codes, quantized, loss = genfast.vector_quantize(x, y, backend="triton")
    assert torch.equal(every.gather(1, codes[:, None])[:, 0], exact.values[:, 0])
    testing.assert_identical(quantized, y[codes])
    testing.assert_matches(loss, 1.25 * exact.values[:, 0].mean() / size, rtol=1e-5)
    gamma = 0.5 / (size * spread**2)
    got = genfast.kernel_sum(x, y, "gaussian", gamma=gamma, backend="triton")
    testing.assert_matches(got, (-gamma * every).exp().sum(1), rtol=1e-5)


@pytest.mark.parametrize("gamma", [1e-3, 1.0, 100.0])
def test_gaussian_kernel_of_itself(gamma):
    x = torch.randn(20, 6)
    got = genfast.kernel_sum(x, x, "gaussian", gamma=gamma, backend="triton")
    exact = genfast.kernel_sum(x.double(), x.double(), "gaussian", gamma=gamma, backend="reference")
    # Of equal vectors the norms and the product cancel, to the rounding of float32.
    testing.assert_matches(got, exact, atol=1e-5 + 2**-21 * gamma * x.square().sum(1).max().item(), rtol=1e-5)


@pytest.mark.parametrize("size", [70, 130])
def test_density_of_many_latents(size):
    """More latents than a tile holds; the sum over them rounds, in any float32."""
    check("aggregate_posterior", SPECS["aggregate_posterior"].inputs({"B": 3, "M": 5, "Z": size}), exact=False)


def test_density_far_away():
    """No overflow where a density is e^-10^9 of the largest."""
    z, mean = torch.tensor([[0.0, 1.0], [30.0, -1.0]]), torch.tensor([[0.0, 1.0], [1.0, 2.0], [30.0, -1.0]])
    inputs = {"z": z, "mean": mean, "log_variance": torch.full((3, 2), -18.0)}
    check("aggregate_posterior", inputs)


def test_no_latents():
    joint, marginals = genfast.aggregate_posterior(*(torch.zeros(n, 0) for n in (3, 2, 2)), backend="triton")
    testing.assert_matches(joint, torch.full((3,), math.log(2)))
    assert marginals.shape == (3, 0)
