"""Every op x every backend x every property. What is special to one op is in its own file."""

import doctest
import inspect
import multiprocessing
import threading

import pytest
import torch
from hypothesis import given, settings, strategies

import genfast
from genfast import _backends, testing
from genfast.reference import SPECS

OPS = list(SPECS)
CPU_DTYPES = {"reference": (torch.float32, torch.float64, torch.bfloat16)}
# The interpreter's bfloat16 is silently wrong, and it takes a second for a few pixels.
INTERPRETED = genfast.backends()["triton"].available and not torch.cuda.is_available()


def lanes():
    """(op, backend, dtype) that must work here. cpp is always among them: without it these tests fail."""
    for op in OPS:
        for backend in ("reference", "cpp", "triton"):
            if backend == "triton" and not genfast.backends()["triton"].available:
                continue
            for dtype in CPU_DTYPES.get(backend) or _backends.dtypes(op, backend):
                if not (INTERPRETED and backend == "triton" and dtype == torch.bfloat16):
                    yield op, backend, dtype


LANES = list(lanes())
DOUBLE = [(op, backend) for op, backend, dtype in LANES if dtype == torch.float64]
# One lane a backend, in its most precise dtype; and what second derivatives are then held to.
PRECISE = [lane for lane in LANES if lane[2] == (torch.float32 if lane[1] == "triton" else torch.float64)]
SECOND = {torch.float64: 1e-10, torch.float32: 1e-4}
NATIVE = [(op, backend, dtype) for op, backend, dtype in LANES if backend != "reference"]
CPP = [lane for lane in LANES if lane[1] == "cpp"]
CPP_OPS = [(op, "cpp") for op in OPS]


def label(value):
    return str(value).removeprefix("torch.") if not isinstance(value, dict) else "-".join(map(str, value.values()))


def parametrize(names, values):
    return pytest.mark.parametrize(names, values, ids=label)


def device_of(backend):
    return "cuda" if backend == "triton" and not INTERPRETED else "cpu"


def sample(op, backend="cpp", dtype=torch.float32, shape=4):
    sizes = SPECS[op].shapes[shape] if isinstance(shape, int) else shape
    return SPECS[op].inputs(sizes, dtype=dtype, device=device_of(backend))


def run(op, inputs, backend):
    return testing.evaluate(getattr(genfast.ops, op), inputs, backend=backend)


def small(op):
    return SPECS[op].gradcheck[0]


def crowded(op):
    """The shape of most images: work for every thread."""
    return max(SPECS[op].shapes, key=lambda sizes: sizes["B"])


def first_learned(inputs):
    return next(iter(testing.learned(inputs).items()))


def with_leaves(inputs, requires_grad=True):
    """`inputs` with fresh leaves for the float tensors, and these leaves by name."""
    leaves = {n: t.detach().clone().requires_grad_(requires_grad) for n, t in testing.learned(inputs).items()}
    return {**inputs, **leaves}, leaves


SHAPES = [(*lane, shape) for lane in LANES for shape in range(len(SPECS[lane[0]].shapes))]


@parametrize("op, backend, dtype, shape", SHAPES)
def test_matches_reference(op, backend, dtype, shape):
    """Output and every gradient, with NaN around the inputs and in the outputs before they are written."""
    spec = SPECS[op]
    sizes = spec.shapes[shape]
    if INTERPRETED and backend == "triton" and sizes["B"] * sizes["H"] * sizes["W"] > 60:
        sizes = {**sizes, "B": 1}
    inputs = testing.each_tensor(testing.embedded, sample(op, backend, dtype, sizes))
    with testing.poisoned():
        got = run(op, inputs, backend)
    truth = testing.evaluate(spec.reference, testing.doubled(inputs))
    rival = testing.evaluate(spec.reference, inputs) if dtype.itemsize == 2 else None
    for name, value in got.items():
        assert value.dtype == dtype
        if rival:
            testing.assert_no_worse(value, rival[name], truth[name], name=name)
        else:
            testing.assert_matches(value, truth[name], name=name)


@parametrize("op, backend, dtype", [lane for lane in CPP if lane[2] != torch.bfloat16])
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=strategies.data())
def test_any_shape(op, backend, dtype, data):
    """Shapes that nobody chose, without and with gradients."""
    ranges = {"B": range(7), "H": range(8), "W": range(8), "D": (1, 2), "C": range(1, 41), "F": range(1, 41)}
    ranges |= SPECS[op].ranges
    sizes = {letter: data.draw(strategies.sampled_from(ranges[letter]), letter) for letter in small(op)}
    inputs = testing.each_tensor(testing.embedded, sample(op, backend, dtype, sizes))
    truth = testing.evaluate(SPECS[op].reference, testing.doubled(inputs))
    with testing.poisoned():
        got = run(op, inputs, backend)
        alone = getattr(genfast.ops, op)(**inputs, backend=backend)
    testing.assert_identical(alone, got["output"], name="output without gradient")
    for name, value in got.items():
        testing.assert_matches(value, truth[name], name=name)


@parametrize("layout", list(testing.LAYOUTS))
@parametrize("op, backend, dtype", [lane for lane in LANES if lane[2] in (torch.float32, torch.float64)])
def test_layouts(op, backend, dtype, layout):
    """Strides change nothing: neither those of the inputs nor those of the incoming gradient."""
    inputs = testing.each_tensor(testing.LAYOUTS[layout], sample(op, backend, dtype, small(op)))
    got = run(op, inputs, backend)
    expected = run(op, testing.each_tensor(torch.Tensor.contiguous, inputs), backend)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    function = getattr(genfast.ops, op)
    arguments, leaves = with_leaves(testing.each_tensor(torch.Tensor.contiguous, inputs))
    output = function(**arguments, backend=backend)
    incoming = testing.LAYOUTS[layout](torch.randn_like(output))
    for name, a, b in zip(
        leaves,
        torch.autograd.grad(output, tuple(leaves.values()), incoming, retain_graph=True),
        torch.autograd.grad(output, tuple(leaves.values()), incoming.contiguous()),
    ):
        testing.assert_matches(a, b, name=f"grad_{name}")


@parametrize("case", range(2))
@parametrize("op, backend", DOUBLE)
def test_gradcheck(op, backend, case):
    inputs, leaves = with_leaves(sample(op, backend, torch.float64, SPECS[op].gradcheck[case]))

    def function(*tensors):
        return getattr(genfast.ops, op)(**{**inputs, **dict(zip(leaves, tensors))}, backend=backend)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()), fast_mode=case == 0)


@parametrize("op, backend, dtype", PRECISE)
def test_gradient_of_one_argument(op, backend, dtype):
    """Each argument may be the only one that requires a gradient, to the second order."""
    inputs = sample(op, backend, dtype, small(op))
    for name, tensor in testing.learned(inputs).items():
        leaf = tensor.clone().requires_grad_()

        def loss(function, **kwargs):
            output = function(**{**inputs, name: leaf}, **kwargs)  # noqa: B023
            (first,) = torch.autograd.grad((output**2).sum(), leaf, create_graph=True)  # noqa: B023
            return first, torch.autograd.grad((first**2).sum(), leaf)[0]  # noqa: B023

        for got, expected in zip(loss(getattr(genfast.ops, op), backend=backend), loss(SPECS[op].reference)):
            testing.assert_matches(got, expected, name=name, atol=SECOND[dtype])


@parametrize("op, backend, dtype", NATIVE)
def test_opcheck(op, backend, dtype):
    forward = getattr(torch.ops.genfast, f"{op}_forward").default
    backward = getattr(torch.ops.genfast, f"{op}_backward").default
    inputs = sample(op, backend, dtype, small(op))
    inputs = raw_arguments(op, inputs, backend)
    for gradient in (False, True):
        arguments, _ = with_leaves(inputs, gradient)
        for save in (False, True):
            torch.library.opcheck(forward, (*arguments.values(), save), {"backend": backend})
    results = as_tuple(forward(*inputs.values(), True, backend=backend))
    torch.library.opcheck(backward, backward_arguments(op, inputs, results), {"backend": backend})


def raw_arguments(op, inputs, backend):
    """The arguments of the op under the function, which may have arranged them otherwise: caught in the act."""
    called, forward = {}, f"{op}_forward"

    class Catch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is getattr(torch.ops.genfast, forward).default:
                called.update(zip(argument_names(forward), args))
            return function(*args, **(kwargs or {}))

    with Catch(), torch.no_grad():
        getattr(genfast.ops, op)(**inputs, backend=backend)
    return called


def as_tuple(results):
    return (results,) if torch.is_tensor(results) else tuple(results)


def backward_arguments(op, inputs, results):
    """The incoming gradient and what the forward op saved, in the order of the schema of the backward op."""
    _, *names = argument_names(f"{op}_backward")
    known = {**inputs, **dict(zip(result_names(f"{op}_forward"), results))}
    return torch.ones_like(results[0]), *(known[name] for name in names)


def result_names(raw):
    return [result.name for result in getattr(torch.ops.genfast, raw).default._schema.returns]


def argument_names(raw):
    schema = getattr(torch.ops.genfast, raw).default._schema
    return [argument.name for argument in schema.arguments if argument.name not in ("save", "backend")]


@parametrize("op, backend, dtype", NATIVE)
def test_raw_op_differentiates_or_raises(op, backend, dtype):
    inputs = raw_arguments(op, sample(op, backend, dtype, small(op)), backend)
    arguments, leaves = with_leaves(inputs)
    forward = getattr(torch.ops.genfast, f"{op}_forward")
    output, *saved = as_tuple(forward(*arguments.values(), True, backend=backend))
    assert not any(s.requires_grad for s in saved)
    got = torch.autograd.grad(output.sum(), tuple(leaves.values()))
    backward = getattr(torch.ops.genfast, f"{op}_backward")
    results = as_tuple(forward(*inputs.values(), True, backend=backend))
    expected = as_tuple(backward(*backward_arguments(op, inputs, results), backend=backend))
    for name, a, b in zip(leaves, got, expected, strict=True):
        testing.assert_identical(a, b, name=name)
    given = backward_arguments(op, arguments, (output.detach(), *saved))
    with pytest.raises(RuntimeError, match=f"{op}_backward: expected no input that requires grad"):
        backward(*given, backend=backend)


@parametrize("op, backend, dtype", PRECISE)
def test_compiles_as_one_graph(op, backend, dtype):
    inputs = sample(op, backend, dtype, small(op))

    def function(**tensors):
        return getattr(genfast.ops, op)(**tensors, backend=backend) * 2

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got, expected = testing.evaluate(compiled, inputs), testing.evaluate(function, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    with torch.no_grad():
        testing.assert_matches(compiled(**inputs), expected["output"])


@parametrize("op, backend, dtype", PRECISE)
def test_functional_gradients(op, backend, dtype):
    inputs = sample(op, backend, dtype, small(op))
    first, _ = first_learned(inputs)

    def loss(tensor):
        return (getattr(genfast.ops, op)(**{**inputs, first: tensor}, backend=backend) ** 2).sum()

    def loss_ref(tensor):
        return (SPECS[op].reference(**{**inputs, first: tensor}) ** 2).sum()

    got, expected = torch.func.grad(loss)(inputs[first]), torch.func.grad(loss_ref)(inputs[first])
    testing.assert_matches(got, expected, atol=SECOND[dtype])

    def twice(f):
        return torch.func.grad(lambda x: (torch.func.grad(f)(x) ** 2).sum())(inputs[first])

    testing.assert_matches(twice(loss), twice(loss_ref), atol=SECOND[dtype])


@parametrize("op, backend, dtype", NATIVE)
def test_forward_mode_raises(op, backend, dtype):
    """Nothing is silently zero: neither from the function nor from the op under it."""
    inputs = sample(op, backend, dtype, small(op))
    function, (first, primal) = getattr(genfast.ops, op), first_learned(inputs)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda x: function(**{**inputs, first: x}, backend=backend), (primal,), (primal,))
    arguments = raw_arguments(op, inputs, backend)
    raw_first, raw_primal = first_learned(arguments)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(primal, torch.ones_like(primal))
        with pytest.raises(NotImplementedError, match="forward mode"):
            function(**{**inputs, first: dual}, backend=backend)
        dual = torch.autograd.forward_ad.make_dual(raw_primal, torch.ones_like(raw_primal))
        with pytest.raises(NotImplementedError, match="forward mode"):
            raw = getattr(torch.ops.genfast, f"{op}_forward")
            raw(*{**arguments, raw_first: dual}.values(), False, backend=backend)


@parametrize("op", OPS)
def test_reference_has_forward_mode(op):
    inputs = sample(op, "reference", torch.float64, small(op))
    first, primal = first_learned(inputs)

    def function(x):
        return getattr(genfast.ops, op)(**{**inputs, first: x}, backend="reference")

    _, got = torch.func.jvp(function, (primal,), (torch.ones_like(primal),))
    step = 1e-6
    testing.assert_matches(got, (function(primal + step) - function(primal - step)) / (2 * step), atol=1e-8)


@parametrize("shape", (3, 5, 6, 7, 8))
@parametrize("op, backend, dtype", CPP)
def test_same_bits_for_threads_and_levels(op, backend, dtype, shape):
    inputs = sample(op, backend, dtype, min(shape, len(SPECS[op].shapes) - 1))
    with testing.threads(1):
        expected = run(op, inputs, backend)
    active = genfast.backends()["cpp"]
    for count, level in [(2, active.level), *((1, level) for level in active.levels), (3, "plain")]:
        genfast.set_level(level)
        try:
            with testing.threads(count):
                got = run(op, inputs, backend)
        finally:
            genfast.set_level(active.level)
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=f"{name} ({level}, {count} threads)")


@parametrize("op, backend, dtype", CPP)
def test_same_bits_for_batch_splits(op, backend, dtype):
    inputs = sample(op, backend, dtype, crowded(op))
    first, _ = first_learned(inputs)
    expected = run(op, inputs, backend)["output"]
    function = getattr(genfast.ops, op)

    def gradient(arguments, grad):
        leaf = arguments[first].clone().requires_grad_()
        return torch.autograd.grad(function(**{**arguments, first: leaf}, backend=backend), leaf, grad)[0]

    expected_gradient = gradient(inputs, torch.ones_like(expected))
    for size in (1, 7, 16, 32):
        split = {name: inputs[name].split(size) for name in SPECS[op].batched or (first,)}
        parts = [{**inputs, **dict(zip(split, part))} for part in zip(*split.values(), strict=True)]
        outputs = [function(**part, backend=backend) for part in parts]
        testing.assert_identical(torch.cat(outputs), expected, name=f"output, parts of {size}")
        gradients = [gradient(part, torch.ones_like(output)) for part, output in zip(parts, outputs)]
        testing.assert_identical(torch.cat(gradients), expected_gradient, name=f"gradient, parts of {size}")


@parametrize("op, backend", CPP_OPS)
def test_several_python_threads(op, backend):
    inputs = sample(op, shape=crowded(op))
    expected = run(op, inputs, backend)
    results = []

    def work():
        results.extend(run(op, inputs, backend) for _ in range(10))

    workers = [threading.Thread(target=work) for _ in range(4)]
    with testing.threads(2):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(results) == 40
    for got in results:
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=name)


def in_child(op, backend, inputs, connection):
    connection.send(getattr(genfast.ops, op)(**inputs, backend=backend).numpy().tobytes())


@parametrize("op, backend", CPP_OPS)
def test_after_fork(op, backend):
    """The parent has used its threads; the child must neither hang nor differ."""
    inputs = sample(op, shape=crowded(op))
    with testing.threads(2):
        expected = getattr(genfast.ops, op)(**inputs, backend=backend)
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(op, backend, inputs, there))
        child.start()
        answered = here.poll(60)
        child.kill() if not answered else child.join()
    assert answered, "the forked child hangs"
    assert here.recv() == expected.numpy().tobytes()


class Scanned(torch.utils.data.Dataset):
    def __init__(self, op, backend):
        self.op, self.backend = op, backend

    def __len__(self):
        return 4

    def __getitem__(self, index):
        inputs = sample(self.op, self.backend, shape=small(self.op))
        return getattr(genfast.ops, self.op)(**inputs, backend=self.backend)[0] + index


@parametrize("op, backend", CPP_OPS)
def test_in_loader_workers(op, backend):
    expected = torch.stack([Scanned(op, backend)[i] for i in range(4)])
    loader = torch.utils.data.DataLoader(Scanned(op, backend), batch_size=2, num_workers=2)
    testing.assert_identical(torch.cat(list(loader)), expected)


@parametrize("op", OPS)
def test_docstring(op):
    """The example runs, and every part of the docstring is there in its order."""
    function = getattr(genfast.ops, op)
    parts = ["Args:", "Returns:", "Raises:", "Gradients:", "Paper:", "Example:"]
    places = [function.__doc__.index(part) for part in parts]
    assert places == sorted(places)
    (found,) = doctest.DocTestFinder().find(function, op, globs={})
    runner = doctest.DocTestRunner()
    runner.run(found)
    assert runner.summarize().attempted > 0 and runner.summarize().failed == 0


@parametrize("op", OPS)
def test_function_and_spec_agree(op):
    spec = SPECS[op]
    inputs = spec.inputs(small(op))
    assert spec.name == op and "arXiv" in spec.paper and spec.bench
    assert list(inputs) == list(inspect.signature(getattr(genfast.ops, op)).parameters)[:-1]
