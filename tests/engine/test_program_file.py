"""Programs as bytes: what is read runs as what was written, and what would leave its memory is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine.strangers import NATIVE
from support.pixel_programs import CASES, images_of, known_of, labels_of, masked, scans
from support.program_files import alone, header_of, packed, structure_of

from genfast.engine import cpp
from genfast.engine.compiled import Compiled
from genfast.engine.engine import Engine
from genfast.engine.program import Read
from genfast.engine.program_check import check_program
from genfast.engine.program_file import HEADER, ProgramHeader, fingerprints, read_program, write_program
from genfast.engine.request import SampleRequest
from genfast.models import build

WANT = ("log_probs", "parameters")


def of(program):
    return Compiled(program, program.spec)


def run_both(a, b, n=3):
    """The same images, half of which is known, by two programs."""
    program = a.program
    given, known = images_of(program, n), known_of(program, n)
    labels = labels_of(program, n)
    request = SampleRequest(n, seed=7, labels=labels, given=given, known=known, want=WANT)
    return [cpp.run(one.program, request) for one in (a, b)]


def assert_same(drawn, again):
    for name in ("images", *WANT):
        assert torch.equal(getattr(drawn, name), getattr(again, name)), name


def test_a_copy_is_prepared_anew():
    """It may be changed: the tables of the other program have addresses in its memory."""
    program = copy.deepcopy(CASES[0].program)
    request = SampleRequest(1, labels=labels_of(program, 1), given=images_of(program, 1), known=known_of(program, 1))
    cpp.run(program, request)
    assert program.prepared.keys() == {"cpp"}
    assert not any(other.prepared for other in (copy.copy(program), copy.deepcopy(program), replace(program)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_read_draws_the_same_bits(case):
    compiled = of(alone(case))
    written = write_program(compiled)
    read = read_program(written)
    assert (read.spec, read.geometry) == (case.program.spec, "grid")
    assert_same(*run_both(compiled, read))
    assert write_program(read) == written and fingerprints(read) == fingerprints(compiled)


@pytest.mark.parametrize("case", [case for case in CASES if case.program.fields], ids=str)
def test_a_program_that_needs_its_model_is_not_written(case):
    with pytest.raises(ValueError, match="it must need nothing of its model to be written; got one of which it reads"):
        write_program(of(case.program))


def compiled_of(model, **keywords):
    engine = Engine(model, backend="cpp", **keywords)
    return engine._compiled(*engine._current())


@pytest.mark.parametrize("stranger", NATIVE, ids=lambda stranger: stranger.name)
def test_programs_of_foreign_models(stranger):
    condition = {k: v for k, v in stranger.side(stranger.shape, 2).items() if k == "condition"}
    compiled = compiled_of(stranger.build(), **stranger.options(), **condition)
    if compiled.program.fields:
        with pytest.raises(ValueError, match="it must need nothing of its model"):
            write_program(compiled)
        return
    read = read_program(write_program(compiled))
    assert (read.geometry, read.spec) == (compiled.geometry, compiled.spec)
    assert read.order is None if compiled.order is None else np.array_equal(read.order, compiled.order)
    labels = torch.arange(2) % read.spec.classes if read.spec.classes else None
    request = SampleRequest(2, seed=3, labels=labels, want=WANT)
    assert_same(*(one.run(cpp.run, request, torch.device("cpu"), {}) for one in (compiled, read)))


OURS = {
    "pixelcnn++": {"channels": 3, "height": 8, "width": 8, "filters": 4, "blocks": 1, "resolutions": 3, "classes": 2},
    "pixelrnn": {"height": 5, "width": 4, "layers": 2, "hidden": 5, "head": 8, "virtual_column": True},
    "gated-pixelcnn": {"channels": 3, "height": 5, "width": 7, "levels": 4, "layers": 2, "hidden": 6, "classes": 3},
}


@pytest.mark.parametrize("kind", OURS)
def test_programs_of_models(kind):
    torch.manual_seed(0)
    model = build(kind, **OURS[kind])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    compiled = compiled_of(model)
    assert_same(*run_both(compiled, read_program(write_program(compiled))))


def test_fingerprints_tell_weights_from_structure():
    a, b = of(masked().program), of(masked().program)
    b.program.pixel[0][0].weight = b.program.pixel[0][0].weight * np.float32(1.5)
    assert fingerprints(a)[0] == fingerprints(b)[0] and fingerprints(a)[1] != fingerprints(b)[1]
    b.program.pixel[0][0].activation = "elu"
    assert fingerprints(a)[0] != fingerprints(b)[0]
    header = ProgramHeader.of(write_program(a))
    assert (header.structure, header.constants) == fingerprints(a)
    assert header.constants_bytes == 4 * sum(n.size for it in _all(a) for n in (it.weight, it.bias))


def _all(compiled):
    return [it for part in (compiled.program.row, *compiled.program.pixel) for it in part]


def test_damaged_bytes_are_refused():
    written = write_program(of(scans().program))
    for place in range(len(written)):
        for bit in (1, 128):
            with pytest.raises(ValueError, match=r"^program: .* must .*; got .*"):
                read_program(written[:place] + bytes([written[place] ^ bit]) + written[place + 1 :])
    for end in range(len(written)):
        with pytest.raises(ValueError, match=r"^program: .* must .*; got .*"):
            read_program(written[:end])
    with pytest.raises(TypeError, match=r"^program: data must be bytes; got str$"):
        read_program("GFPP")
    with pytest.raises(ValueError, match="whole and alone"):
        read_program(written + b"\0")


def test_a_small_file_of_a_large_program():
    """The header is believed only as far as the budget goes, and the stream no further than the header."""
    written = write_program(of(masked().program))
    _, version, size, _, *prints = HEADER.unpack_from(written)
    for sizes, text in (((size, 2**40), "at most .* bytes with their copies"), ((2**32 - 1, 4), "at most 16777216")):
        with pytest.raises(ValueError, match=text):
            read_program(HEADER.pack(b"GFPP", version, *sizes, *prints) + written[HEADER.size :])
    value, constants = structure_of(written)
    with pytest.raises(ValueError, match=r"content must be \d+ bytes"):
        read_program(header_of(value, constants) + packed(value, constants + bytes(2**26)))
    value["buffers"][1][3] = 2**22
    with pytest.raises(ValueError, match=r"at most max_bytes=1000000 to run; got one that takes \d+"):
        read_program(header_of(value, constants) + packed(value, constants), max_bytes=10**6)
    value["buffers"][1][3] = 2**31
    with pytest.raises(ValueError, match="at most max_bytes"):
        read_program(header_of(value, constants) + packed(value, constants))


def changed(path, part):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = part

    return change


FIRST, LAST, ABOVE = ("pixel", 0, 0), ("pixel", 0, 2), ("row", 0)
# Of `masked`: buffers 0 (image, features 1), 1 (features 5, rows 2), 2 .. 4 (one position each).
HOSTILE = {
    "likelihood must be one of": changed(["likelihood"], "gaussian"),
    "bernoulli": changed(["spec", 3], 3),
    "values of an image must lie": changed(["spec"], [2, 2**20, 2**20, 2, 0]),
    "columns must lie in 3": changed(["columns"], 2),
    "columns must lie in 3 .. 4099; got 4100": changed(["columns"], 4100),
    "scale must be a finite float32": changed(["scale"], 1e39),
    "scale must be a float": changed(["scale"], 2),
    "image: buffer must lie in 0": changed(["image"], -1),
    "image must lie in the 1 features": lambda v: v.update(
        spec=[3, 4, 3, 2, 0], parameters=v["parameters"] * 3, pixel=[*v["pixel"], [], []]
    ),
    "pixel must hold 2 lists": lambda v: v["pixel"].append([]),
    "parameters must be of 1 draws": lambda v: v["parameters"].append(v["parameters"][0]),
    "counts of parameters": changed(["parameters", 0, 4], 2),
    "parameters must lie in the 1 features": changed(["parameters", 0, 2], 1),
    "stride must be a power of two": changed(["buffers", 1, 2], 3),
    "features, columns and rows must lie": changed(["buffers", 1, 3], 0),
    "left and right must lie": changed(["buffers", 1, 4], -1),
    "kind must be one of": changed([*FIRST, "kind"], "conv"),
    "linear: count must lie": changed([*FIRST, "count"], 0),
    "activation of linear must be": changed([*FIRST, "activation"], "gelu"),
    r"activation of linear must be .*; got .ud800": changed([*FIRST, "activation"], "\ud800"),
    "column_modulus must be a power of two": changed([*FIRST, "column_modulus"], 3),
    "column_remainder must lie in 0 .. 0": changed([*FIRST, "column_remainder"], 1),
    "moduli of linear must be multiples of 2": changed(["buffers", 1, 2], 2),
    "domain must lie in 0": changed([*FIRST, "domain", 0], -1),
    "linear: buffer must lie in 0 .. 4": changed([*FIRST, "reads", 0, 0], 5),
    "linear must lie in the 5 features": changed([*FIRST, "feature"], 1),
    "linear: a position must lie inside buffer 0": changed([*FIRST, "reads", 0, 2], -2),
    "linear: a position must lie inside": changed([*FIRST, "reads", 0, 1], -2),
    "adds of linear must be of count 5": changed([*FIRST[:2], 1, "adds", 0, 4], 4),
    "constants of constant must be bias; got weight, bias": lambda v: v["pixel"][0][2].update(
        kind="constant", reads=[]
    ),
    "linear: weight must have shape": changed([*FIRST, "reads", 0, 4], 2),
    "bias of linear must be of 1 dimensions": changed([*LAST, "bias"], [1, 1]),
    "sweep of linear must be -1, 0 or 1": changed([*FIRST, "sweep"], 1),
    "cell and visible of linear": changed([*FIRST, "cell"], [1, 0]),
    "reads of relu must be of the counts": lambda v: v["pixel"][0][2].update(kind="relu"),
    "reads of where must be of the counts": lambda v: v["pixel"][0][2].update(kind="where"),
    "cell and visible of lstm": lambda v: v["pixel"][0][2].update(
        kind="lstm", reads=[[1, 0, 0, 0, 4], [1, 0, 0, 0, 1]]
    ),
    "constants of lookup": lambda v: v["pixel"][0][2].update(kind="lookup", reads=[[1, 0, 0, 0, 1]]),
    "constants of field must be table": lambda v: v["pixel"][0][2].update(kind="field", reads=[]),
    "shape must be that of an array of at most": changed([*LAST, "weight"], [2**31, 2**31]),
    "constants must be .* values, as the structure says": lambda v: v["pixel"][0].pop(2),
    "order must be null but": changed(["order"], list(range(12))),
    "order must be all of the 12 values": lambda v: v.update(order=[0] * 12, geometry="point"),
    "geometry must be one of": changed(["geometry"], "ring"),
    "components must be 1": changed(["components"], 2),
    "in other words": changed([*FIRST, "sweep"], 0),
    "integers of at most 2147483648; got True": changed([*FIRST, "count"], True),
    "instruction must be an object of": changed([*FIRST, "prepared"], 0),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_structures_are_refused(message):
    value, constants = structure_of(write_program(of(masked().program)))
    HOSTILE[message](value)
    with pytest.raises(ValueError, match=message):
        read_program(header_of(value, constants) + packed(value, constants))


def test_tables_of_labels_need_labels():
    """A bias of no labels would be read at the address of the labels, which are none."""
    value, constants = structure_of(write_program(of(masked().program)))
    value["pixel"][0][2]["bias"] = [0, 1]
    with pytest.raises(ValueError, match="bias of linear must be of 1 dimensions"):
        read_program(header_of(value, constants[:-4]) + packed(value, constants[:-4]))


def test_programs_in_memory_are_checked_alike():
    program = copy.deepcopy(scans().program)
    check_program(program, 2**20)
    program.pixel[0][1].visible = (7, 3)
    with pytest.raises(ValueError, match="lstm must lie in the 4 features"):
        check_program(program, 2**20)


def test_the_checks_of_columns_are_those_of_each_column():
    """`Program.check` looks at the first and the last column at which an instruction computes."""
    program = masked().program
    it = program.pixel[0][0]
    it.column_modulus, it.column_remainder, it.domain = 2, 1, (0, 4, 0, 3)
    it.reads[1] = Read(0, 0, 2, 0, 1)  # column 3, of 0 .. 2 and one at the right
    program.check()
    it.reads[1] = Read(0, 0, 3, 0, 1)
    with pytest.raises(ValueError, match="must lie inside buffer 0"):
        program.check()
    it.domain = (0, 4, 2, 3)  # computes at none
    program.check()


def test_numbers_of_numpy_are_written():
    program = masked().program
    expected = write_program(of(program))
    it = program.pixel[0][0]
    it.domain, it.count = tuple(np.int64(n) for n in it.domain), np.int64(it.count)
    program.scale = np.float64(program.scale)
    assert write_program(of(program)) == expected


def test_bytes_are_those_of_the_format():
    """What is written today must be read tomorrow: the structure of a small program, word for word."""
    value, _ = structure_of(write_program(of(masked().program)))
    last = {"kind": "linear", "buffer": 4, "feature": 0, "count": 1, "domain": [0, 4, 0, 3]}
    last |= {"reads": [[3, 0, 0, 0, 5]], "weight": [5, 1], "bias": [1]}
    assert value["pixel"] == [[*value["pixel"][0][:2], last], []]
    assert value["buffers"][1] == [5, 3, 1, 2, 1, 1, False] and value["parameters"] == [[4, 0, 0, 0, 1]]
    rest = {"spec": [1, 4, 3, 2, 0], "geometry": "grid", "order": None, "likelihood": "bernoulli", "components": 1}
    rest |= {"columns": 3, "scale": 2.0, "shift": -1.0, "image": 0}
    assert {name: value[name] for name in rest} == rest and list(value)[: len(rest)] == list(rest)
