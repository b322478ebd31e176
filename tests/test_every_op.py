"""Every op x every backend x every property. What is special to one op is in its own file."""

import doctest
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


@parametrize("shape", range(12))
@parametrize("op, backend, dtype", LANES)
def test_matches_reference(op, backend, dtype, shape):
    """Output and every gradient, with NaN around the inputs and in the outputs before they are written."""
    spec = SPECS[op]
    sizes = spec.shapes[shape]
    if INTERPRETED and backend == "triton" and sizes["B"] * sizes["H"] * sizes["W"] > 60:
        sizes = {**sizes, "B": 1}
    inputs = {n: testing.embedded(t) for n, t in sample(op, backend, dtype, sizes).items()}
    with testing.poisoned():
        got = run(op, inputs, backend)
    truth = testing.evaluate(spec.reference, {n: t.double() for n, t in inputs.items()})
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
    limits = {"B": (0, 6), "H": (0, 7), "W": (0, 7), "D": (1, 2), "C": (1, 40), "F": (1, 40)}
    sizes = {letter: data.draw(strategies.integers(*limits[letter]), letter) for letter in small(op)}
    inputs = {n: testing.embedded(t) for n, t in sample(op, backend, dtype, sizes).items()}
    truth = testing.evaluate(SPECS[op].reference, {n: t.double() for n, t in inputs.items()})
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
    inputs = {n: testing.LAYOUTS[layout](t) for n, t in sample(op, backend, dtype, small(op)).items()}
    got = run(op, inputs, backend)
    expected = run(op, {n: t.contiguous() for n, t in inputs.items()}, backend)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    function = getattr(genfast.ops, op)
    leaves = {n: t.contiguous().requires_grad_() for n, t in inputs.items()}
    output = function(**leaves, backend=backend)
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
    inputs = sample(op, backend, torch.float64, SPECS[op].gradcheck[case])
    leaves = tuple(t.requires_grad_() for t in inputs.values())

    def function(*tensors):
        return getattr(genfast.ops, op)(*tensors, backend=backend)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=case == 0)


@parametrize("op, backend, dtype", PRECISE)
def test_gradient_of_one_argument(op, backend, dtype):
    """Each argument may be the only one that requires a gradient, to the second order."""
    inputs = sample(op, backend, dtype, small(op))
    for name in inputs:
        leaf = inputs[name].clone().requires_grad_()

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
    for gradient in (False, True):
        leaves = [t.detach().requires_grad_(gradient) for t in inputs.values()]
        for save in (False, True):
            torch.library.opcheck(forward, (*leaves, save), {"backend": backend})
    results = forward(*inputs.values(), True, backend=backend)
    torch.library.opcheck(backward, backward_arguments(op, inputs, results), {"backend": backend})


def backward_arguments(op, inputs, results):
    """The incoming gradient and what the forward op saved, in the order of the schema of the backward op."""
    _, *names = argument_names(f"{op}_backward")
    known = {**inputs, **dict(zip(("saved_cells", "saved_gates", "hidden"), reversed(results)))}
    return torch.ones_like(results[0]), *(known[name] for name in names)


def argument_names(raw):
    schema = getattr(torch.ops.genfast, raw).default._schema
    return [argument.name for argument in schema.arguments if argument.name not in ("save", "backend")]


@parametrize("op, backend, dtype", NATIVE)
def test_raw_op_differentiates_or_raises(op, backend, dtype):
    inputs = sample(op, backend, dtype, small(op))
    leaves = {n: t.clone().requires_grad_() for n, t in inputs.items()}
    forward = getattr(torch.ops.genfast, f"{op}_forward")
    output, *saved = forward(*leaves.values(), True, backend=backend)
    assert not any(s.requires_grad for s in saved)
    got = torch.autograd.grad(output.sum(), tuple(leaves.values()))
    expected = torch.autograd.grad(getattr(genfast.ops, op)(**leaves, backend=backend).sum(), tuple(leaves.values()))
    for name, a, b in zip(leaves, got, expected):
        testing.assert_identical(a, b, name=name)
    arguments = backward_arguments(op, leaves, (output.detach(), *saved))
    with pytest.raises(RuntimeError, match=f"{op}_backward: expected no input that requires grad"):
        getattr(torch.ops.genfast, f"{op}_backward")(*arguments, backend=backend)


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
    first = next(iter(inputs))

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
    function, (first, primal) = getattr(genfast.ops, op), next(iter(inputs.items()))
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda x: function(**{**inputs, first: x}, backend=backend), (primal,), (primal,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(primal, torch.ones_like(primal))
        with pytest.raises(NotImplementedError, match="forward mode"):
            function(**{**inputs, first: dual}, backend=backend)
        with pytest.raises(NotImplementedError, match="forward mode"):
            raw = getattr(torch.ops.genfast, f"{op}_forward")
            raw(dual, *list(inputs.values())[1:], False, backend=backend)


@parametrize("op", OPS)
def test_reference_has_forward_mode(op):
    inputs = sample(op, "reference", torch.float64, small(op))
    first, primal = next(iter(inputs.items()))

    def function(x):
        return getattr(genfast.ops, op)(**{**inputs, first: x}, backend="reference")

    _, got = torch.func.jvp(function, (primal,), (torch.ones_like(primal),))
    step = 1e-6
    testing.assert_matches(got, (function(primal + step) - function(primal - step)) / (2 * step), atol=1e-8)


@parametrize("shape", (3, 5, 6, 7, 8))
@parametrize("op, backend, dtype", CPP)
def test_same_bits_for_threads_and_levels(op, backend, dtype, shape):
    inputs = sample(op, backend, dtype, shape)
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
    inputs = sample(op, backend, dtype, 7)
    first, whole = next(iter(inputs.items()))
    expected = run(op, inputs, backend)
    incoming = torch.ones_like(expected["output"])
    function = getattr(genfast.ops, op)

    def gradient(tensor, grad):
        leaf = tensor.clone().requires_grad_()
        return torch.autograd.grad(function(**{**inputs, first: leaf}, backend=backend), leaf, grad)[0]

    expected_gradient = gradient(whole, incoming)
    for size in (1, 7, 16, 32):
        parts = [function(**{**inputs, first: part}, backend=backend) for part in whole.split(size)]
        testing.assert_identical(torch.cat(parts), expected["output"], name=f"output, parts of {size}")
        parts = [gradient(part, grad) for part, grad in zip(whole.split(size), incoming.split(size))]
        testing.assert_identical(torch.cat(parts), expected_gradient, name=f"gradient, parts of {size}")


@parametrize("op, backend", CPP_OPS)
def test_several_python_threads(op, backend):
    inputs = sample(op, shape=7)
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
    inputs = sample(op, shape=7)
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
    assert list(inputs) == argument_names(f"{op}_forward")
