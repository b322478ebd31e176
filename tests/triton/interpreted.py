"""The Triton kernels in Triton's interpreter, on the CPU: beside the tests of every op, which run there too.

Run by test_triton.py in a process of its own, since TRITON_INTERPRET must be set before triton is imported.
support/interpreter.py guards every tensor.
"""

import importlib
import math

import pytest
import torch
from support.op_matrix import innermost
from support.pixel_programs import CASES, images_of, known_of, labels_of
from triton.runtime.errors import InterpreterError

import genfast
from genfast import testing
from genfast._native import backends
from genfast.engine import eager
from genfast.engine.request import SampleRequest
from genfast.kernels import _common, _products, categorical, gated_activation, pixel_program
from genfast.reference import SAMPLERS, SPECS
from genfast.reference.bias_act import ACTIVATIONS
from genfast.reference.gaussian_latent import latent_noise

FP32, FP16 = torch.float32, torch.float16
STREAMED = _common.Streamed(rows=16, block_n=16, block_k=16, num_warps=4, num_stages=2)
KEPT = STREAMED._replace(keep_side=True)
PARTS = _common.WeightGradient(block_m=16, block_n=32, block_k=16, steps=2, num_warps=4, num_stages=2)


def evaluated(op, inputs, backend="triton"):
    """Outputs, and gradients if the op has any."""
    function = getattr(genfast.ops, op)
    if op in SPECS:
        return testing.evaluate(function, inputs, backend=backend)
    return dict(enumerate(testing.outputs_of(function(**inputs, backend=backend))))


def check(op, inputs, scaled=False, rival=False):
    """Against the reference in float64; `scaled` where sums of many terms round in any float32: the error scales with
    the largest; with `rival`, and in half precision, no worse than the reference in the same precision."""
    got, truth = evaluated(op, inputs), evaluated(op, testing.doubled(inputs), "reference")
    half = next(iter(testing.differentiable(inputs).values())).dtype == FP16
    coarse = evaluated(op, inputs, "reference")
    for name, value in got.items():
        assert value.dtype == coarse[name].dtype, name
        if (half or rival) and value.is_floating_point():
            testing.assert_no_worse(value, coarse[name], truth[name], name=name)
        else:
            largest = max(1.0, truth[name].abs().max().item()) if scaled else 1.0
            testing.assert_matches(value, truth[name], name=name, atol=1e-5 * largest)


# op, dtype, sizes, and the launches in place of those that the tables have for such small ones. Rows, units and inputs
# of the products one past a block, all of them one block exactly; parts of a weight gradient that end inside an image,
# and past the last cell.
LAUNCHES = [
    *(("diagonal_lstm", FP32, sizes, {"scan_launch": STREAMED}) for sizes in ((1, 17, 1, 1, 5), (6, 3, 2, 1, 17))),
    ("diagonal_lstm", FP32, (1, 2, 2, 2, 16), {"scan_launch": STREAMED}),
    ("diagonal_lstm", FP32, (1, 2, 3, 2, 13), {"scan_launch": KEPT}),
    ("diagonal_lstm", FP16, (1, 2, 2, 1, 16), {"scan_launch": KEPT}),
    ("diagonal_lstm", FP32, (3, 4, 6, 2, 19), {"weight_launch": PARTS}),
    *(
        ("row_lstm", FP32, sizes, {"row_launch": STREAMED, "weight_launch": PARTS})
        for sizes in ((1, 3, 17, 5), (6, 3, 3, 17), (1, 3, 2, 16))
    ),
]


@pytest.mark.parametrize("op, dtype, sizes, launches", LAUNCHES)
def test_other_launches(op, dtype, sizes, launches, monkeypatch):
    module = importlib.import_module(f"genfast.kernels.{op}")
    for name, launch in launches.items():
        monkeypatch.setattr(module, name, lambda *_, launch=launch: launch)
    check(op, SPECS[op].inputs(dict(zip(SPECS[op].shapes[0], sizes)), dtype=dtype))


# Units past the largest block; images wider than the lanes of a program; as many values of a projection as stay on chip
# and more; rows, columns and values of a vector more than one tile holds.
SIZES = [
    ("diagonal_lstm", FP16, (2, 2, 3, 2, 65)),
    ("row_lstm", FP32, (1, 3, 35, 5)),
    *(("minibatch_discrimination", FP32, (9, 3, 3, size, others)) for size in (8, 9, 20) for others in (0, 5)),
    *(("minibatch_stddev", FP32, (2, group, 2, 1, 3, 50)) for group in (2, 16, 17)),
    ("spectral_norm", FP32, (1, 3, 300, 1)),
]


@pytest.mark.parametrize("op, dtype, sizes", SIZES)
def test_other_sizes(op, dtype, sizes):
    check(op, SPECS[op].inputs(dict(zip(SPECS[op].shapes[0], sizes)), dtype=dtype))


PIXELWISE = ("categorical_nll", "gated_activation", "logistic_mixture_nll", "bias_act")
PIXELWISE += ("categorical_sample", "bernoulli_sample", "logistic_mixture_sample")


@pytest.mark.parametrize("dtype", [FP32, FP16], ids=str)
@pytest.mark.parametrize("op, shape", [(op, i) for op in PIXELWISE for i in range(len((SPECS | SAMPLERS)[op].shapes))])
def test_pixels_innermost_in_memory(op, shape, dtype):
    """They are read in place, and written so."""
    spec = (SPECS | SAMPLERS)[op]
    if dtype not in backends.dtypes(op, "triton"):
        return
    sizes = {**spec.shapes[shape], "B": min(spec.shapes[shape]["B"], 3)}
    inputs = testing.each_tensor(innermost, spec.inputs(sizes, dtype=dtype))
    if op in SPECS:
        check(op, inputs)
    else:
        assert torch.equal(evaluated(op, inputs)[0], spec.reference(**inputs))


@pytest.mark.parametrize("rows, columns", [(1030, 2), (2, 1030)])
def test_long_vectors(rows, columns):
    u, v = genfast.power_iteration(torch.randn(1, rows, columns), torch.ones(1, rows), torch.ones(1, columns), 1)
    inputs = {"weight": torch.randn(1, rows, columns), "u": u, "v": v, "iterations": 1}
    check("power_iteration", inputs)
    for vector in evaluated("power_iteration", inputs).values():
        testing.assert_matches(vector.norm(dim=1), torch.ones(1))


def test_vectors_of_no_length():
    """A matrix of zeros: no division by 0."""
    vectors = genfast.power_iteration(torch.zeros(2, 3, 5), torch.ones(2, 3), torch.ones(2, 5), 2, backend="triton")
    assert all((vector == 0).all() for vector in vectors)


def test_new_vectors():
    """Even those of no iteration are none of the arguments."""
    u, v = torch.ones(2, 3), torch.ones(2, 5)
    for iterations in (0, 1):
        vectors = genfast.power_iteration(torch.randn(2, 3, 5), u, v, iterations, backend="triton")
        assert not {u.data_ptr(), v.data_ptr()} & {vector.data_ptr() for vector in vectors}


def test_batch_split_changes_no_bit():
    gates, *rest = SPECS["diagonal_lstm"].inputs({"B": 5, "H": 3, "W": 4, "D": 2, "C": 7}).values()
    whole, *parts = (genfast.diagonal_lstm(part, *rest, backend="triton") for part in (gates, *gates.split(2)))
    testing.assert_identical(torch.cat(parts), whole, name="hidden")


def test_guards_catch_a_wild_write(monkeypatch):
    """The guards themselves: a launcher that writes one element past its output fails."""

    def wild(x, save):
        output = x.new_empty(4)
        torch.as_strided(output, (1,), (1,), output.storage_offset() + 4).fill_(0)
        return output

    monkeypatch.setattr(gated_activation, "gated_activation_forward", wild)
    with pytest.raises(AssertionError, match="outside an output"):
        genfast.gated_activation(torch.randn(2, 4, 1, 1), backend="triton")


def test_guards_catch_a_wild_address():
    """A launch that is told of one element more than there are."""
    with pytest.raises(InterpreterError, match="an address outside the tensors"):
        _common.sum_parts_kernel[(1,)](torch.ones(1, 4), torch.ones(1), 1.0, 5, BLOCK=16)


def test_saturated_gates():
    """Large pre-activations: no overflow in exp, no NaN."""
    gates = torch.tensor([-1e4, 1e4, -100, 100]).repeat(16).view(1, 2, 2, 1, 16)
    outside = torch.ones(1, 4)
    check("diagonal_lstm", {"gates": gates, "weight": torch.zeros(1, 2, 4, 16), "h0": outside, "c0": outside})


def test_infinite_logits():
    """-inf is probability 0: no cost, no gradient, never drawn; and a level out of range is a NaN, not a wild read."""
    logits = torch.randn(2, 3, 5, 4)
    logits[:, :, ::2] = -torch.inf
    x = torch.randint(2, (2, 3, 4), dtype=torch.uint8) * 2 + 1
    nll = categorical.categorical_nll_forward(x, logits, 1, False)
    grad = categorical.categorical_nll_backward(torch.ones(2), x, logits, 1)
    assert nll.isfinite().all() and (grad[:, :, ::2] == 0).all() and grad.isfinite().all()
    assert (categorical.categorical_sample(logits, 0, 0, 1.0, 0) % 2 == 1).all()
    x[0, 0, 0], x[1, 2, 3] = 5, 200
    assert categorical.categorical_nll_forward(x, logits, 1, False).isnan().all()


@pytest.mark.parametrize("op", ["gaussian_nll", "bernoulli_nll"])
@pytest.mark.parametrize("kind", [bool, torch.uint8, torch.float32])
def test_missing_values(op, kind):
    """What stands where the weight is 0, a NaN too, counts for nothing."""
    inputs = SPECS[op].inputs({"B": 3, "C": 2, "H": 5, "W": 7, "M": 1})
    bits = inputs.pop("weight")
    weight = bits.bool() if kind is bool else bits.to(kind) * (0.75 if kind.is_floating_point else 1)
    leaf = "logits" if op == "bernoulli_nll" else "log_variance"
    inputs[leaf] = torch.where(bits > 0, inputs[leaf], torch.nan)

    def weighted(backend="triton", **kwargs):
        of_dtype = weight.to(kwargs[leaf].dtype) if weight.is_floating_point() else weight
        return getattr(genfast.ops, op)(**kwargs, weight=of_dtype, backend=backend)

    got = testing.evaluate(weighted, inputs)
    truth = testing.evaluate(weighted, testing.doubled(inputs), backend="reference")
    for name, value in got.items():
        testing.assert_matches(value, truth[name], name=name)


def test_noise_within_four_ulp():
    """Of all places, those of the largest and smallest numbers among them: z = noise where the mean is 0."""
    size = 1 << 14
    zeros = torch.zeros(1, size)
    seed, image, sample = 2**63 + 11, 2**40 + 3, 2**32 - 1
    z, _ = genfast.gaussian_latent(zeros, zeros, seed, first_index=image, first_sample=sample, backend="triton")
    exact = latent_noise(zeros.double(), seed, image, 1, sample).view(1, size)
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
    if order == "equal":
        y = y[:3].repeat(30, 1)
    elif order != "random":
        y = y[y.norm(dim=1).argsort(descending=order == "nearer and nearer")]
    y = y.float()
    x = torch.randn(5, 3) * 1e-3
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
    check("aggregate_posterior", SPECS["aggregate_posterior"].inputs({"B": 3, "M": 5, "Z": size}), rival=True)


def test_density_far_away():
    """No overflow where a density is e^-10^9 of the largest."""
    z, mean = torch.tensor([[0.0, 1.0], [30.0, -1.0]]), torch.tensor([[0.0, 1.0], [1.0, 2.0], [30.0, -1.0]])
    inputs = {"z": z, "mean": mean, "log_variance": torch.full((3, 2), -18.0)}
    check("aggregate_posterior", inputs)


def test_no_latents():
    joint, marginals = genfast.aggregate_posterior(*(torch.zeros(n, 0) for n in (3, 2, 2)), backend="triton")
    testing.assert_matches(joint, torch.full((3,), math.log(2)))
    assert marginals.shape == (3, 0)


def test_equal_images():
    """An image counts itself, and no gradient leads away from what is the same."""
    features = torch.randn(1, 3).expand(6, 3).clone().requires_grad_()
    counts = genfast.minibatch_discrimination(features, torch.randn(3, 4, 2), backend="triton")
    assert (counts == 6).all()
    counts.sum().backward()
    assert (features.grad == 0).all()


def test_only_others():
    """A process without images still sends gradients to those of the others."""
    kernel, others = torch.randn(3, 4, 2), torch.randn(5, 3)
    counts = genfast.minibatch_discrimination(torch.empty(0, 3), kernel.requires_grad_(), others, backend="triton")
    counts.sum().backward()
    assert counts.shape == (0, 4) and (kernel.grad == 0).all()


def test_images_without_variety():
    x = torch.randn(1, 3, 4, 4).expand(8, 3, 4, 4).clone().requires_grad_()
    y = genfast.minibatch_stddev(x, backend="triton")
    testing.assert_matches(y[:, 3], torch.full((8, 4, 4), 1e-4), atol=1e-9)
    y.sum().backward()
    testing.assert_matches(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 4, 7), (70, 130), (2, 3, 2100)], ids=str)
def test_activations_of_any_shape(activation, shape):
    """A matrix, pixels in and past a tile, more channels than one, more pixels than a program has tiles."""
    inputs = {"x": 3 * torch.randn(shape), "bias": torch.randn(shape[1]), "activation": activation}
    check("bias_act", {**inputs, "slope": 0.1, "gain": 1.5, "limit": 2.0}, scaled=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("limit", [None, 0.5, 0.0])
def test_where_the_slope_changes(activation, limit):
    """0 and the limit are part of what has a gradient as torch has it; what is no number stays none."""
    points = torch.tensor([[0.0, -0.0, 0.5, -0.5, 3.0, -3.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan]])
    if activation == "swish":
        points = points[:, :6]
    results = []
    for x, backend in ((points.clone(), "triton"), (points.double(), "reference")):
        x.requires_grad_()
        y = genfast.bias_act(x, None, activation, limit=limit, backend=backend)
        (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, 2.0))
        results.append((y, gradient))
    for value, truth in zip(*results):
        known = ~points.isnan()
        assert (value.isnan() == truth.isnan())[known].all()
        finite = truth.isfinite() & known
        testing.assert_matches(value[finite], truth[finite])
        assert torch.equal(value[~finite & known].double(), truth[~finite & known])
    assert results[0][0][points.isnan()].isnan().all()


def test_filter_of_third_order():
    """The gradient's gradient is the op again."""
    x, weights = torch.randn(1, 2, 6, 5, requires_grad=True), torch.randn(4)
    got = genfast.upfirdn2d(x.sin(), weights, up=2, padding=2, backend="triton")
    exact = genfast.upfirdn2d(x.double().sin(), weights.double(), up=2, padding=2, backend="reference")
    for _ in range(3):
        got, exact = (torch.autograd.grad(y.square().sum(), x, create_graph=True)[0] for y in (got, exact))
    testing.assert_matches(got, exact, atol=1e-5 * exact.abs().max().item())


FILTERS = [
    {"up": (3, 2), "down": (2, 3), "padding": (4, -1, -2, 5)},
    {"up": 5, "down": 4, "padding": 7},
    {"up": 1, "down": 3, "padding": (-2, 1, 3, -1)},
    {"up": (1, 2), "down": (2, 1), "padding": (10, 13, 20, 9)},
]


@pytest.mark.parametrize("taps", [(4,), (3, 2), (1, 6)], ids=str)
@pytest.mark.parametrize("settings", FILTERS, ids=str)
def test_factors_and_paddings(settings, taps):
    """Cropped, and padded far beyond the image; maps of one program, and rows and columns of several."""
    check("upfirdn2d", {"x": torch.randn(2, 3, 9, 11), "filter": torch.randn(taps), **settings})
    check("upfirdn2d", {"x": torch.randn(1, 1, 37, 20), "filter": torch.randn(taps), **settings})


SEED, FIRST = 2**64 - 3, 5


def both(case, n, **options):
    request = SampleRequest(n, **({"seed": SEED, "first": FIRST, "labels": labels_of(case.program, n)} | options))
    return pixel_program.pixel_program(case.program, request, torch.device("cpu")), eager.run(case.program, request)


def assert_same(got, expected):
    assert torch.equal(got.images, expected.images)
    testing.assert_matches(got.parameters, expected.parameters, atol=1e-5)
    testing.assert_matches(got.log_probs, expected.log_probs, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_samples(case):
    assert_same(*both(case, 3, temperature=1.3, want=("log_probs", "parameters")))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_known_values(case):
    given = {"given": images_of(case.program, 2), "known": known_of(case.program, 2)}
    assert_same(*both(case, 2, **given, draw=3, want=("log_probs", "parameters")))


@pytest.mark.parametrize("case", [case for case in CASES if case.program.likelihood.takes_evidence], ids=str)
def test_evidence(case):
    evidence = torch.randn(2, *case.program.spec.shape, case.program.spec.levels)
    evidence[..., 0] = -torch.inf
    got, expected = both(case, 2, evidence=evidence, want=("log_evidence",))
    assert torch.equal(got.images, expected.images) and got.images.all()
    testing.assert_matches(got.log_evidence, expected.log_evidence, atol=1e-4)


def test_more_images_than_a_program_owns():
    got, expected = both(CASES[-1], pixel_program.BLOCK + 1)
    assert torch.equal(got.images, expected.images) and got.log_probs is None


def test_no_images():
    got, expected = both(CASES[0], 0, want=("log_probs", "parameters"))
    assert got.images.shape == expected.images.shape and got.log_probs.shape == expected.log_probs.shape
