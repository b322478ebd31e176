"""Models of sequences: sampling, streams, log-probabilities, and what is refused."""

import itertools
import warnings

import pytest
import torch
from scipy import stats
from support.sequence_models import (
    Centred,
    Learned,
    Made,
    Masked,
    Mixing,
    Own,
    Recurrent,
    Reversed,
    Transformer,
    V,
    WaveNet,
    Windowed,
    WithLoss,
)
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine import cpp
from genfast.engine.compiler import NotCausal
from genfast.engine.request import SampleRequest

T = 10
SIZES = {"length": T, "vocabulary": V}
# name -> (makes a model, its keywords): all of the next symbol but "own".
MODELS = {
    "lstm": (Recurrent, {"start": 3}),
    "gru": (lambda: Recurrent(nn.GRU), {"start": 3}),
    "rnn": (lambda: Recurrent(nn.RNN), {"start": 3}),
    "lstm, a start beside the vocabulary": (lambda: Recurrent(rows=1), {"start": V}),
    "lstm without a start": (Recurrent, {}),
    "own": (Own, {}),
    "padded": (WaveNet, {"start": 0}),
    "cropped": (lambda: WaveNet("crop"), {"start": 0}),
    "shifted": (lambda: WaveNet("shift"), {"start": 0}),
    "one-hot": (lambda: WaveNet(inputs=V), {"start": 1, "inputs": "one-hot"}),
    "transformer": (Transformer, {"start": 1}),
    "values": (lambda: WaveNet(inputs=1), {"start": 1, "inputs": "values", "input_range": (-1, 1)}),
}


@pytest.fixture(autouse=True)
def quiet():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", genfast.UncheckedModel)
        yield


def engine_of(name, length=T, **options):
    make, keywords = MODELS[name]
    return genfast.Engine(make().eval(), length=length, vocabulary=V, **keywords, **options)


def own_log_probs(engine, x):
    """log p of each symbol that is counted, [n, counted], by the forward of the model itself."""
    model, sequences = engine.model, engine.conventions.sequences
    start = sequences.start
    inputs = x.long() if start is None else torch.cat([torch.full_like(x[:, :1], start), x[:, :-1]], 1).long()
    if sequences.inputs == "one-hot":
        inputs = F.one_hot(inputs, V).float().transpose(1, 2)
    if sequences.inputs == "values":
        inputs = (inputs[:, None] / (V - 1)) * 2 - 1
    with torch.no_grad():
        output = model(inputs)
    logits = output[0] if isinstance(output, tuple) else output
    logits = logits if logits.shape[2] == V else logits.transpose(1, 2)
    if sequences.delay:
        logits, x = logits[:, :-1], x[:, 1:]
    return logits.double().log_softmax(-1).gather(2, x.long()[..., None])[..., 0]


def prompt(engine, n=1):
    return torch.full((n, 1), 2) if engine.conventions.sequences.delay else None


@pytest.mark.parametrize("name", MODELS)
def test_models_are_captured_and_log_prob_is_that_of_their_own_forward(name):
    engine = engine_of(name)
    assert engine.backend == "cpp"
    assert engine.conventions.sequences.predicts == ("own" if name == "own" else "next")
    x = genfast.sample(engine, 6, seed=1, given=prompt(engine))
    assert x.shape == (6, T) and x.dtype == torch.uint8
    expected = own_log_probs(engine, x)
    assert expected.shape[1] == engine.conventions.sequences.counted
    torch.testing.assert_close(genfast.log_prob(engine, x), expected.sum(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_other_backends_draw_the_same(name):
    x = genfast.sample(engine := engine_of(name), 6, seed=1, given=prompt(engine))
    for backend in ("torch", "full_forward"):
        other = genfast.Engine(engine.model, backend=backend, **SIZES, **MODELS[name][1])
        assert torch.equal(genfast.sample(other, 6, seed=1, given=prompt(engine)), x)
        torch.testing.assert_close(genfast.log_prob(other, x), genfast.log_prob(engine, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["lstm", "lstm without a start", "own", "padded", "transformer"])
def test_probabilities_of_all_sequences_sum_to_one(name):
    make, keywords = MODELS[name]
    every = torch.tensor(list(itertools.product(range(V), repeat=4)))
    log_probs = genfast.log_prob(make().eval(), every, length=4, vocabulary=V, **keywords)
    # Without a start the first symbol is not counted: one for each of its values.
    total = V if name == "lstm without a start" else 1
    assert float(log_probs.exp().sum()) == pytest.approx(total, abs=1e-5)


def test_draws_have_the_probabilities_of_the_model():
    engine = engine_of("lstm", length=3)
    n = 1_000_000
    x = genfast.sample(engine, n, seed=7).long()
    observed = torch.bincount(x @ torch.tensor([V * V, V, 1]), minlength=V**3)
    every = torch.tensor(list(itertools.product(range(V), repeat=3)))
    expected = genfast.log_prob(engine, every).exp().numpy()
    assert stats.chisquare(observed.numpy(), expected / expected.sum() * n).pvalue > 1e-4


@pytest.mark.parametrize(
    "name", ["lstm", "gru", "lstm without a start", "padded", "cropped", "own", "transformer", "values"]
)
def test_chunks_of_any_size_give_the_whole(name):
    length = 600  # longer than a window
    engine = engine_of(name, length)
    given = torch.tensor([[1, 2, 0]])
    whole = genfast.sample(engine, 3, seed=5, given=given)
    at_once = cpp.run(engine.program, request_of(engine, given, length)).images[:, 0, 0]
    assert torch.equal(whole, at_once)
    for chunk in (1, 37, 256, 599, 1000):
        parts = list(genfast.stream(engine, 3, seed=5, given=given, chunk=chunk))
        assert [part.shape[1] for part in parts[:-1]] == [chunk] * (len(parts) - 1)
        assert torch.equal(torch.cat(parts, 1), whole)


def request_of(engine, given, length):
    placed = torch.zeros(3, 1, 1, length, dtype=torch.uint8)
    placed[..., : given.shape[1]] = given
    known = (torch.arange(length) < given.shape[1]).expand(3, 1, 1, length)
    return SampleRequest(3, seed=5, given=placed, known=known)


@pytest.mark.parametrize("name", ["lstm", "lstm without a start", "padded", "cropped"])
def test_a_stream_without_an_end_begins_as_one_with(name):
    make, keywords = MODELS[name]
    model, given = make().eval(), torch.tensor([[1, 2, 0]])
    whole = genfast.sample(model, 2, seed=5, given=given, length=900, vocabulary=V, **keywords)
    endless = genfast.stream(model, 2, seed=5, given=given, vocabulary=V, chunk=100, **keywords)
    assert torch.equal(torch.cat(list(itertools.islice(endless, 9)), 1), whole)
    assert next(endless).shape == (2, 100)


def test_symbols_that_are_no_columns():
    """A layer over all symbols at once is run value by value."""
    engine = genfast.Engine(Made(T).eval(), **SIZES)
    assert engine.backend == "cpp" and engine.conventions.sequences.predicts == "own"
    x = genfast.sample(engine, 6, seed=1)
    assert torch.equal(x, genfast.sample(genfast.Engine(engine.model, backend="full_forward", **SIZES), 6, seed=1))
    assert torch.equal(torch.cat(list(genfast.stream(engine, 6, seed=1, chunk=3)), 1), x)
    torch.testing.assert_close(genfast.log_prob(engine, x), own_log_probs(engine, x).sum(1), atol=1e-5, rtol=0)


def test_what_depends_on_the_position_has_an_end():
    with pytest.raises(ValueError, match="length must be an int for this model: its output depends on the position"):
        genfast.stream(Learned(), vocabulary=V, start=0)
    with pytest.raises(ValueError, match="length must be an int for this model: it attends to all symbols so far"):
        genfast.stream(Transformer(), vocabulary=V, start=0)
    x = torch.cat(list(genfast.stream(Learned(), 2, length=300, vocabulary=V, start=0, chunk=70)), 1)
    assert x.shape == (2, 300)


class Far(nn.Module):
    """Reads 3,000 symbols back, further than the program of an endless stream."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(V, 8), nn.Linear(8, V)

    def forward(self, x):
        h = self.embedding(x)
        return self.out(h + 3 * F.pad(h, (0, 0, 3000, 0))[:, : x.shape[1]])


def test_a_stream_without_an_end_is_compared_with_the_forward_beyond_its_program():
    with pytest.raises(ValueError, match="beyond 2048 symbols its forward differs"):
        genfast.stream(Far(), vocabulary=V, start=0)


def test_a_prompt_equals_the_same_symbols_drawn():
    engine = engine_of("lstm")
    x = genfast.sample(engine, 4, seed=2)
    for length in (1, 4, T):
        assert torch.equal(genfast.sample(engine, 4, seed=2, given=x[:, :length]), x)
    others = genfast.sample(engine, 4, seed=2, given=torch.tensor([[4, 4]]))
    assert (others[:, :2] == 4).all()


def test_bits_do_not_depend_on_batches_threads_or_the_first_index():
    engine = engine_of("padded", 300)
    x, threads = genfast.sample(engine, 7, seed=3), torch.get_num_threads()
    log_probs = genfast.log_prob(engine, x)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert torch.equal(genfast.sample(engine, 7, seed=3, batch_size=2), x)
            assert torch.equal(genfast.sample(engine, 3, seed=3, first=4), x[4:])
            assert torch.equal(genfast.log_prob(engine, x[2:]), log_probs[2:])
    finally:
        torch.set_num_threads(threads)


def test_log_prob_is_that_of_the_draws_bit_for_bit():
    engine = engine_of("lstm", 300)
    drawn = engine.run(5, seed=1, want=("log_probs",))
    assert torch.equal(drawn.log_probs.flatten(1).sum(1), engine.log_prob(drawn.images))


def test_many_symbols_are_int32():
    x = genfast.sample(Recurrent(vocabulary=1000), 2, length=5, vocabulary=1000, start=0)
    assert x.dtype == torch.int32 and x.shape == (2, 5)


def test_the_last_position_alone_takes_what_makes_it_return_all():
    model, targets = WithLoss(), torch.zeros(1, T, dtype=torch.long)
    with pytest.raises(ValueError, match=r"returns the last position alone: give .* condition=\{'targets': "):
        genfast.sample(model, 2, **SIZES)
    x = genfast.sample(model, 2, start=0, condition={"targets": targets}, **SIZES)
    inputs = torch.cat([torch.zeros(2, 1, dtype=torch.long), x[:, :-1].long()], 1)
    expected = -F.cross_entropy(model(inputs, inputs)[0].transpose(1, 2), x.long(), reduction="none").sum(1)
    got = genfast.log_prob(model, x, start=0, condition={"targets": targets}, **SIZES)
    torch.testing.assert_close(got, expected.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "keywords", "error", "text"),
    [
        (Windowed, {}, ValueError, "keeps a window of 4 symbols: give length=4 at most"),
        (lambda: Recurrent(vocabulary=4), {}, ValueError, "embedding rows for vocabulary=5"),
        (lambda: Recurrent(vocabulary=7), {}, ValueError, r"must return logits \[B, T, V\] or \[B, V, T\]"),
        (Recurrent, {"predicts": "own"}, ValueError, "predicts must be 'next' .* got 'own'"),
        (Own, {"start": 0}, ValueError, "start must be None for a model whose output at t is of symbol t"),
        (Recurrent, {"start": 9}, ValueError, "embedding rows"),
        (Recurrent, {"start": -1}, ValueError, "start must be an int"),
        (Recurrent, {"predicts": "both"}, ValueError, "predicts must be 'own' or 'next'"),
        (Recurrent, {"inputs": "codes"}, ValueError, "inputs must be one of symbols, one-hot"),
        (Recurrent, {"shape": (1, 1, 4)}, ValueError, "shape must be None for a model of sequences"),
        (Recurrent, {"length": 0}, ValueError, "length must be an int, at least 1; got 0"),
        (Recurrent, {"vocabulary": 1}, ValueError, "vocabulary must be an int, 2 to"),
        (Recurrent, {}, ValueError, "given must hold the first symbol .* got neither"),
        (Recurrent, {"given": torch.zeros(1, 0, dtype=torch.long)}, ValueError, "given must have shape .* of 1 to 10"),
        (Recurrent, {"given": torch.zeros(1, 11, dtype=torch.long)}, ValueError, "given must have shape"),
        (Recurrent, {"given": torch.full((1, 2), V)}, ValueError, r"given must lie in 0\.\.4; got 5"),
        (Recurrent, {"given": torch.zeros(1, 2)}, TypeError, "given must hold levels as integers"),
        (lambda: Recurrent(bidirectional=True), {}, NotCausal, "a bidirectional LSTM, which reads what comes later"),
        (Reversed, {}, NotCausal, "must be causal; .* aten.lstm at layers"),
        (Centred, {}, NotCausal, r"\+1 columns away, drawn later; it enters at aten.embedding at embedding"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, keywords, error, text):
    with pytest.raises(error, match=text):
        genfast.sample(make(), 2, **(SIZES | keywords))


@pytest.mark.parametrize("low", [-1e4, -1e9])
def test_a_symbol_that_is_never_drawn_hides_no_leak(low):
    """Its logit is no measure of the others."""
    with pytest.raises(NotCausal), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        genfast.sample(Masked(Reversed(), low), 2, predicts="next", start=1, **SIZES)
    engine = genfast.Engine(Masked(Transformer(), low).eval(), start=1, **SIZES)
    x = genfast.sample(engine, 64, seed=1)
    assert engine.backend == "cpp" and engine.conventions.sequences.predicts == "next" and not (x == 0).any()
    torch.testing.assert_close(genfast.log_prob(engine, x), own_log_probs(engine, x).sum(1), atol=1e-5, rtol=0)


def test_a_model_that_mixes_its_batch_is_refused():
    with pytest.raises(ValueError, match="does forward mix the batch"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        genfast.sample(Mixing(Transformer()).eval(), 2, start=1, **SIZES)


def test_the_first_symbol_is_drawn_by_no_verb_without_a_start():
    engine = engine_of("lstm without a start")
    x = torch.zeros(2, 1, 1, T, dtype=torch.uint8)
    with pytest.raises(ValueError, match="inpaint: given must hold the first symbol"):
        genfast.inpaint(engine, x, torch.zeros_like(x, dtype=torch.bool))


def test_what_predicts_follows_the_weights():
    """A gate that is still closed shows another symbol than one that is open."""

    class Gated(Recurrent):
        def __init__(self):
            super().__init__()
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            y = super().forward(x)[0]
            return F.pad(y, (0, 0, 1, 0))[:, :-1] + self.gate * y

    model = Gated().eval()
    assert genfast.Engine(model, **SIZES).conventions.sequences.predicts == "own"
    model.gate.data.fill_(1.0)
    assert genfast.Engine(model, **SIZES).conventions.sequences.predicts == "next"


def test_predicts_is_asked_for_where_no_output_moves():
    model = Recurrent()
    nn.init.zeros_(model.out.weight)
    with pytest.raises(ValueError, match="predicts must be given for a model whose outputs do not move"):
        genfast.sample(model, 2, **SIZES)
    assert genfast.sample(model, 2, predicts="next", start=0, **SIZES).shape == (2, T)


def test_next_is_doubted_where_no_output_moves_with_its_own_symbol():
    with pytest.warns(RuntimeWarning, match="predicts should be 'own'"):
        genfast.sample(Own(), 2, predicts="next", given=torch.tensor([[1]]), **SIZES)


def test_layouts_are_named_in_letters_of_sequences():
    model = Recurrent(vocabulary=V)
    x = genfast.sample(model, 2, length=V, vocabulary=V, start=0, output="0: B T V")
    assert x.shape == (2, V)
    with pytest.raises(ValueError, match="layout"):
        genfast.sample(model, 2, start=0, output="0: B V T", **SIZES)


def test_check_compares_with_the_loss_of_the_author():
    model, x = Recurrent(rows=1).eval(), torch.randint(V, (3, T))

    def of_the_rest(x):
        return F.cross_entropy(model(x[:, :-1].long())[0].transpose(1, 2), x[:, 1:].long())

    def of_all(x):
        before = torch.cat([torch.full((len(x), 1), V), x[:, :-1].long()], 1)
        return F.cross_entropy(model(before)[0].transpose(1, 2), x.long(), reduction="none").sum(1)

    assert genfast.check(model, x, of_the_rest, **SIZES).ok
    assert genfast.check(model, x, of_all, start=V, **SIZES).ok
    wrong = genfast.check(model, x, of_the_rest, start=V, **SIZES)
    assert not wrong.ok and wrong.remedy.startswith("start=None")
    wrong = genfast.check(model, x, of_all, start=1, **SIZES)
    assert not wrong.ok and wrong.remedy.startswith(f"predicts='next' and start={V}")


def test_a_stream_takes_chunks_of_sequences_alone():
    with pytest.raises(ValueError, match="batch_size must be None"):
        genfast.stream(Recurrent(), 2, batch_size=2, start=0, **SIZES)
    with pytest.raises(ValueError, match="chunk must lie in"):
        genfast.stream(Recurrent(), 2, chunk=0, start=0, **SIZES)
