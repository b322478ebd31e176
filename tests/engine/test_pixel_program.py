"""The C++ engine of pixel programs, against the same programs in plain torch."""

import numpy as np
import pytest
import torch
from support.pixel_programs import (
    CASES,
    colors,
    images_of,
    known_before,
    known_of,
    labels_of,
    linear,
    masked,
    random,
    run,
    scans,
    strided,
)

import genfast
from genfast import testing
from genfast.engine import cpp, eager
from genfast.engine.program import Buffer, Program, Read
from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Bernoulli, Categorical
from genfast.random import inverse_cdf, uniform

SEED, FIRST = 2**63 + 5, 2**40
WANT = ("log_probs", "log_evidence", "parameters")
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def both(program, n, **options):
    options = {"seed": SEED, "first": FIRST, "labels": labels_of(program, n), "want": WANT} | options
    return run(cpp, program, n, **options), run(eager, program, n, **options)


def assert_equal(drawn, expected):
    """The same draws; rounding apart the same numbers."""
    assert torch.equal(drawn.images, expected.images)
    testing.assert_matches(drawn.parameters, expected.parameters, atol=2e-5)
    testing.assert_matches(drawn.log_probs, expected.log_probs, atol=2e-5)
    testing.assert_matches(drawn.log_evidence, expected.log_evidence, atol=2e-5)


def wide(features, levels=7, height=5, width=9, layers=3, outputs=None):
    """Masked convolutions with more features than one panel of weights; the first convolution over whole rows."""
    buffers = [Buffer(1, width, rows=2, left=1, right=1)]
    whole, before, row, pixel = (0, height, 0, width), 1, [], []
    for layer in range(layers):
        buffers.append(Buffer(features, width, rows=2, left=1, right=1))
        reads = [Read(layer, -1, -1, 0, 3 * before)] + [Read(layer, 0, -1, 0, before)] * (layer > 0)
        depth = sum(read.count for read in reads)
        weight = random(features, depth, seed=layer, scale=1.5 / depth**0.5)
        instruction = linear(layer + 1, features, whole, reads, weight, random(features, seed=9), activation="relu")
        (pixel if layer else row).append(instruction)
        before = features
    outputs = outputs or levels
    buffers.append(Buffer(outputs, width))
    read = Read(layers, 0, 0, 0, features)
    head = linear(layers + 1, outputs, whole, [read], random(outputs, features, seed=20), random(outputs, seed=21))
    pixel.append(head)
    likelihood = Bernoulli(1, levels) if outputs == 1 else Categorical(1, levels)
    parameters = [Read(layers + 1, 0, 0, 0, outputs)]
    return Program(
        ImageSpec(1, height, width, levels),
        likelihood,
        width,
        2 / (levels - 1),
        -1.0,
        0,
        buffers,
        row,
        [pixel, []],
        parameters,
    )


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 19, 67])
@every_case
def test_it_is_the_program_in_plain_torch(case, n):
    assert_equal(*both(case.program, n))


@pytest.mark.parametrize("temperature", [0.4, 2.5])
@every_case
def test_temperature_and_other_draws(case, temperature):
    assert_equal(*both(case.program, 9, temperature=temperature, draw=3))


@every_case
def test_known_values(case):
    images, known = images_of(case.program, 21), known_of(case.program, 21)
    assert_equal(*both(case.program, 21, given=images, known=known))
    teacher, expected = both(case.program, 21, given=images, known=torch.ones_like(known))
    assert torch.equal(teacher.images, images)
    assert_equal(teacher, expected)


@pytest.mark.parametrize("case", [masked(), colors(), scans()], ids=str)
def test_evidence(case):
    p = case.program
    evidence = torch.randn(18, p.spec.channels, p.spec.height, p.spec.width, p.spec.levels) * 2
    evidence[:, :, 0, 0] = -torch.inf
    evidence[:, :, 0, 0, 1] = 0.5
    drawn, expected = both(p, 18, evidence=evidence, temperature=1.7)
    assert_equal(drawn, expected)
    assert (drawn.images[:, :, 0, 0] == 1).all()
    images, known = images_of(p, 18), known_of(p, 18)
    assert_equal(*both(p, 18, evidence=evidence, given=images, known=known))


@pytest.mark.parametrize("features", [1, 3, 15, 16, 17, 33, 48])
def test_feature_counts_around_a_panel(features):
    for n in (1, 4, 13):
        assert_equal(*both(wide(features), n))


@every_case
def test_samples_are_scored_as_they_were_drawn(case):
    """The logits of teacher forcing are the same bits as those met while sampling."""
    p, n = case.program, 23
    drawn = run(cpp, p, n, seed=1, labels=labels_of(p, n), want=WANT)
    known = torch.ones_like(drawn.images, dtype=torch.bool)
    labels = labels_of(p, n)
    for begin, end in ((0, 23), (0, 1), (7, 9), (9, 22)):
        part = None if labels is None else labels[begin:end]
        again = run(
            cpp, p, end - begin, seed=9, labels=part, given=drawn.images[begin:end], known=known[begin:end], want=WANT
        )
        assert torch.equal(again.parameters, drawn.parameters[begin:end])
        assert torch.equal(again.log_probs, drawn.log_probs[begin:end])


@pytest.mark.parametrize(
    "program", [wide(20, outputs=1, levels=2), wide(33, 256), *(c.program for c in CASES)], ids=repr
)
def test_the_same_bits_for_any_split_threads_and_instruction_set(program, monkeypatch):
    n = 41
    labels = labels_of(program, n)
    whole = run(cpp, program, n, seed=SEED, first=FIRST, labels=labels, want=WANT)
    assert len(whole.images.unique()) > 1

    def check(size):
        for begin in range(0, n, size):
            end = min(n, begin + size)
            part = None if labels is None else labels[begin:end]
            drawn = run(cpp, program, end - begin, seed=SEED, first=FIRST + begin, labels=part, want=WANT)
            for name in ("images", *WANT):
                assert torch.equal(getattr(drawn, name), getattr(whole, name)[begin:end]), name

    for size in (1, 2, 7, 40):
        check(size)
    backend, threads = genfast.backends()["cpp"], torch.get_num_threads()
    try:
        for isa in backend.isas:
            genfast.set_isa(isa)
            for count in (1, 2):
                torch.set_num_threads(count)
                check(41)
                check(6)
    finally:
        genfast.set_isa(backend.isa)
        torch.set_num_threads(threads)


def draws_of(logits, n, temperature=1.0):
    """Draws n times from conditionals that are the same for every pixel."""
    levels = len(logits)
    whole = (0, 8, 0, 8)
    head = linear(1, levels, whole, [], torch.zeros(levels, 0), logits)
    parameters = [Read(1, 0, 0, 0, levels)]
    buffers = [Buffer(1, 8), Buffer(levels, 8)]
    p = Program(
        ImageSpec(1, 8, 8, levels), Categorical(1, levels), 8, 1.0, 0.0, 0, buffers, [], [[head], []], parameters
    )
    return run(cpp, p, n, seed=SEED, temperature=temperature).images


@pytest.mark.parametrize("levels", [2, 3, 63, 64, 65, 100, 256])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_draws_are_those_of_the_inverse_distribution_function(levels, spread):
    n = 500
    logits = random(levels, seed=levels, scale=spread)
    if spread > 1:
        logits[::3] = -torch.inf
        logits[1] = logits.max()
    u = torch.from_numpy(uniform(SEED, np.arange(n)[:, None], np.arange(64))).view(n, 1, 8, 8)
    for temperature in (1.0, 0.3):
        expected = inverse_cdf(logits.expand(n, 1, 8, 8, levels), u, temperature)
        assert torch.equal(draws_of(logits, n, temperature), expected)


def test_a_number_next_to_a_boundary_is_decided_in_double():
    """Equal weights of 2^-8: every fourth of 2^10 evenly spaced numbers lies on a boundary exactly."""
    n = 20_000
    drawn = draws_of(torch.full((256,), 3.25), n)
    u = torch.from_numpy(uniform(SEED, np.arange(n)[:, None], np.arange(64))).view(n, 1, 8, 8)
    assert torch.equal(drawn, (u * 256).to(torch.uint8))


def test_no_images():
    drawn = run(cpp, masked().program, 0, seed=0, want=WANT)
    assert drawn.images.shape == (0, 1, 4, 3) and drawn.parameters.shape == (0, 1, 4, 3)


@pytest.mark.parametrize(
    "read", [Read(0, 0, -3, 0, 1), Read(0, -3, 0, 0, 1), Read(0, 0, 1, 0, 2), Read(0, 1, 0, 0, 1)], ids=str
)
def test_a_read_outside_its_buffer_is_refused(read):
    program = masked().program
    program.pixel[0][0].reads[0] = read
    with pytest.raises(ValueError, match="linear: a position must lie inside buffer 0"):
        run(cpp, program, 1, seed=0)


def test_a_sweep_reads_nothing_that_it_has_not_reached():
    program = scans().program
    run(cpp, program, 1, seed=0)
    program.prepared.clear()
    gates, _ = program.row
    gates.reads[1] = Read(2, 0, -1, 0, 2)
    program.buffers[2].left = 1
    with pytest.raises(ValueError, match="sweep -1: a read of its own row must lie behind it"):
        run(cpp, program, 1, seed=0)


def grid_of(program):
    return next(it for it in program.row if it.kind == "field" and it.table is not None)


def given_of(program):
    return next(it for it in program.pixel[0] if it.kind == "field" and it.table is None)


WRONG = {
    "table must have shape": lambda p: setattr(grid_of(p), "table", grid_of(p).table[..., :2]),
    r"grid must be \(1 or 5, 1 or 6\)": lambda p: setattr(grid_of(p), "table", grid_of(p).table[:, :4]),
    "grid must be": lambda p: setattr(given_of(p), "grid", (2, 1)),
    "lie in the 24 fields of a request; got 16 to 25": lambda p: setattr(given_of(p), "offset", 16),
    "lie in the 24 fields of a request; got -1": lambda p: setattr(given_of(p), "offset", -1),
    r"weight must have shape \(7, 3\)": lambda p: setattr(p.row[0], "weight", p.row[0].weight[:, :2]),
    "one operand of count 1": lambda p: setattr(p.row[0], "reads", [Read(0, 0, -1, 0, 2)]),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_known_before_must_fit(message):
    program = known_before().program
    WRONG[message](program)
    with pytest.raises(ValueError, match=message):
        program.check()


@pytest.mark.parametrize("engine", [cpp, eager])
def test_fields_of_a_request_must_be_those_of_the_program(engine):
    program, labels = known_before().program, torch.zeros(3, dtype=torch.int64)
    for fields in (None, torch.zeros(3, 23), torch.zeros(2, 24)):
        with pytest.raises(ValueError, match=r"fields must have shape \(3, 24\)"):
            run(engine, program, 3, labels=labels, fields=fields)
    with pytest.raises(ValueError, match=r"fields must have shape None; got \(3, 1\)"):
        run(engine, masked().program, 3, fields=torch.zeros(3, 1))


@pytest.mark.parametrize("case", [strided(), known_before()], ids=str)
def test_the_bits_do_not_depend_on_what_memory_held(case):
    labels = labels_of(case.program, 11)
    drawn = run(cpp, case.program, 11, seed=SEED, labels=labels, want=WANT)
    for value in (float("nan"), 3e38):
        # The next allocation of this size may be the engine's.
        held = [np.full(size // 4, value, np.float32) for size in (1 << 12, 1 << 15, 1 << 18, 1 << 21)]
        del held
        with testing.poisoned():
            again = run(cpp, case.program, 11, seed=SEED, labels=labels, want=WANT)
        assert torch.equal(again.images, drawn.images) and torch.equal(again.parameters, drawn.parameters)


def test_constants_of_another_shape_are_refused():
    program = masked().program
    program.pixel[0][0].weight = program.pixel[0][0].weight[:-1]
    with pytest.raises(ValueError, match="weight must have shape"):
        run(cpp, program, 1, seed=0)


def test_tiles_fill_registers():
    """No image is left over that would take the time of a whole register tile, but where there are no more images."""
    tables = cpp.tables_of(masked().program)
    for threads in (1, 2, 3):
        for n in range(1, 400):
            tile = tables.tile_of(n, threads)
            assert 1 <= tile <= min(n, cpp.MOST_TILE)
            assert tile % cpp.REGISTERS == 0 or tile < cpp.REGISTERS or tile == n
