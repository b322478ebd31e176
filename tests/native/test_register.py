"""What a schema refuses, and the functions that the template makes of one."""

import dataclasses
import inspect
import traceback

import pytest
import torch

import genfast
from genfast._native import backends, template
from genfast._native.register import SCHEMAS
from genfast._native.schema import OpSchema
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS


def test_every_op_has_a_schema():
    assert set(SCHEMAS) == {*SPECS, *SAMPLERS, *NON_DIFFERENTIABLE}
    assert {op for op, schema in SCHEMAS.items() if schema.has_gradient} == set(SPECS)
    stems = {op: spec.stem for op, spec in (SPECS | SAMPLERS | NON_DIFFERENTIABLE).items()}
    assert stems == {op: backends.stem(op) for op in SCHEMAS}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"outputs": {"x": "float [N]"}}, "got x, x$"),
        ({"settings": {"not a name": "int"}}, "got not a name$"),
        ({"settings": {"lambda": "float"}}, "got lambda$"),
        ({"residuals": ("z",)}, "got residuals: z$"),
        ({"constants": ("z",)}, "got constants: z$"),
        ({"constants": ("x",), "optional": ("x",)}, "got optional: x$"),
    ],
    ids=str,
)
def test_names_that_do_not_fit(changes, message):
    schema = SCHEMAS["gated_activation"]
    with pytest.raises(ValueError, match=f"gated_activation: names must be known, distinct identifiers; {message}"):
        dataclasses.replace(schema, **changes)


@pytest.mark.parametrize("taken", ["backend", "wanted", "plain", "run_forward", "grad_x"])
def test_names_that_the_template_needs(taken):
    schema = OpSchema("gate", arguments={"x": "float [N]"}, outputs={taken: "float [N]"}, numbers=(), allocate=None)
    with pytest.raises(ValueError, match=f"gate: names must be free; got {taken}$"):
        template.load(schema, {"plain": None})


@pytest.mark.parametrize("op", SCHEMAS)
def test_the_text_of_an_op_can_be_read(op):
    """By inspect, debuggers and tracebacks."""
    call = inspect.getclosurevars(inspect.unwrap(getattr(genfast.ops, op))).globals
    (call,) = (f for f in call.values() if inspect.isfunction(f) and f.__module__ == f"genfast._native.{op}_call")
    assert inspect.getsource(call) in template.source(SCHEMAS[op])
    assert not [line for line in template.source(SCHEMAS[op]).splitlines() if line != line.rstrip() or "$" in line]


def test_a_traceback_shows_the_line(monkeypatch):
    def refuse(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(backends, "cpp", type("Full", (), {"gated_activation_forward": staticmethod(refuse)}))
    with pytest.raises(MemoryError) as error:
        genfast.gated_activation(torch.ones(1, 2, 1, 1))
    assert "backends.cpp.gated_activation_forward(CODES[x.dtype]" in "".join(traceback.format_exception(error.value))
