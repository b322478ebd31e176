"""The two parts of the bytes of a program, such bytes of any parts, whose fingerprints fit, and damage to them."""

import copy
import json
import lzma
import math
import random
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch
from support import mutations

from genfast.engine import cpp
from genfast.engine.compiled import Compiled
from genfast.engine.program import ACTIVATIONS, KINDS
from genfast.engine.program_file import HEADER, MAGIC, VERSION
from genfast.engine.request import SampleRequest


def alone(case):
    """The program of a case, with constants where it would read what a model computes of each image."""
    program = copy.deepcopy(case.program)
    for it in (it for part in (program.row, *program.pixel) for it in part):
        if it.kind == "field" and it.table is None:
            shape = (1, *it.grid, it.count)
            it.table = np.random.default_rng(it.offset).standard_normal(shape).astype(np.float32)
            it.offset, it.grid = 0, (1, 1)
    program.fields = 0
    return program


def structure_of(data: bytes):
    """(structure as a JSON value, constants)."""
    size = HEADER.unpack_from(data)[2]
    content = lzma.decompress(data[HEADER.size :], lzma.FORMAT_RAW, filters=filters(2**24))
    planes = np.frombuffer(content[size:], np.uint8)
    return json.loads(content[:size]), planes.reshape(4, -1).T.tobytes()


def filters(window: int):
    return [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": window}]


def text_of(value) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def fingerprints_of(value, constants: bytes) -> list[bytes]:
    return [sha256(part).digest()[:8] for part in (text_of(value), constants)]


def header_of(value, constants: bytes) -> bytes:
    return HEADER.pack(MAGIC, VERSION, len(text_of(value)), len(constants), *fingerprints_of(value, constants))


def packed(value, constants: bytes) -> bytes:
    planes = np.frombuffer(constants, np.uint8).reshape(-1, 4).T.tobytes()
    return lzma.compress(text_of(value) + planes, lzma.FORMAT_RAW, filters=filters(2**12))


def mutated(value, constants: bytes, rng: random.Random):
    """Both parts with some numbers of the structure replaced by others of it, so that many still make a program."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        leaves = [path for path in mutations.places(value) if type(_at(value, path)) in (int, str)]
        path = rng.choice(leaves)
        of, key, old = _at(value, path[:-1]), path[-1], _at(value, path)
        match rng.randrange(6):
            case _ if isinstance(old, str):
                of[key] = rng.choice((*KINDS, *ACTIVATIONS, "categorical", "mixture", "line", "point"))
            case 0 | 1:
                of[key] = old + rng.choice((-1, 1, 2, -2))
            case 2 | 3:
                of[key] = _at(value, rng.choice(leaves))
            case 4:
                of[key] = rng.choice((0, 2 * old, old // 2, -old, 16, 17, 64))
            case 5:
                value = mutations.changed(value, rng)
    return value, _fitting(value, constants, rng)


def _at(value, path):
    for key in path:
        value = value[key]
    return value


def _fitting(value, constants: bytes, rng: random.Random) -> bytes:
    """As many constants as the arrays of a structure need, where that can be said; some are no numbers."""
    try:
        parts = [value["row"], *value["pixel"]]
        shapes = [it[name] for part in parts for it in part for name in ("weight", "bias", "table") if name in it]
        size = sum(math.prod(shape) for shape in shapes) + sum(b[0] for b in value["buffers"] if b[6])
    except (IndexError, KeyError, TypeError):
        return constants
    if not isinstance(size, int) or not 0 <= size < 10**6:
        return constants
    floats = np.resize(np.frombuffer(constants, "<f4"), size)
    if size and rng.random() < 0.3:
        floats[rng.randrange(size)] = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45))
    return floats.tobytes()


def draw(compiled: Compiled) -> int:
    """Draw from a program, and score, in all ways in which the engine runs it; how many images."""
    spec, program, count = compiled.spec, compiled.program, 0
    if spec.values * max(1, program.columns // program.spec.width) > 10_000 or spec.classes > 100:
        return 0  # as right as another, and longer
    for n in (1, 13):
        labels = torch.arange(n, dtype=torch.int64) % spec.classes if spec.classes else None
        request = SampleRequest(n, seed=1, labels=labels, want=("log_probs", "parameters"))
        drawn = compiled.run(cpp.run, request, torch.device("cpu"), {})
        given, known = drawn.images % spec.levels, torch.ones(n, *spec.shape, dtype=torch.bool, device="cpu")
        compiled.run(cpp.run, replace(request, given=given, known=known), torch.device("cpu"), {})
        count += n
    return count
