"""Which backend serves, which one ran, and what an explicit choice that cannot serve says."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genfast
from genfast import testing
from genfast._native import backends
from genfast.reference import SPECS

OPS = list(SPECS)


class Counted:
    """Stands before the native module and notes which of its functions are called."""

    def __init__(self, module):
        self.module, self.calls = module, []

    def __getattr__(self, name):
        if not name.endswith(("_forward", "_backward", "_sample")):
            return getattr(self.module, name)

        def call(*args):
            self.calls.append(name)
            return getattr(self.module, name)(*args)

        return call


@pytest.fixture
def counted(monkeypatch):
    counted = Counted(backends.cpp)
    monkeypatch.setattr(backends, "cpp", counted)
    return counted


@pytest.fixture
def no_cpp(monkeypatch):
    monkeypatch.setattr(backends, "cpp", None)
    monkeypatch.setattr(backends, "_CPP_MISSING", "not compiled: no module")


def sample(op, dtype=torch.float32):
    return SPECS[op].inputs(SPECS[op].gradcheck[0], dtype=dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ["auto", "cpp"])
def test_native_really_runs(op, backend, counted):
    testing.evaluate(getattr(genfast.ops, op), sample(op), backend=backend)
    assert counted.calls == [f"{op}_forward", f"{op}_backward"]
    assert genfast.explain(op, *sample(op).values()).backend == "cpp"


@pytest.mark.parametrize("op", OPS)
def test_reference_runs_nothing_native(op, counted):
    testing.evaluate(getattr(genfast.ops, op), sample(op), backend="reference")
    testing.evaluate(getattr(genfast.ops, op), sample(op, torch.float16))
    assert counted.calls == []
    assert genfast.explain(op, *sample(op, torch.float16).values()).backend == "reference"


def test_second_order_runs_native_once(counted):
    inputs = {n: t.requires_grad_() for n, t in sample("diagonal_lstm").items()}
    (first,) = torch.autograd.grad(genfast.diagonal_lstm(**inputs).sum(), inputs["gates"], create_graph=True)
    torch.autograd.grad(first.sum(), inputs["gates"])
    assert counted.calls == ["diagonal_lstm_forward", "diagonal_lstm_backward"]


@pytest.mark.parametrize("op", OPS)
def test_explicit_choice_that_cannot_serve(op):
    function, half = getattr(genfast.ops, op), sample(op, torch.float16)
    with pytest.raises(RuntimeError) as error:
        function(**half, backend="cpp")
    text = str(error.value)
    assert text.startswith(f"{op}: backend must be able to serve float16 on cpu; got 'cpp'; can serve: ")
    assert "reference" in text and "cpp: serves float32, float64" in text and "triton: " in text
    if not genfast.backends()["triton"].available:
        with pytest.raises(RuntimeError, match="got 'triton'; can serve: cpp, reference"):
            function(**sample(op), backend="triton")


@pytest.mark.parametrize("op", OPS)
def test_unknown_choice(op):
    with pytest.raises(ValueError, match=f"{op}: backend must be one of auto, reference, cpp, triton; got 'cuda'"):
        getattr(genfast.ops, op)(**sample(op), backend="cuda")


@pytest.mark.parametrize("op", OPS)
def test_without_the_native_module(op, no_cpp):
    inputs = sample(op, torch.float64)
    got = testing.evaluate(getattr(genfast.ops, op), inputs)
    expected = testing.evaluate(getattr(genfast.ops, op), inputs, backend="reference")
    for name in expected:
        testing.assert_identical(got[name], expected[name], name=name)
    assert not genfast.backends()["cpp"].available
    assert "not compiled" in genfast.explain(op, *inputs.values()).others["cpp"]
    with pytest.raises(RuntimeError, match="can serve: reference .*cpp: not compiled"):
        getattr(genfast.ops, op)(**inputs, backend="cpp")
    with pytest.raises(RuntimeError, match="set_isa: the backend must be available; got not compiled"):
        genfast.set_isa("plain")


def test_a_raw_op_without_the_native_module(no_cpp):
    inputs = sample("diagonal_lstm", torch.float64)
    with pytest.raises(RuntimeError, match="can serve: none"):
        torch.ops.genfast.diagonal_lstm_forward(*inputs.values(), False)


def test_without_the_native_module_torch_can_trace(no_cpp):
    inputs = sample("diagonal_lstm")
    graphs = []

    def keep(graph, example):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    torch.compile(lambda **t: genfast.diagonal_lstm(**t), fullgraph=True, backend=keep)(**inputs)
    targets = {str(node.target) for node in graphs[0].graph.nodes}
    assert len(graphs) == 1 and not any("genfast" in target for target in targets)


def test_a_kernel_error_is_no_fallback(monkeypatch):
    class Broken:
        def diagonal_lstm_forward(self, *args):
            raise MemoryError("broken kernel")

    monkeypatch.setattr(backends, "cpp", Broken())
    with pytest.raises(MemoryError, match="broken kernel"):
        genfast.diagonal_lstm(**sample("diagonal_lstm"))


def test_backends_and_isas():
    by_name = genfast.backends()
    assert list(by_name) == ["reference", "cpp", "triton"] and by_name["reference"].available
    assert all(backend.reason and str(backend).startswith(name) for name, backend in by_name.items())
    isas = by_name["cpp"].isas
    assert isas and by_name["cpp"].isa == isas[-1]
    for isa in isas:
        genfast.set_isa(isa)
        assert genfast.backends()["cpp"].isa == isa
    with pytest.raises(ValueError, match=f"set_isa: expected one of {isas[0]}.*; got sse9"):
        genfast.set_isa("sse9")
    assert genfast.backends()["cpp"].isa == isas[-1]


@pytest.mark.parametrize(
    "file, names, entry",
    [
        ("ops/minibatch_stddev.py", ("height", "width"), "minibatch_stddev_forward"),
        ("ops/spectral_norm.py", ("rows", "columns"), "spectral_norm_forward"),
        ("engine/cpp.py", ("seed", "first_index"), "pixel_program"),
        ("engine/network.py", ("network", "constants"), "network_forward"),
        ("engine/bits_back.py", ("channels", "height"), "bits_back_encode"),
    ],
)
def test_swapped_names_are_caught_at_import(file, names, entry):
    """What crosses the border to C++ has an order and no names there: a swap would be silent."""
    path = Path(genfast.__file__).parent / file
    source, (a, b) = path.read_text(), names
    swapped = source.replace(f'"{a}", "{b}"', f'"{b}", "{a}"')
    with pytest.raises(ImportError, match=rf"{entry}: expected \(.*\b{a}, {b}\b.*\) as in csrc; got \(.*\b{b}, {a}\b"):
        exec(compile(swapped, path, "exec"), {"__name__": "swapped"})


ENGINES = {
    *("ans_pop", "ans_push", "bits_back_decode", "bits_back_encode", "crc32c", "network_forward", "pixel_program"),
    *("fma_peak", "range_coder"),
}


def test_every_entry_of_cpp_is_one_that_python_checks():
    listed = set(backends.cpp.signatures()) - ENGINES
    assert listed == {name for op in backends._DTYPES for name in (op, f"{op}_forward", f"{op}_backward")} & listed
    with pytest.raises(TypeError, match="gated_activation_forward: expected a dtype and 4 numbers; got 2 arguments"):
        backends.cpp.gated_activation_forward("float32", 0)
    with pytest.raises(ValueError, match="dtype must be float32, float64 or bfloat16; got float16"):
        backends.cpp.gated_activation_forward("float16", 0, 0, 0, 0)
    with pytest.raises(TypeError, match="integer"):
        backends.cpp.gated_activation_forward("float32", 0, 0, 1.5, 0)


def test_explain_reads_well():
    inputs = sample("diagonal_lstm")
    text = str(genfast.explain(genfast.diagonal_lstm, **inputs))
    assert text.startswith("diagonal_lstm: cpp\n  not triton: ") and "not reference: could serve" in text
    assert genfast.explain("diagonal_lstm", **inputs, backend="reference").backend == "reference"
    expected = "explain: op must be one of aggregate_posterior, .*, vector_quantize; got 'lstm'"
    with pytest.raises(ValueError, match=expected):
        genfast.explain("lstm", *inputs.values())
    with pytest.raises(TypeError, match="explain: diagonal_lstm must be given the tensors"):
        genfast.explain("diagonal_lstm")


def test_work_is_shared_over_the_lent_threads(monkeypatch):
    """The C++ core runs its pieces through the function it was lent, and needs none."""
    chunks = []
    work = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, work, ctypes.c_void_p)
    def backwards(begin, end, grain, function, context):
        for index in reversed(range(begin, end)):
            chunks.append(index)
            function(index, index + 1, context)
        return 0

    inputs = SPECS["diagonal_lstm"].inputs({"B": 33, "H": 5, "W": 4, "D": 2, "C": 16})
    expected = testing.evaluate(genfast.diagonal_lstm, inputs, backend="cpp")
    lent = []
    try:
        for address in (ctypes.cast(backwards, ctypes.c_void_p).value, 0):
            backends.cpp.set_parallel_for(address)
            lent.append(testing.evaluate(genfast.diagonal_lstm, inputs, backend="cpp"))
    finally:
        backends._share_threads()
    assert len(chunks) > 2
    for got in lent:
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=name)


def python(code, **environment):
    settings = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)


def test_required_backends(no_cpp):
    backends._require("")
    with pytest.raises(ValueError, match="GENFAST_REQUIRE: expected backends among cpp, triton; got 'rocm'"):
        backends._require("rocm")
    with pytest.raises(ImportError, match="GENFAST_REQUIRE: expected cpp; got not compiled"):
        backends._require("cpp")
    without = "import sys; sys.modules['genfast._C'] = None; import genfast"
    assert "GENFAST_REQUIRE: expected cpp; got not compiled" in python(without, GENFAST_REQUIRE="cpp").stderr


def test_import_is_lazy():
    """Triton costs half a second to import: a call on the CPU must not pay it."""
    before = "import sys, torch; known = set(sys.modules); import genfast"
    call = "genfast.diagonal_lstm(torch.ones(1, 2, 2, 1, 4), torch.ones(1, 2, 1, 4))"
    done = python(f"{before}; {call}; print('triton' in set(sys.modules) - known)", GENFAST_REQUIRE="cpp")
    assert done.stdout.strip() == "False", done.stderr
