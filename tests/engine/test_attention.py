"""Attention over the pixels so far: its instruction, what is recognised, and what is refused by name."""

import math

import numpy as np
import pytest
import torch
from engine.strangers import STRANGERS
from support.anyone import Masked, alive
from support.pixel_programs import run
from torch import nn
from torch.nn import functional as F

import genfast
from genfast import testing
from genfast.engine import cpp, eager
from genfast.engine.compiler import NotCausal, NotIncremental, compile_program
from genfast.engine.program import Attention, Buffer, Instruction, Program, Read
from genfast.engine.program_check import check_program
from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Categorical

GREY = {"shape": (1, 4, 5), "levels": 4, "input_range": (0, 1)}
N = 20  # pixels
EARLIER = torch.ones(N, N).tril()
ATTENDING = [name for name in STRANGERS if STRANGERS[name].model.__module__.endswith("attending")]


class Attending(nn.Module):
    """A masked convolution, and attention by `weigh`: (q, k, v) [B, heads, N, size] -> [B, heads, N, size]."""

    def __init__(self, weigh, heads=2, own=False):
        super().__init__()
        self.first, self.weigh, self.heads, self.own = Masked(1, 8, 3, "A"), weigh, heads, own
        self.query, self.pair, self.out = nn.Conv2d(8, 8, 1), nn.Conv2d(9, 16, 1), nn.Conv2d(16, 4, 1)
        alive(self)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        k, v = self.pair(torch.cat((h, x if self.own else 0 * x), 1)).chunk(2, 1)
        q, k, v = (t.reshape(len(x), self.heads, -1, N).mT for t in (self.query(h), k, v))
        return self.out(torch.cat((h, self.weigh(q, k, v).mT.reshape(h.shape)), 1))


def scores(q, k):
    return q @ k.mT / math.sqrt(q.shape[-1])


def compiled(model):
    return compile_program(model, **GREY)


def attention_of(program):
    (one,) = [it for part in (program.row, *program.pixel) for it in part if it.kind == "attention"]
    return one


FORMS = {
    "sdpa": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "sdpa, a mask of bools": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=EARLIER.bool()),
    "sdpa, a mask of floats": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=EARLIER.log()),
    "sdpa, groups": lambda q, k, v: F.scaled_dot_product_attention(
        q, k[:, :1], v[:, :1], is_causal=True, enable_gqa=True
    ),
    "masked_fill": lambda q, k, v: scores(q, k).masked_fill(EARLIER == 0, -math.inf).softmax(-1) @ v,
    "masked_fill in place": lambda q, k, v: scores(q, k).masked_fill_(EARLIER == 0, -1e9).softmax(-1) @ v,
    "where": lambda q, k, v: torch.where(EARLIER.bool(), scores(q, k), -1e4).softmax(-1).matmul(v),
    "added": lambda q, k, v: F.softmax(scores(q, k) + EARLIER.log()[None, None], -1) @ v,
    "arithmetic": lambda q, k, v: (scores(q, k) * EARLIER - 1e10 * (1 - EARLIER)).softmax(3) @ v,
    "least float": lambda q, k, v: scores(q, k).masked_fill(EARLIER == 0, torch.finfo(q.dtype).min).softmax(-1) @ v,
    "einsum": lambda q, k, v: torch.einsum(
        "bhqk,bhkd->bhqd", (torch.einsum("bhqd,bhkd->bhqk", q, k) + EARLIER.log()).softmax(-1), v
    ),
    "transposed": lambda q, k, v: ((k @ q.mT) + EARLIER.T.log()).softmax(-2).mT @ v,
    "scaled queries": lambda q, k, v: ((q * 0.3) @ k.mT).masked_fill(EARLIER == 0, -math.inf).softmax(-1) @ v,
    "heads in the batch": lambda q, k, v: (
        torch.baddbmm(EARLIER.log().expand(len(q) * 2, N, N), q.flatten(0, 1), k.flatten(0, 1).mT, alpha=0.5)
        .softmax(-1)
        .bmm(v.flatten(0, 1))
        .unflatten(0, (-1, 2))
    ),
    "a scale for each head": lambda q, k, v: (
        (q @ k.mT * torch.tensor([0.2, 0.7])[:, None, None] + EARLIER.log()).softmax(-1).matmul(v)
    ),
    "a window": lambda q, k, v: scores(q, k).masked_fill(EARLIER.triu(-3) == 0, -math.inf).softmax(-1) @ v,
    "weights with a factor": lambda q, k, v: ((scores(q, k) + EARLIER.log()).softmax(-1) * (EARLIER + 1).cumsum(1)) @ v,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    """Each is one instruction; `compile_program` has compared it with the forward."""
    one = attention_of(compiled(Attending(FORMS[form])))
    assert one.attention.behind == 0 and one.attention.positions == N
    assert one.attention.groups == (1 if form == "sdpa, groups" else 2)
    assert (one.table is None) == (form not in ("a window", "weights with a factor"))


BEFORE = EARLIER.tril(-1)
START = (torch.arange(N) > 0).float()[:, None]
FIRST_ROWS = {
    "weights times zero": lambda q, k, v: (scores(q, k).masked_fill(BEFORE == 0, -1e4).softmax(-1) * START) @ v,
    "weights filled with zeros": lambda q, k, v: (
        scores(q, k).masked_fill(BEFORE == 0, -math.inf).softmax(-1).masked_fill(BEFORE == 0, 0.0) @ v
    ),
    "nan_to_num of weights": lambda q, k, v: (scores(q, k) + BEFORE.log()).softmax(-1).nan_to_num() @ v,
    "nan_to_num of the result": lambda q, k, v: ((scores(q, k) + BEFORE.log()).softmax(-1) @ v).nan_to_num(),
    "sdpa": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=BEFORE.bool()).nan_to_num(),
}


@pytest.mark.parametrize("form", FIRST_ROWS)
def test_the_first_position_without_keys(form):
    """It is as the model has it; keys and values may then be of the pixel itself."""
    assert attention_of(compiled(Attending(FIRST_ROWS[form], own=True))).attention.behind == 1


def test_a_first_position_of_nan_is_not_hidden():
    model = Attending(lambda q, k, v: (scores(q, k) + BEFORE.log()).softmax(-1) @ v, own=True)
    with pytest.raises(ValueError, match="finite"):
        compiled(model)


LEAKS = {
    "no mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "one entry": lambda q, k, v: scores(q, k).masked_fill(LEAK == 0, -math.inf).softmax(-1) @ v,
    "of one head": lambda q, k, v: (scores(q, k) + torch.stack((EARLIER, LEAK)).log()).softmax(-1) @ v,
    "a diagonal too many": lambda q, k, v: (scores(q, k) + torch.ones(N, N).tril(1).log()).softmax(-1) @ v,
    "the other triangle": lambda q, k, v: (scores(q, k) + EARLIER.T.log()).softmax(-1) @ v,
    "a weak fill": lambda q, k, v: scores(q, k).masked_fill(EARLIER == 0, -2.0).softmax(-1) @ v,
    "a mask after the softmax": lambda q, k, v: (scores(q, k).softmax(-1) * EARLIER) @ v,
    "a first row of what is later": lambda q, k, v: scores(q, k).masked_fill(BEFORE == 0, -1e9).softmax(-1) @ v,
}
LEAK = EARLIER.clone()
LEAK[7, 11] = 1


@pytest.mark.parametrize("form", LEAKS)
def test_a_mask_that_leaks_is_refused(form):
    with pytest.raises(
        NotCausal, match=r"it enters at aten\.(matmul|scaled_dot_product_attention) .*test_attention.py"
    ):
        compiled(Attending(LEAKS[form]))


def test_the_own_pixel_is_seen_too_early():
    with pytest.raises(NotCausal, match="its own pixel"):
        compiled(Attending(FORMS["sdpa"], own=True))


OTHER = {
    "a softmax over queries": lambda q, k, v: (scores(q, k) + EARLIER.log()).softmax(-2).nan_to_num() @ v,
    "a softmax over heads": lambda q, k, v: (scores(q, k) * EARLIER).softmax(1) * EARLIER @ v,
    "no softmax": lambda q, k, v: (scores(q, k) * EARLIER) @ v,
    "a sigmoid": lambda q, k, v: (scores(q, k).sigmoid() * EARLIER) @ v,
    "normalised again": lambda q, k, v: F.normalize((scores(q, k) + EARLIER.log()).softmax(-1), p=1, dim=-1) @ v,
    "two softmaxes": lambda q, k, v: ((scores(q, k) + EARLIER.log()).softmax(-1) + EARLIER.log()).softmax(-1) @ v,
    "scaled by position": lambda q, k, v: (
        (scores(q, k) * torch.arange(1.0, N + 1)[:, None] + EARLIER.log()).softmax(-1).matmul(v)
    ),
    "talking heads": lambda q, k, v: (
        torch.einsum(
            "bhij,hg->bgij", (scores(q, k) + EARLIER.log()).softmax(-1), torch.tensor([[0.5, 0.2], [0.1, 0.9]])
        )
        @ v
    ),
}


@pytest.mark.parametrize("form", OTHER)
def test_what_is_none_is_no_instruction(form):
    """It is refused, to be drawn by a full forward, or read as something else that equals the forward."""
    try:
        program = compiled(Attending(OTHER[form]))
    except (NotCausal, NotIncremental) as error:
        assert "attention" in str(error) or "later" in str(error) or "positions" in str(error), str(error)
    else:
        assert form == "scaled by position" and attention_of(program)


@pytest.mark.parametrize("seed", range(12))
def test_random_masks(seed):
    """Any mask that is causal, with any bias, is read; with one later entry it is refused."""
    generator = torch.Generator().manual_seed(seed)
    heads = 1 + seed % 2
    seen = (torch.rand(heads, N, N, generator=generator) < 0.4).tril()
    seen |= torch.eye(N, dtype=torch.bool)
    bias = torch.randn(heads, N, N, generator=generator).masked_fill(~seen, (-math.inf, -1e9, -6e4)[seed % 3])
    one = attention_of(compiled(Attending(lambda q, k, v: (scores(q, k) + bias).softmax(-1) @ v)))
    table = torch.from_numpy(one.table[0])
    assert torch.equal(table == -math.inf, ~seen[: len(table)])
    row = 5 * (seed % 4) + seed % 3  # the key of the pixel at its right knows that pixel
    bias[-1, row, row + 1] = 0.5
    with pytest.raises(NotCausal, match=rf"position {row} to position {row + 1}"):
        compiled(Attending(lambda q, k, v: (scores(q, k) + bias).softmax(-1) @ v))


def bare(heads=4, groups=2, depth=5, width=3, rows=3, columns=6, behind=0, kinds=0, seed=0):
    """A program of random attention to levels before, whose queries, keys and values are linear in them."""
    rng = np.random.default_rng(seed)
    n, whole = rows * columns, (0, rows, 0, columns)
    counts = (heads * depth, groups * depth, groups * width, heads * width)
    buffers = [Buffer(1, columns, left=1), *(Buffer(count, columns, rows=rows) for count in counts), Buffer(4, columns)]

    def linear(buffer, count, *reads):
        weight = rng.standard_normal((sum(read.count for read in reads), count)).astype(np.float32)
        bias = rng.standard_normal(count).astype(np.float32)
        return Instruction("linear", buffer, 0, count, whole, list(reads), weight, bias)

    pixel = [linear(at, counts[at - 1], Read(0, 0, -1, 0, 1)) for at in (1, 2, 3)]
    attention = Attention(heads, groups, depth, width, rows, columns, behind=behind)
    reads = [Read(at, 0, 0, 0, counts[at - 1]) for at in (1, 2, 3)]
    one = Instruction("attention", 4, 0, counts[3], whole, reads, attention=attention)
    if kinds:
        table = rng.standard_normal((kinds, heads, n, n)).astype(np.float32)
        table[0][:, rng.random((n, n)) < 0.3] = -np.inf
        one.table = table
    pixel += [one, linear(5, 4, Read(4, 0, 0, 0, counts[3]))]
    spec, likelihood = ImageSpec(1, rows, columns, 4), Categorical(1, 4)
    return Program(spec, likelihood, columns, 1.0, 0.0, 0, buffers, [], [pixel, []], [Read(5, 0, 0, 0, 4)])


BARE = [
    {},
    {"heads": 1, "groups": 1, "depth": 1, "width": 1},
    {"depth": 16, "width": 16, "rows": 1, "columns": 67},
    {"depth": 31, "width": 37, "behind": 1, "rows": 6, "columns": 7},
    {"width": 65, "behind": 3, "kinds": 1},
    {"kinds": 2, "rows": 9, "columns": 5},
]


@pytest.mark.parametrize("options", BARE, ids=str)
@pytest.mark.parametrize("n", [1, 5, 13])
def test_the_engines_agree(options, n):
    program = bare(**options)
    program.check()
    check_program(program, 2**31)
    want = ("parameters", "log_probs")
    drawn, expected = (run(engine, program, n, seed=3, want=want) for engine in (cpp, eager))
    assert torch.equal(drawn.images, expected.images)
    testing.assert_matches(drawn.parameters, expected.parameters, atol=1e-4)


@pytest.mark.parametrize("options", BARE, ids=str)
def test_bits_do_not_depend_on_batch_threads_or_isa(options):
    program, want, active = bare(**options), ("parameters", "log_probs"), genfast.backends()["cpp"]
    with testing.threads(1):
        whole = run(cpp, program, 13, seed=3, want=want)
        alone = [run(cpp, program, 1, seed=3, first=b, want=want) for b in range(13)]
    for name in want:
        parts = torch.cat([getattr(one, name) for one in alone])
        testing.assert_identical(parts, getattr(whole, name), name=f"{name}, image by image")
    for isa, count in [(active.isa, 2), (active.isa, 3), *((isa, 1) for isa in active.isas)]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = run(cpp, program, 13, seed=3, want=want)
        finally:
            genfast.set_isa(active.isa)
        assert torch.equal(got.images, whole.images)
        for name in want:
            testing.assert_identical(getattr(got, name), getattr(whole, name), name=f"{name} ({isa}, {count} threads)")


@pytest.mark.parametrize("name", ATTENDING)
def test_engines_of_strangers(name):
    """The same images from C++ and in plain torch, whose log-probabilities are those of scoring, bit for bit."""
    model, options = STRANGERS[name].build(), STRANGERS[name].options()
    engines = {backend: genfast.Engine(model, backend=backend, **options) for backend in ("cpp", "torch")}
    drawn = {key: engine.run(5, seed=1, want=("log_probs",)) for key, engine in engines.items()}
    assert torch.equal(drawn["cpp"].images, drawn["torch"].images)
    testing.assert_matches(drawn["cpp"].log_probs, drawn["torch"].log_probs, atol=1e-4)
    scored = engines["cpp"].log_prob(drawn["cpp"].images)
    assert torch.equal(scored, drawn["cpp"].log_probs.flatten(1).sum(1))


@pytest.mark.parametrize("name", ["NanoGptOverPixels", "PixelSnailBlocks"])
def test_verbs(name):
    """Filling in and lossless coding run the same program."""
    model, options = STRANGERS[name].build(), STRANGERS[name].options()
    images = genfast.sample(model, 6, seed=2, **options)
    known = torch.zeros(images.shape, dtype=torch.bool)
    known[..., : images.shape[2] // 2, :] = True
    filled = genfast.inpaint(model, images, known, seed=5, **options).images
    assert torch.equal(filled[known], images[known]) and not torch.equal(filled, images)
    engine = genfast.Engine(model, **options)
    assert torch.equal(genfast.decompress(genfast.compress(engine, images), engine), images)


def test_the_fused_layer_of_torch():
    """In evaluation torch runs a transformer's layer as one operation; the trace does not, and leaves that as it is."""
    model, options = STRANGERS["EncoderOfTorch"].build(), STRANGERS["EncoderOfTorch"].options()
    assert torch.backends.mha.get_fastpath_enabled()
    assert genfast.Engine(model, **options).backend == "cpp"
    assert torch.backends.mha.get_fastpath_enabled()


def test_too_many_positions_and_too_much_memory(monkeypatch):
    monkeypatch.setattr("genfast.engine.compiler.pairs.MOST_POSITIONS", N - 1)
    with pytest.raises(NotIncremental, match=rf"attention over {N} positions; it is for 2 to {N - 1}"):
        compiled(Attending(FORMS["sdpa"]))
    monkeypatch.undo()
    monkeypatch.setattr("genfast.engine.compiler.compile.MOST_MEMORY", 100)
    with pytest.raises(NotIncremental, match="scaled_dot_product_attention.* keys and values .* at most 100 bytes"):
        compiled(Attending(FORMS["sdpa"]))


def test_triton_refuses_by_name():
    engine = genfast.Engine(Attending(FORMS["sdpa"]), **GREY)
    assert engine.backend == "cpp" and engine.program.attention_bytes == 4 * 2 * N * 8
    assert "triton" in engine.explanation.others


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "counts must be"),
        ({"columns": 5}, "domain must lie in the grid"),
        ({"row": 1}, "domain must lie in the grid"),
        ({"depth": 4}, "counts must be"),
    ],
    ids=str,
)
def test_a_program_that_does_not_fit(change, message):
    program = bare()
    one = attention_of(program)
    one.attention = Attention(**(vars(one.attention) | change))
    with pytest.raises(ValueError, match=message):
        program.check()


def test_keys_that_are_not_all_kept():
    program = bare()
    program.buffers[2].rows = 2
    with pytest.raises(ValueError, match="keys and values must lie in buffer 2"):
        program.check()
