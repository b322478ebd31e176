"""The elementwise functions of pixel programs over all of their range, against torch in float64."""

import numpy as np
import pytest
import torch
from support.pixel_programs import elementwise, run

import genfast
from genfast.engine import cpp, eager
from genfast.engine.program import Buffer, Program, Read
from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Categorical

COUNT, SIDE = 19, 24
FUNCTIONS = {
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "abs": torch.abs,
    "erf": torch.erf,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "max": torch.maximum,
    "min": torch.minimum,
    "greater": lambda a, b: (a > b).double(),
    "where": lambda a, b, c: torch.where(a != 0, b, c),
}
EDGES = [0.0, -0.0, 1.0, -1.0, 4.0, 87.5, 88.5, 88.8, 1e3, -87.5, -104.0, -1e3, 1e-6, -1e-6, 1e-30, 1e30]
EDGES += [torch.inf, -torch.inf, torch.nan]


def operands(kind):
    """float32 [3, SIDE, SIDE, COUNT], in all sizes."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, SIDE * SIDE * COUNT, generator=generator)
    values *= 10.0 ** (4 * torch.rand(values.shape, generator=generator) - 3)
    sized = torch.tensor(EDGES)
    pairs = torch.cartesian_prod(sized, sized, sized[::3]).T
    values[:, : pairs.shape[1]] = pairs
    if kind == "where":
        values[0, ::2] = 0
    return values.unflatten(1, (SIDE, SIDE, COUNT))


def program_of(kind, values, of_row):
    """A program whose parameters are the values of a function of fields."""
    whole, count = (0, SIDE, 0, SIDE), len(values)
    buffers = [Buffer(1, SIDE), *(Buffer(COUNT, SIDE) for _ in range(count + 1))]
    given = [elementwise("field", 1 + k, COUNT, whole, table=v.numpy()[None]) for k, v in enumerate(values)]
    function = elementwise(kind, count + 1, COUNT, whole, *(Read(1 + k, 0, 0, 0, COUNT) for k in range(count)))
    row, pixel = ([*given, function], []) if of_row else (given, [function])
    return Program(
        ImageSpec(1, SIDE, SIDE, COUNT),
        Categorical(1, COUNT),
        SIDE,
        1.0,
        0.0,
        0,
        buffers,
        row,
        [pixel, []],
        [Read(count + 1, 0, 0, 0, COUNT)],
    )


def parameters(engine, program, n=1):
    known = torch.ones(n, *program.spec.shape, dtype=torch.bool)
    images = torch.zeros(n, *program.spec.shape, dtype=torch.uint8)
    return run(engine, program, n, given=images, known=known, want=("parameters",)).parameters


@pytest.mark.parametrize("engine", [cpp, eager], ids=["cpp", "eager"])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_are_those_of_torch(kind, engine):
    count = {"max": 2, "min": 2, "greater": 2, "where": 3}.get(kind, 1)
    values = operands(kind)[:count]
    expected = FUNCTIONS[kind](*values.double()).float().double()
    got = parameters(engine, program_of(kind, values, of_row=False))[0].permute(1, 2, 0).double()
    special = ~expected.isfinite()
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got[special].nan_to_num(), expected[special].nan_to_num())
    error = (got - expected).abs() / (expected.abs() + 1e-31)
    assert special.any() or kind in ("erf", "greater") or expected.isnan().any()
    assert error[~special].max() < 1e-6


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_same_bits_on_every_instruction_set(kind):
    count = {"max": 2, "min": 2, "greater": 2, "where": 3}.get(kind, 1)
    values = operands(kind)[:count]
    program, other = (program_of(kind, values, of_row) for of_row in (False, True))
    bits = parameters(cpp, program).numpy().view(np.int32)
    backend = genfast.backends()["cpp"]
    try:
        for isa in backend.isas:
            genfast.set_isa(isa)
            for one in (program, other):
                for n in (1, 5):
                    assert (parameters(cpp, one, n).numpy().view(np.int32) == bits).all(), isa
    finally:
        genfast.set_isa(backend.isa)
