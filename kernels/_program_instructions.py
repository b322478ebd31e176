"""What one instruction of a pixel program computes at a pixel, for a tile of images."""

import triton
import triton.language as tl

from genfast.engine.program import ACTIVATIONS, KINDS
from genfast.kernels._common import tanh
from genfast.kernels._program_tables import FIELDS, PLACE

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
