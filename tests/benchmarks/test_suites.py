"""The suites: their cases are whole, and what they measure is the reference's, or they say so."""

import functools
import inspect
import time

import pytest
import torch

from genfast import models, nn, ops
from genfast._native import backends
from genfast.benchmarks import cases as op_cases
from genfast.benchmarks import runner
from genfast.benchmarks.suites import SUITES, layers, training
from genfast.train import PRESETS

ONE = {
    "ops": "diagonal_block",
    "layers": "MinibatchDiscrimination",
    "sampling": "PixelCNN, 3",
    "training": "dcgan",
    "compress": "decode",
}


def of(suite, only="", quick=True, against=("eager",)):
    return [case for case in SUITES[suite].cases(quick, against) if only in str(case)]


OF_SEQUENCES = {name for name, (model, _) in models.MODELS.items() if issubclass(model, models.SequenceModel)}


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("quick", [True, False])
def test_no_two_cases_are_one(suite, quick):
    names = [str(case) for case in of(suite, quick=quick)]
    assert names and len({*names}) == len(names) and all(name.startswith(suite) for name in names)


@pytest.mark.parametrize("quick", [True, False])
def test_every_op_and_every_model_is_measured(quick):
    """Models of sequences have recipes for the user's own data alone."""
    assert {case.name for case in of("ops", quick=quick)} == set(op_cases.measured_ops())
    # A quick run leaves out the models that have no recipe for small images.
    small = {name for name, recipes in PRESETS.items() if any(r.data in training.SMALL for r in recipes.values())}
    assert {case.name for case in of("training", quick=quick)} == (
        small if quick else set(models.MODELS) - OF_SEQUENCES
    )


def test_every_layer_with_a_kernel_is_measured():
    """A layer that calls an op is in the table; spectral normalisation is measured among the ops."""

    using = {
        name
        for name in nn.__all__
        if inspect.isclass(layer := getattr(nn, name)) and "ops." in inspect.getsource(layer)
    }
    assert using <= {*layers.LAYERS, "SpectralNorm"} and set(layers.LAYERS) <= set(nn.__all__)


@pytest.mark.parametrize("suite", SUITES)
def test_a_case_of_each_suite(suite):
    case = of(suite, ONE[suite])[0]
    (row,) = runner.measure([case], seconds=0.01, passes=1)
    assert row.match is True and row.suite == suite and row.ours.calls >= 1 and len(row.calibration_ms) == 1
    beside = {"compress"}
    assert ("eager" in row.times) == (suite not in beside) and ("eager" in row.missing) == (suite in beside)
    assert row.images_per_s > 0 and (row.flops > 0) == (suite not in beside)
    assert (row.kept_bytes or 0) > 0 or suite in ("sampling", "compress")


def test_torch_compile_is_measured_beside():
    (row,) = runner.measure(of("ops", "importance_bound", against=("eager", "compile")), seconds=0.01, passes=1)
    assert set(row.times) == {"genfast", "eager", "compile"} or "compile" in row.missing
    assert row.times_of("eager") > 0


def test_what_cannot_be_compiled_is_left_out_with_its_reason(monkeypatch):
    def compiled(function, **options):
        def refuse(*args, **kwargs):
            raise RuntimeError("no compiler\nat all")

        return refuse

    monkeypatch.setattr(torch, "compile", compiled)
    layers._built.cache_clear()
    (row,) = runner.measure(of("layers", "GaussianLatent", against=("eager", "compile")), seconds=0.01, passes=1)
    layers._built.cache_clear()
    assert set(row.times) == {"genfast", "eager"} and row.missing == {"compile": "RuntimeError: no compiler"}


def test_a_wrong_kernel_is_told(monkeypatch):
    right = ops.gaussian_nll

    @functools.wraps(right)
    def wrong(*args, backend="auto", **kwargs):
        result = right(*args, backend=backend, **kwargs)
        return result if backend == "reference" else result + 0.01 * result.abs().max().detach()

    monkeypatch.setattr(ops, "gaussian_nll", wrong)
    (row,) = runner.measure(of("ops", "gaussian_nll"), seconds=0.01, passes=1)
    assert row.match is False and row.difference == pytest.approx(0.01, rel=0.1)


def test_beside_is_the_reference():
    """Inside, no kernel runs, and afterwards they do again."""
    x = torch.randn(2, 3)
    with backends.reference_only():
        with backends.reference_only():
            pass
        assert backends.select("importance_bound", x) == "reference"
        assert backends.select("importance_bound", x, "cpp") == "cpp"
    assert backends.select("importance_bound", x) == "cpp"


def test_passes_go_over_all_cases_and_end_in_time():
    order = []

    def case(name):
        def prepare():
            order.append(name)
            return runner.Prepared({"genfast": lambda: time.sleep(0.001)})

        return runner.Case("ops", name, "", "", "forward", prepare)

    rows = runner.measure([case("a"), case("b")], seconds=0.0, passes=3)
    assert order == ["a", "b"] * 3 and [len(row.ours.passes_ms) for row in rows] == [3, 3]
    order.clear()
    rows = runner.measure([case("a"), case("b")], seconds=0.0, passes=3, until=0.0)
    assert order == ["a", "b"] and [len(row.ours.passes_ms) for row in rows] == [1, 1]
