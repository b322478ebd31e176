"""A whole pixel program in one launch: a kernel that interprets the tables of a program.

A program of the launch owns a tile of images and walks their rows, columns and instructions; nothing waits for another
program. Feature maps lie in global memory, which the cache keeps near; a barrier after an instruction shows its results
to all threads. Draws are computed in float64, as by the samplers.
"""

from collections.abc import Iterable

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.engine.program import ACTIVATIONS, KINDS, Drawn, Program
from genfast.engine.request import SampleRequest
from genfast.kernels._common import bits_of, device_of, tanh, uniform
from genfast.kernels._program_tables import ALIGNED, FIELDS, PLACE, Tables
from genfast.kernels.logistic_mixture import mixture_levels
from genfast.likelihoods import Bernoulli, LogisticMixture

# Images of a program, which is the least that a matrix product takes; values of a step of a product; levels of a step
# of a draw.
BLOCK, BLOCK_K, BLOCK_L = 16, 16, 32

KIND, COUNT, ACTIVATION, OUTPUT, CELL, VISIBLE, RUNS, SHIFT, DOMAIN, FIRST_READ, READS, FIRST_ADD, ADDS = (
    tl.constexpr(FIELDS.index(name))
    for name in (
        *("kind", "count", "activation", "output", "cell", "visible", "row_mask", "shift", "first_row"),
        *("first_read", "reads", "first_add", "adds"),
    )
)
WEIGHT, WEIGHT_WIDTH, BIAS, BIAS_STEP, DEPTH, ROW_STEP, COLUMN_STEP = (
    tl.constexpr(FIELDS.index(n)) for n in ("weight", "width", "bias", "bias_step", "depth", "row_step", "column_step")
)
PLACE_COUNT, PLACE_FILL = tl.constexpr(PLACE.index("count")), tl.constexpr(PLACE.index("fill"))
FIELD_COUNT, PLACE_SIZE = tl.constexpr(len(FIELDS)), tl.constexpr(len(PLACE))

LINEAR, LSTM, LOOKUP, FIELD, COPY, NEG, RELU, ELU, TANH, SIGMOID, ADD, MUL, GATE, AFFINE, CONSTANT = (
    tl.constexpr(KINDS.index(kind))
    for kind in "linear lstm lookup field copy neg relu elu tanh sigmoid add mul gate affine constant".split()
)
EXP, LOG, LOG1P, SQRT, RECIPROCAL, ABS, ERF, SOFTPLUS, MAX, MIN, GREATER, WHERE = (
    tl.constexpr(KINDS.index(kind))
    for kind in "exp log log1p sqrt reciprocal abs erf softplus max min greater where".split()
)
OF_RELU, OF_ELU, OF_TANH, OF_SIGMOID = (tl.constexpr(ACTIVATIONS.index(a)) for a in ("relu", "elu", "tanh", "sigmoid"))
BERNOULLI, MIXTURE = (tl.constexpr(likelihood.case) for likelihood in (Bernoulli, LogisticMixture))

# Arguments of the kernel that differ from call to call, or of which no kernel of its own is worth compiling.
NUMBERS = (
    "SEED FIRST TEMPERATURE DRAW BATCH IMAGE_SIZE HEIGHT WIDTH COLUMNS PARTS IMAGE FIRST_PARAMETER COUNT_OF LEVELS "
    "FIELD_SIZE"
)
NUMBERS = NUMBERS.split()


def pixel_program(program: Program, request: SampleRequest, device: torch.device) -> Drawn:
    """Draw the images of a request on a GPU, as `genfast.engine.eager.run` does; the same results."""
    device = torch.device(device)
    name = f"pixel_program on {device}"
    tables = program.prepared.get(name) or program.prepared.setdefault(name, Launch(program, device))
    r, n, want = request, request.n, request.want
    program.check_fields(r.fields, n)
    levels = program.spec.dtype
    inputs = {"labels": (r.labels, torch.int64), "given": (r.given, levels), "known": (r.known, torch.uint8)}
    inputs |= {"evidence": (r.evidence, torch.float32), "fields": (r.fields, torch.float32)}
    inputs = {name: None if t is None else t.to(device, dtype).contiguous() for name, (t, dtype) in inputs.items()}
    size = (program.spec.height, program.spec.width)
    images = torch.empty((n, *program.spec.shape), dtype=levels, device=device)
    parameters = torch.empty((n, tables.parameters if want else 0, *size), dtype=torch.float32, device=device)
    if n:
        maps = tables.maps.repeat(n, 1)
        pointers = {name: images if t is None else t for name, t in inputs.items()}
        pointers["fields"] = parameters if r.fields is None else inputs["fields"]
        seed = r.seed - 2**64 if r.seed >= 2**63 else r.seed
        settings = {
            "SEED": seed,
            "FIRST": r.first,
            "TEMPERATURE": bits_of(r.temperature),
            "DRAW": r.draw,
            "BATCH": n,
            "HAS_LABELS": r.labels is not None,
            "HAS_KNOWN": r.known is not None,
            "HAS_EVIDENCE": r.evidence is not None,
            "SAVE": bool(want),
        }
        with device_of(images):
            pixel_program_kernel[(triton.cdiv(n, BLOCK),)](
                *tables.tensors, maps, images, parameters, **pointers, **settings, **tables.launch
            )
    return _with_wanted(program, Drawn(images), parameters, r.temperature, inputs["evidence"], want)


def _with_wanted(program, drawn, parameters, temperature, evidence, want):
    """What is wanted of the parameters [n, P, H, W] of what was drawn."""
    likelihood = program.likelihood
    parts = parameters.split([read.count for read in program.parameters], 1) if want else ()
    # [n, H W, count]: a likelihood takes the pixels of one row, of which this makes one long one.
    parts = [part.permute(0, 2, 3, 1).flatten(1, 2) for part in parts]
    values = drawn.images.permute(0, 2, 3, 1).flatten(1, 2)
    sizes = (program.spec.height, program.spec.width)

    def stacked(maps: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(maps), 1).unflatten(2, sizes)

    if "log_probs" in want:
        groups = [values[:, :, likelihood.drawn_channels(k)] for k in range(likelihood.draws)]
        drawn.log_probs = stacked(likelihood.log_prob(part, group) for part, group in zip(parts, groups))
    if "log_evidence" in want:
        if evidence is None:
            shape = (len(values), program.draws, *sizes)
            drawn.log_evidence = torch.zeros(shape, dtype=torch.float64, device=values.device)
        else:
            seen = evidence.flatten(2, 3).unbind(1)
            drawn.log_evidence = stacked(likelihood.log_evidence(part, temperature, e) for part, e in zip(parts, seen))
    if "parameters" in want:
        drawn.parameters = parameters
    return drawn


class Launch:
    """The tables of a program on a GPU, the feature maps of an image before its first pixel, and what is fixed."""

    def __init__(self, program: Program, device: torch.device):
        tables = Tables(program)
        spec, likelihood = program.spec, program.likelihood
        levels = torch.arange(spec.levels, dtype=torch.float32, device="cpu")
        values = levels * torch.tensor(program.scale, dtype=torch.float32, device="cpu") + program.shift
        arrays = (tables.instructions, tables.places, tables.constants, tables.parts)
        self.tensors = [*(torch.from_numpy(array).to(device) for array in arrays), values.to(device)]
        self.maps = torch.from_numpy(tables.maps).to(device)
        self.parameters = sum(read.count for read in program.parameters)
        counts = [it.count for part in (program.row, *program.pixel) for it in part if it.kind == "linear"]
        is_mixture = likelihood.case == LogisticMixture.case
        self.launch = {
            "IMAGE_SIZE": tables.maps.size,
            "HEIGHT": spec.height,
            "WIDTH": spec.width,
            "COLUMNS": program.columns,
            "PARTS": len(tables.parts),
            "DRAWS": program.draws,
            "IMAGE": tables.image,
            "FIRST_PARAMETER": tables.parameters,
            "COUNT_OF": self.parameters // program.draws,
            "LEVELS": spec.levels,
            "FIELD_SIZE": program.fields,
            "CHANNELS": spec.channels,
            "HEAD": likelihood.case,
            "COMPONENTS": likelihood.components,
            "BLOCK": BLOCK,
            "BLOCK_K": BLOCK_K,
            **width_of(max(counts, default=1)),
            "BLOCK_L": triton.next_power_of_2(likelihood.components) if is_mixture else BLOCK_L,
        }


def width_of(count: int) -> dict[str, int]:
    """How much of a layer of `count` outputs is made at once. More threads on wide layers: fewer would spill."""
    block = min(64, max(ALIGNED, triton.next_power_of_2(count)))
    # Left alone the assembler aims at more programs of a processor than there are, and spills for it.
    return {"BLOCK_N": block, "num_warps": 8 if block == 64 else 4, "maxnreg": 255}


@triton.jit
def place(tables, which, i, j):
    """Where place `which` of pixel (i, j) begins in the feature maps of an image."""
    at = tables[0] + which * PLACE_SIZE
    shift, rows = tl.load(at + 2), tl.load(at + 3)
    row = ((i >> shift) + tl.load(at + 6) + rows) % rows
    column = (j >> shift) + tl.load(at + 7) + tl.load(at + 4)
    return tl.load(at) + row * tl.load(at + 5) + column * tl.load(at + 1) + tl.load(at + 8)


@triton.jit
def load_count(at):
    return tl.load(at).to(tl.int32)


@triton.jit
def expelu(x):
    return tl.where(x > 0, x, tl.exp(tl.where(x > 0, 0.0, x)) - 1)


@triton.jit
def load_bias(it, constants, label, n, mask):
    bias = constants + tl.load(it + BIAS) + label * tl.load(it + BIAS_STEP)
    return tl.load(bias[:, None] + n, mask=mask, other=0.0)


@triton.jit
def linear(it, tables, maps, label, inside, i, j, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Products are exact float32, summed in the order of the reads."""
    count, weight, width = load_count(it + COUNT), tables[1] + tl.load(it + WEIGHT), tl.load(it + WEIGHT_WIDTH)
    first_read, first_add, activation = tl.load(it + FIRST_READ), tl.load(it + FIRST_ADD), tl.load(it + ACTIVATION)
    out = (maps + place(tables, tl.load(it + OUTPUT), i, j))[:, None]
    for start in range(0, count, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        mask = inside[:, None] & (n < count)
        y = load_bias(it, tables[1], label, n, mask)
        w = weight + n
        for r in range(first_read, first_read + tl.load(it + READS)):
            length = load_count(tables[0] + r * PLACE_SIZE + PLACE_COUNT)
            x = (maps + place(tables, r, i, j))[:, None]
            for begin in range(0, length, BLOCK_K):
                k = begin + tl.arange(0, BLOCK_K)
                a = tl.load(x + k[None, :], mask=inside[:, None] & (k < length)[None, :], other=0.0)
                b = tl.load(w + k[:, None] * width, mask=(k < length)[:, None] & (n < count), other=0.0)
                y = tl.dot(a, b, y, input_precision="ieee")
            w += length * width
        for r in range(first_add, first_add + tl.load(it + ADDS)):
            y += tl.load((maps + place(tables, r, i, j))[:, None] + n, mask=mask, other=0.0)
        if activation == OF_RELU:
            y = tl.where(y > 0, y, 0.0)
        elif activation == OF_ELU:
            y = expelu(y)
        elif activation == OF_TANH:
            y = tanh(y, False)
        elif activation == OF_SIGMOID:
            y = tl.sigmoid(y)
        tl.store(out + n, y, mask=mask)


@triton.jit
def log1p(x):
    """What rounding took from 1 + x is added to its logarithm."""
    u = 1 + x
    finite = (u > 0) & (u < float("inf"))
    return tl.log(u) + tl.where(finite, (x - (u - 1)) / tl.where(finite, u, 1.0), 0.0)


@triton.jit
def function(kind, a, b):
    y = a
    if kind == EXP:
        y = tl.exp(a)
    elif kind == LOG:
        y = tl.log(a)
    elif kind == LOG1P:
        y = log1p(a)
    elif kind == SQRT:
        y = tl.sqrt_rn(a)
    elif kind == RECIPROCAL:
        y = 1 / a
    elif kind == ABS:
        y = tl.abs(a)
    elif kind == ERF:
        y = tl.erf(a)
    elif kind == SOFTPLUS:
        y = tl.where(a > 0, a, tl.where(a != a, a, 0.0)) + log1p(tl.exp(-tl.abs(a)))
    elif kind == MAX:
        y = tl.where((a > b) | (a != a), a, b)
    elif kind == MIN:
        y = tl.where((a < b) | (a != a), a, b)
    elif kind == GREATER:
        y = tl.where(a > b, 1.0, 0.0)
    return y


@triton.jit
def elementwise(it, kind, tables, maps, label, inside, i, j, BLOCK_N: tl.constexpr):
    count, operands, first_read = load_count(it + COUNT), tl.load(it + READS), tl.load(it + FIRST_READ)
    out = (maps + place(tables, tl.load(it + OUTPUT), i, j))[:, None]
    # Where there is no such operand, its place is that of another read and nothing is loaded.
    first = (maps + place(tables, tl.where(operands > 0, first_read, 0), i, j))[:, None]
    second = (maps + place(tables, tl.where(operands > 1, first_read + 1, 0), i, j))[:, None]
    third = (maps + place(tables, tl.where(operands > 2, first_read + 2, 0), i, j))[:, None]
    for start in range(0, count, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        mask = inside[:, None] & (n < count)
        # Beyond the mask 1, of which every function is finite.
        a = tl.load(first + n, mask=mask & (operands > 0), other=1.0)
        b = tl.load(second + n, mask=mask & (operands > 1), other=0.0)
        y = a
        if kind == NEG:
            y = -a
        elif kind == RELU:
            y = tl.where(a > 0, a, 0.0)
        elif kind == ELU:
            y = expelu(a)
        elif kind == TANH:
            y = tanh(a, False)
        elif kind == SIGMOID:
            y = tl.sigmoid(a)
        elif kind == ADD:
            y = a + b
        elif kind == MUL:
            y = a * b
        elif kind == GATE:
            y = tanh(a, False) * tl.sigmoid(b)
        elif kind > CONSTANT:
            y = function(kind, a, b)
            if kind == WHERE:
                y = tl.where(a != 0, b, tl.load(third + n, mask=mask & (operands > 2), other=0.0))
        elif kind >= AFFINE:
            y = load_bias(it, tables[1], label, n, mask)
            if kind == AFFINE:
                y += a * tl.load(tables[1] + tl.load(it + WEIGHT) + n, mask=n < count, other=0.0)
        # Two threads may hold one value, and the result may take the place of an operand.
        tl.debug_barrier()
        tl.store(out + n, y, mask=mask)


@triton.jit
def lstm(it, tables, maps, inside, i, j, BLOCK_N: tl.constexpr):
    count, first_read, seen = load_count(it + COUNT), tl.load(it + FIRST_READ), tl.load(it + VISIBLE)
    gates = (maps + place(tables, first_read, i, j))[:, None]
    before = (maps + place(tables, first_read + 1, i, j))[:, None]
    out = (maps + place(tables, tl.load(it + OUTPUT), i, j))[:, None]
    cell = (maps + place(tables, tl.load(it + CELL), i, j))[:, None]
    visible = (maps + place(tables, tl.where(seen < 0, 0, seen), i, j))[:, None]
    for start in range(0, count, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        mask = inside[:, None] & (n < count)
        a_i = tl.load(gates + n, mask=mask, other=0.0)
        a_f = tl.load(gates + count + n, mask=mask, other=0.0)
        a_g = tl.load(gates + 2 * count + n, mask=mask, other=0.0)
        a_o = tl.load(gates + 3 * count + n, mask=mask, other=0.0)
        c = tl.load(before + n, mask=mask, other=0.0)
        c = tl.sigmoid(a_f) * c + tl.sigmoid(a_i) * tanh(a_g, False)
        h = tl.sigmoid(a_o) * tanh(c, False)
        tl.store(cell + n, c, mask=mask)
        tl.store(out + n, h, mask=mask)
        tl.store(visible + n, h, mask=mask & (seen >= 0))


@triton.jit
def write_known(it, kind, tables, maps, given, label, inside, i, j, BLOCK_N: tl.constexpr):
    """A row of the table of a lookup, or of a field, of which `given` are those of the request."""
    count, weight, shift = load_count(it + COUNT), tl.load(it + WEIGHT), tl.load(it + SHIFT)
    out = (maps + place(tables, tl.load(it + OUTPUT), i, j))[:, None]
    if kind == LOOKUP:
        number = tl.load(maps + place(tables, tl.load(it + FIRST_READ), i, j), mask=inside, other=0.0) + 0.5
        last = (tl.load(it + DEPTH) - 1).to(tl.float32)
        number = tl.where(number > 0, number, 0.0)
        row = tl.where(number < last, number, last).to(tl.int64)
        source = tables[1] + weight + row * tl.load(it + WEIGHT_WIDTH)
    else:
        r, c = (i >> shift) - tl.load(it + DOMAIN), (j >> shift) - tl.load(it + DOMAIN + 2)
        fixed = tables[1] + tl.where(weight < 0, 0, weight) + label * tl.load(it + BIAS_STEP)
        source = tl.where(weight < 0, given + tl.load(it + BIAS), fixed)
        source += r * tl.load(it + ROW_STEP) + c * tl.load(it + COLUMN_STEP)
    for start in range(0, count, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        mask = inside[:, None] & (n < count)
        tl.store(out + n, tl.load(source[:, None] + n, mask=mask, other=0.0), mask=mask)


@triton.jit
def fill(which, tables, maps, inside, i, j, BLOCK_N: tl.constexpr):
    """Write what a place outside the domain of its instruction holds."""
    if which >= 0:
        at = tables[0] + which * PLACE_SIZE
        count, value = load_count(at + PLACE_COUNT), tl.load(at + PLACE_FILL)
        source = tables[1] + tl.where(value < 0, 0, value)
        out = (maps + place(tables, which, i, j))[:, None]
        for start in range(0, count, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)[None, :]
            mask = inside[:, None] & (n < count)
            tl.store(out + n, tl.load(source + n + inside[:, None] * 0, mask=mask & (value >= 0), other=0.0), mask=mask)


@triton.jit
def execute(it, tables, maps, given, label, inside, i, j, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """One instruction at pixel (i, j), if it runs there."""
    runs = it + RUNS
    if ((i & tl.load(runs)) == tl.load(runs + 1)) & ((j & tl.load(runs + 2)) == tl.load(runs + 3)):
        kind, output, domain = tl.load(it + KIND), tl.load(it + OUTPUT), it + DOMAIN
        shift = tl.load(it + SHIFT)
        r, c = i >> shift, j >> shift
        rows = (r >= tl.load(domain)) & (r < tl.load(domain + 1))
        if rows & (c >= tl.load(domain + 2)) & (c < tl.load(domain + 3)):
            if kind == LINEAR:
                linear(it, tables, maps, label, inside, i, j, BLOCK_N, BLOCK_K)
            elif kind == LSTM:
                lstm(it, tables, maps, inside, i, j, BLOCK_N)
            elif kind <= FIELD:
                write_known(it, kind, tables, maps, given, label, inside, i, j, BLOCK_N)
            else:
                elementwise(it, kind, tables, maps, label, inside, i, j, BLOCK_N)
        else:
            fill(output, tables, maps, inside, i, j, BLOCK_N)
            fill(tl.load(it + CELL), tables, maps, inside, i, j, BLOCK_N)
            fill(tl.load(it + VISIBLE), tables, maps, inside, i, j, BLOCK_N)


@triton.jit
def load_logits(logits, evidence, l, inside, temperature, LEVELS, HAS_EVIDENCE: tl.constexpr):
    """Tempered, with the evidence; -inf past the last level, and 0 for images past the last."""
    mask = inside[:, None] & (l < LEVELS)
    values = tl.load(logits[:, None] + l, mask=mask, other=float("-inf")).to(tl.float64) / temperature
    if HAS_EVIDENCE:
        values += tl.load(evidence[:, None] + l, mask=mask, other=0.0).to(tl.float64)
    return tl.where(inside[:, None], values, 0.0)


@triton.jit
def exp_or_zero(x):
    return tl.where(x < -708.0, 0.0, tl.exp(x))


@triton.jit
def categorical_level(
    logits,
    evidence,
    inside,
    u,
    temperature,
    LEVELS,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
    HAS_EVIDENCE: tl.constexpr,
):
    """The level [BLOCK] that the number `u` stands for, as `inverse_cdf` has it, in blocks of levels."""
    largest = tl.full((BLOCK,), float("-inf"), tl.float64)
    total, below = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    level = tl.zeros((BLOCK,), tl.int32) + LEVELS
    for start in range(0, LEVELS, BLOCK_L):
        l = start + tl.arange(0, BLOCK_L)[None, :]
        values = load_logits(logits, evidence, l, inside, temperature, LEVELS, HAS_EVIDENCE)
        highest = tl.max(values, 1)
        largest = tl.where(highest > largest, highest, largest)
    for start in range(0, LEVELS, BLOCK_L):
        l = start + tl.arange(0, BLOCK_L)[None, :]
        values = load_logits(logits, evidence, l, inside, temperature, LEVELS, HAS_EVIDENCE)
        total += tl.sum(exp_or_zero(values - largest[:, None]), 1)
    for start in range(0, LEVELS, BLOCK_L):
        l = start + tl.arange(0, BLOCK_L)[None, :]
        values = load_logits(logits, evidence, l, inside, temperature, LEVELS, HAS_EVIDENCE)
        weights = exp_or_zero(values - largest[:, None])
        # A sum by halves may rise at a weight of 0 by rounding: such a level is never the answer.
        passed = (below[:, None] + tl.cumsum(weights, 1) > (u * total)[:, None]) & (weights > 0)
        first = tl.min(tl.where(passed, l, LEVELS), 1)
        level = tl.where(first < level, first, level)
        below += tl.sum(weights, 1)
    return tl.where(level < LEVELS, level, 0)


@triton.jit
def bernoulli_level(logits, evidence, inside, u, temperature, HAS_EVIDENCE: tl.constexpr):
    logit = tl.load(logits, mask=inside, other=0.0).to(tl.float64) / temperature
    if HAS_EVIDENCE:
        logit += tl.load(evidence + 1, mask=inside, other=0.0).to(tl.float64)
        logit -= tl.load(evidence, mask=inside, other=0.0).to(tl.float64)
    smaller = exp_or_zero(-tl.abs(logit))
    return (tl.where(logit < 0, 1.0, smaller) <= u * (1 + smaller)).to(tl.int32)


@triton.jit
def write_level(level, k, target, outputs, at, pixels, inside, HAS_KNOWN: tl.constexpr):
    """Channel `k`: the level drawn, or the one that is known, into the image and, as a value, into the maps."""
    values, images, given, known = outputs
    at += k * pixels
    if HAS_KNOWN:
        fixed = tl.load(known + at, mask=inside, other=0) != 0
        level = tl.where(fixed, tl.load(given + at, mask=inside, other=0).to(tl.int32), level)
    tl.store(images + at, level.to(images.dtype.element_ty), mask=inside)
    tl.store(target + k, tl.load(values + level), mask=inside)


@triton.jit
def save(source, parameters, count, inside, pixels, BLOCK_N: tl.constexpr):
    """Keep the parameters of a draw: `parameters` [BLOCK] points to the first of them."""
    for start in range(0, count, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        mask = inside[:, None] & (n < count)
        y = tl.load(source[:, None] + n, mask=mask, other=0.0)
        tl.store(parameters[:, None] + n.to(tl.int64) * pixels, y, mask=mask)


@triton.jit(do_not_specialize=NUMBERS)
def pixel_program_kernel(
    instructions, places, constants, parts, values, maps, images, parameters, labels, given, known, evidence, fields,
    SEED, FIRST, TEMPERATURE, DRAW, BATCH, IMAGE_SIZE, HEIGHT, WIDTH, COLUMNS, PARTS, IMAGE, FIRST_PARAMETER, COUNT_OF,
    LEVELS, FIELD_SIZE, DRAWS: tl.constexpr, CHANNELS: tl.constexpr, HEAD: tl.constexpr, COMPONENTS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_L: tl.constexpr,
    HAS_LABELS: tl.constexpr, HAS_KNOWN: tl.constexpr, HAS_EVIDENCE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = image < BATCH
    maps += image * IMAGE_SIZE
    fields += image * FIELD_SIZE
    label = tl.zeros((BLOCK,), tl.int64)
    if HAS_LABELS:
        label = tl.load(labels + image, mask=inside, other=0)
    temperature = TEMPERATURE.to(tl.float64, bitcast=True)
    tables, outputs = (places, constants), (values, images, given, known)
    whole, pixels = PARTS - DRAWS - 1, HEIGHT * WIDTH
    for i in range(HEIGHT):
        for step in range(whole + 1):
            sweep = tl.load(parts + step * 3 + 2)
            for column in range(COLUMNS):
                j = tl.where(sweep < 0, COLUMNS - 1 - column, column)
                for part in range(step, tl.where(step < whole, step + 1, PARTS)):
                    for at in range(tl.load(parts + part * 3), tl.load(parts + part * 3 + 1)):
                        it = instructions + at * FIELD_COUNT
                        execute(it, tables, maps, fields, label, inside, i, j, BLOCK_N, BLOCK_K)
                        # Other threads read the results in the next instruction. The columns of a row that is no
                        # sweep do not read each other.
                        if (sweep != 0) | (column == COLUMNS - 1):
                            tl.debug_barrier()
                    k = part - whole
                    if (step == whole) & (k < DRAWS) & (j < WIDTH):
                        pixel = i * WIDTH + j
                        source = maps + place(tables, FIRST_PARAMETER + k, i, j)
                        target = maps + place(tables, IMAGE, i, j)
                        if SAVE:
                            kept = parameters + (image * DRAWS + k) * COUNT_OF * pixels + pixel
                            save(source, kept, COUNT_OF, inside, pixels, BLOCK_N)
                        number, element = FIRST + image, tl.zeros((BLOCK,), tl.int64) + pixel * CHANNELS + k
                        first = image * CHANNELS * pixels + pixel
                        if HEAD == MIXTURE:
                            red, green, blue = mixture_levels(
                                source,
                                inside,
                                1,
                                SEED,
                                number,
                                element,
                                2 * DRAW,
                                temperature,
                                LEVELS,
                                CHANNELS,
                                COMPONENTS,
                                BLOCK,
                                BLOCK_L,
                            )
                            write_level(red, 0, target, outputs, first, pixels, inside, HAS_KNOWN)
                            if CHANNELS == 3:
                                write_level(green, 1, target, outputs, first, pixels, inside, HAS_KNOWN)
                                write_level(blue, 2, target, outputs, first, pixels, inside, HAS_KNOWN)
                        else:
                            u = uniform(SEED, number, element, DRAW)
                            seen = evidence + (first + k * pixels) * LEVELS
                            if HEAD == BERNOULLI:
                                level = bernoulli_level(source, seen, inside, u, temperature, HAS_EVIDENCE)
                            else:
                                level = categorical_level(
                                    source, seen, inside, u, temperature, LEVELS, BLOCK, BLOCK_L, HAS_EVIDENCE
                                )
                            write_level(level, k, target, outputs, first, pixels, inside, HAS_KNOWN)
                        tl.debug_barrier()
