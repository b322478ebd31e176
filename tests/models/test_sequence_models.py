"""CharRNN and WaveNet: causality, sums to one, any length, streams, lossless coding, labels."""

import itertools

import pytest
import torch

import genfast
from genfast import models
from genfast.engine.endless import check_endless
from genfast.engine.engine import Engine
from genfast.models import CharRNN, CharRNNConfig, WaveNet, WaveNetConfig

V = 5


def make(name, levels=V, width=12, **options):
    """A model with weights that are not zero anywhere."""
    torch.manual_seed(0)
    if name == "wavenet":
        model = WaveNet(WaveNetConfig(levels=levels, width=width, hidden=6, layers=5, cycle=3, head=8, **options))
    else:
        model = CharRNN(CharRNNConfig(levels=levels, width=width, hidden=7, unit=name, **options))
    torch.nn.init.normal_(model.output.weight)
    return model.eval()


every = pytest.mark.parametrize("name", ["lstm", "gru", "wavenet"])


@every
def test_no_conditional_moves_with_its_own_symbol_or_a_later_one_and_all_do_with_earlier_ones(name):
    model = make(name, width=10)
    x = torch.randint(V, (1, 1, 1, 10), dtype=torch.uint8)
    with torch.no_grad():
        before = model(x)
        for place in range(10):
            other = x.clone()
            other[..., place] = (other[..., place] + 1) % V
            moved = (model(other) != before).flatten(1, 3)[0].any(0)
            assert moved.tolist() == [False] * (place + 1) + [True] * (9 - place)


@every
@torch.no_grad()
def test_probabilities_of_all_sequences_sum_to_one(name):
    model = make(name, width=4)
    sequences = torch.tensor(list(itertools.product(range(V), repeat=4)), dtype=torch.uint8)
    assert float(model.log_prob(sequences[:, None, None]).exp().sum()) == pytest.approx(1, abs=1e-5)


@every
@torch.no_grad()
def test_the_engine_has_the_log_probabilities_of_the_model(name):
    model = make(name)
    assert Engine(model).backend == "cpp"
    x = genfast.sample(model, 5, seed=1)
    assert x.shape == (5, 1, 1, 12)
    expected = model.log_prob(x).double()
    torch.testing.assert_close(genfast.log_prob(model, x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(genfast.log_prob(model, x[:, 0, 0], length=12), expected, atol=1e-5, rtol=0)


@every
def test_sequences_of_any_length_begin_alike(name):
    model = make(name)
    x = genfast.sample(model, 3, length=600, seed=2)
    assert x.shape == (3, 600) and x.dtype == torch.uint8
    assert torch.equal(genfast.sample(model, 3, seed=2)[:, 0, 0], x[:, :12])
    assert torch.equal(genfast.sample(model, 3, length=600, seed=2, given=x[:, :300]), x)
    endless = genfast.stream(model, 3, length=None, seed=2, chunk=77)
    assert torch.equal(torch.cat(list(itertools.islice(endless, 8)), 1)[:, :600], x)
    with torch.no_grad():
        longer = model.of_length(600).log_prob(x[:, None, None]).double()
    torch.testing.assert_close(genfast.log_prob(model, x, length=600), longer, atol=1e-3, rtol=0)


def test_a_model_of_another_length_shares_the_weights():
    model = make("lstm")
    other = model.of_length(30)
    assert other.spec.shape == (1, 1, 30) and model.spec.shape == (1, 1, 12)
    assert next(other.parameters()) is next(model.parameters())
    check_endless("stream", Engine(model, length=64))


@every
def test_lossless_coding(name):
    model = make(name)
    x = torch.randint(V, (9, 1, 1, 12), dtype=torch.uint8)
    assert torch.equal(genfast.decompress(genfast.compress(model, x), model), x)


def test_labels_of_a_wavenet():
    model = make("wavenet", classes=3)
    labels = torch.tensor([0, 1, 2, 1])
    x = genfast.sample(model, 4, length=300, labels=labels)
    with torch.no_grad():
        expected = model.of_length(300).log_prob(x[:, None, None], labels).double()
    torch.testing.assert_close(genfast.log_prob(model, x, labels, length=300), expected, atol=1e-3, rtol=0)
    others = genfast.log_prob(model, x, (labels + 1) % 3, length=300)
    assert ((others - expected).abs() > 0.1).all()


def test_a_new_model_has_zero_outputs():
    for name in ("char-rnn", "wavenet"):
        model = models.build(name, levels=4, width=3, hidden=4)
        x = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
        assert float(model.log_prob(x)) == pytest.approx(-3 * torch.log(torch.tensor(4.0)).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alphabet": "abc"}, "alphabet must be the 5 characters of its levels"),
        ({"height": 2}, "height must be"),
        ({"width": 0}, "width must be"),
        ({"unit": "rnn"}, "unit must be"),
    ],
)
def test_settings_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        CharRNNConfig(levels=V, **options)


def test_arguments_that_do_not_fit():
    model = make("lstm")
    with pytest.raises(ValueError, match="length must lie in"):
        genfast.sample(model, 1, length=0)
    with pytest.raises(TypeError, match="length must be an int"):
        genfast.sample(model, 1, length="long")
    with pytest.raises(ValueError, match="vocabulary must be None for a CharRNN"):
        genfast.sample(model, 1, length=5, vocabulary=V)
