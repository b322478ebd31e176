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

from genfast.engine.program import Drawn, Program
from genfast.engine.request import SampleRequest
from genfast.kernels._common import bits_of, device_of, uniform
from genfast.kernels._program_instructions import FIELD_COUNT, execute, place
from genfast.kernels._program_tables import ALIGNED, Tables
from genfast.kernels.logistic_mixture import mixture_levels
from genfast.likelihoods import Bernoulli, LogisticMixture

# Images of a program, which is the least that a matrix product takes; values of a step of a product; levels of a step
# of a draw.
BLOCK, BLOCK_K, BLOCK_L = 16, 16, 32

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
    maps, fields = maps + image * IMAGE_SIZE, fields + image * FIELD_SIZE
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
