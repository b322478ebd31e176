"""Every likelihood against the sum over all levels, its own draws, and the ops."""

import itertools
import math

import numpy as np
import pytest
import torch

from genfast.likelihoods import LIKELIHOODS, decoder_likelihoods, heads, likelihood, read_output, softmax

SIZES = {"bernoulli": (3, 2), "categorical": (2, 5), "gaussian": (2, 7), "mixture": (3, 4)}
every = pytest.mark.parametrize("name", LIKELIHOODS)
ENGINE = [name for name, cls in LIKELIHOODS.items() if cls.case is not None]


def with_parameters(name, n=2, height=2, width=3, seed=0):
    one = likelihood(name, *SIZES[name], mixtures=2)
    generator = torch.Generator().manual_seed(seed)
    return one, torch.randn(n, one.parameters, height, width, generator=generator)


@every
def test_the_probabilities_of_all_values_of_a_pixel_sum_to_one(name):
    """A density per level does so but for its tails, which are short here, and for the width of a level."""
    one, parameters = with_parameters(name, n=1, height=1, width=1)
    if one.is_density:
        parameters = torch.tensor([0.1, -0.2, -2.0, -2.2]).view(1, 4, 1, 1)
    values = torch.tensor(list(itertools.product(range(one.levels), repeat=one.channels)), dtype=torch.uint8)
    nll = one.nll(values[:, :, None, None], parameters.double().expand(len(values), -1, -1, -1))
    total = float((-nll.double()).exp().sum())
    assert total == pytest.approx(1, abs=2e-2 if one.is_density else 1e-9)


@every
def test_the_mean_is_that_of_the_levels_where_it_says_so(name):
    one, parameters = with_parameters(name, n=1, height=1, width=1)
    if not one.expected_is_exact:
        return
    log_levels = one.log_levels(parameters.double())
    levels = torch.arange(one.levels, dtype=torch.float64)
    torch.testing.assert_close(one.expected(parameters.double()), (log_levels.exp() * levels).sum(-1))


@every
def test_a_weight_of_zero_leaves_a_value_out(name):
    one, parameters = with_parameters(name)
    x = torch.randint(one.levels, (2, one.channels, 2, 3), dtype=torch.uint8)
    weight = torch.ones_like(x, dtype=torch.bool)
    weight[:, :, 0, 0] = False
    other = x.clone()
    other[:, :, 0, 0] = (x[:, :, 0, 0] + 1) % one.levels
    torch.testing.assert_close(one.nll(x, parameters, weight), one.nll(other, parameters, weight))
    torch.testing.assert_close(one.nll(x, parameters, torch.ones_like(weight)), one.nll(x, parameters))


@every
def test_draws_depend_on_seed_and_number_alone(name):
    one, parameters = with_parameters(name, n=6)
    whole = one.draw(parameters, 3, 10)
    assert torch.equal(one.draw(parameters[2:4], 3, 12), whole[2:4]) and whole.dtype == torch.uint8
    assert not torch.equal(one.draw(parameters, 4, 10), whole) and int(whole.max()) < one.levels


@pytest.mark.parametrize("name", ENGINE)
def test_one_draw_after_another_has_the_log_probability_of_the_image(name):
    one, parameters = with_parameters(name)
    x = one.draw(parameters, 1)
    values, total = x.flatten(2).transpose(1, 2), 0.0
    for k, part in enumerate(parameters.split(one.counts, 1)):
        total += one.log_prob(part.flatten(2).transpose(1, 2), values[:, :, one.drawn_channels(k)]).sum(1)
    torch.testing.assert_close(total.float(), -one.nll(x, parameters), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ENGINE if LIKELIHOODS[name].takes_evidence])
def test_evidence_weighs_the_levels(name):
    """By frequencies: 20,000 draws of one value."""
    one = likelihood(name, 1, SIZES[name][1])
    logits, evidence = torch.randn(1, one.parameters).double(), torch.randn(1, one.levels).double()
    u = torch.from_numpy(np.random.default_rng(0).random((1, 20_000, 1)))
    levels = one.draw_levels(logits.expand(20_000, -1), u, 1.3, evidence.expand(20_000, -1))
    expected = (one.log_probabilities(logits, 1.3) + evidence).softmax(-1)[0]
    frequencies = torch.bincount(levels[:, 0].long(), minlength=one.levels) / 20_000
    torch.testing.assert_close(frequencies.double(), expected, atol=0.015, rtol=0)
    sums = one.log_evidence(logits[:, None], 1.3, evidence[:, None])
    torch.testing.assert_close(sums, (one.log_probabilities(logits, 1.3) + evidence).logsumexp(-1)[:, None])


def test_the_registry_and_its_names():
    assert set(decoder_likelihoods()) == {"bernoulli", "gaussian", "mixture"}
    assert list(heads()) == ["bernoulli", "categorical", "categorical-levels-first", "mixture"]
    assert softmax(3, 2).name == "bernoulli" and softmax(3, 4).name == "categorical"
    with pytest.raises(ValueError, match="^likelihood must be one of .*; got 'poisson'"):
        likelihood("poisson", 1, 2)
    with pytest.raises(ValueError, match="^likelihood bernoulli must have 2 levels; got 3"):
        likelihood("bernoulli", 1, 3)
    with pytest.raises(ValueError, match="^likelihood mixture must have 1 or 3 channels"):
        likelihood("mixture", 2, 3)


@pytest.mark.parametrize(
    "features, channels, levels, head, expected",
    [
        ((1,), 1, 2, None, "bernoulli"),
        ((3,), 3, 2, None, "bernoulli"),
        ((256,), 1, 256, None, "categorical"),
        ((3, 256), 3, 256, None, "categorical"),
        ((256, 3), 3, 256, None, "categorical-levels-first"),
        ((30,), 3, 256, "mixture", "mixture"),
        ((6,), 2, 3, "categorical", "categorical"),
    ],
)
def test_how_an_output_is_read(features, channels, levels, head, expected):
    reading = read_output("call", features, channels, levels, head)
    count = math.prod(features)
    assert reading.head == expected and sorted(reading.index) == list(range(count))
    assert reading.likelihood.parameters == count and reading.likelihood.channels == channels
    if expected == "categorical-levels-first":
        marked = np.arange(count).reshape(levels, channels)
        assert (marked.reshape(-1)[reading.index].reshape(channels, levels) == marked.T).all()
    else:
        assert reading.is_ordered


@pytest.mark.parametrize(
    "features, channels, levels, head, message",
    [
        ((768,), 3, 256, None, "head must say how the output is ordered, .*; got None"),
        ((3, 3), 3, 3, None, "head must say how the output is ordered"),
        ((5,), 1, 4, None, r"the model must return 4 values for each pixel \(C=1, L=4\); got 5"),
        ((4,), 1, 4, "mixture", r"the model must return 3K or 10K values .*head mixture, C=1, L=4\); got 4"),
        ((4,), 1, 4, "softmax", "head must be one of bernoulli, .*; got 'softmax'"),
    ],
)
def test_an_output_that_cannot_be_read(features, channels, levels, head, message):
    with pytest.raises(ValueError, match=f"^call: {message}"):
        read_output("call", features, channels, levels, head)
