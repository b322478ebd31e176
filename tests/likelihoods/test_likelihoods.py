"""Every likelihood against the sum over all levels, its own draws, and the ops."""

import itertools
import math

import numpy as np
import pytest
import torch

from genfast.likelihoods import LIKELIHOODS, decoder_likelihoods, heads, likelihood, read_output, softmax
from genfast.likelihoods.layout import parse_layout

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
    mixtures = ["mixture", "mixture-per-channel", "mixture-interleaved"]
    named = ["bernoulli", "categorical", "categorical-levels-first", *mixtures, "probabilities", "log-probabilities"]
    assert list(heads()) == named
    assert softmax(3, 2).name == "bernoulli" and softmax(3, 4).name == "categorical"
    with pytest.raises(ValueError, match="^likelihood must be one of .*; got 'poisson'"):
        likelihood("poisson", 1, 2)
    with pytest.raises(ValueError, match="^likelihood bernoulli must have 2 levels; got 3"):
        likelihood("bernoulli", 1, 3)
    with pytest.raises(ValueError, match="^likelihood mixture must have 1 or 3 channels"):
        likelihood("mixture", 2, 3)


def read(shape, channels, height, width, levels, head=None, output=None):
    layout = None if output is None else parse_layout("call", output)
    sizes = {"channels": channels, "height": height, "width": width, "levels": levels}
    return read_output("call", torch.zeros(shape), **sizes, head=head, layout=layout)


@pytest.mark.parametrize(
    "shape, sizes, head, output, expected, layout",
    [
        ((2, 1, 5, 7), (1, 5, 7, 2), None, None, "bernoulli", "B C H W"),
        ((2, 3, 5, 7), (3, 5, 7, 2), None, None, "bernoulli", "B C H W"),
        ((2, 5, 7), (1, 5, 7, 2), None, None, "bernoulli", "B H W"),
        ((2, 35), (1, 5, 7, 2), None, None, "bernoulli", "B (C H W)"),
        ((2, 256, 5, 7), (1, 5, 7, 256), None, None, "categorical", "B L H W"),
        ((2, 5, 7, 256), (1, 5, 7, 256), None, None, "categorical", "B H W L"),
        ((2, 35, 256), (1, 5, 7, 256), None, None, "categorical", "B (H W) L"),
        ((70, 256), (1, 5, 7, 256), None, None, "categorical", "(B H W) L"),
        ((2, 3, 256, 5, 7), (3, 5, 7, 256), None, None, "categorical", "B C L H W"),
        ((2, 256, 3, 5, 7), (3, 5, 7, 256), None, None, "categorical", "B L C H W"),
        ((2, 256, 3, 5, 7), (3, 5, 7, 256), "categorical", None, "categorical", "B L C H W"),
        ((2, 3, 5, 7, 256), (3, 5, 7, 256), None, None, "categorical", "B C H W L"),
        ((2, 5, 7, 3, 256), (3, 5, 7, 256), None, None, "categorical", "B H W C L"),
        ((2, 768, 5, 7), (3, 5, 7, 256), "categorical", None, "categorical", "B (C L) H W"),
        ((2, 768, 5, 7), (3, 5, 7, 256), "categorical-levels-first", None, "categorical-levels-first", "B (L C) H W"),
        ((2, 768, 5, 7), (3, 5, 7, 256), None, "B (L C) H W", "categorical", "B (L C) H W"),
        ((2, 6, 5, 7), (2, 5, 7, 3), "categorical", None, "categorical", "B (C L) H W"),
        ((2, 30, 5, 7), (3, 5, 7, 256), "mixture", None, "mixture", "B P H W"),
        ((2, 5, 7, 30), (3, 5, 7, 256), "mixture-per-channel", None, "mixture-per-channel", "B H W P"),
        ((2, 4, 5, 7), (1, 5, 7, 4), "probabilities", None, "probabilities", "B L H W"),
    ],
)
def test_how_an_output_is_read(shape, sizes, head, output, expected, layout):
    reading = read(shape, *sizes, head, output)
    assert (reading.head, str(reading.layout)) == (expected, layout)
    channels, height, width, levels = sizes
    count = reading.likelihood.parameters
    assert sorted(reading.index) == list(range(count)) and reading.likelihood.channels == channels
    # Every value of the output is marked with its place: the reading must find (b, c, level, row, column).
    marked = torch.arange(math.prod(shape), dtype=torch.float32).view(shape)
    got = reading.outputs(marked)
    assert got.shape == (2, count, height, width)
    one = reading.outputs(marked, place=(3, 4))
    assert torch.equal(one, got[:, :, 3, 4])
    if "P" not in layout:
        letters = layout.replace("(", "").replace(")", "").split()
        named = dict(zip("CHWL", sizes)) | {"B": 2}
        split = marked.view([named[letter] for letter in letters])
        assert torch.equal(
            got.unflatten(1, (channels, -1))[1, 0, -1, 3, 4],
            split[tuple({"B": 1, "C": 0, "L": -1, "H": 3, "W": 4}[letter] for letter in letters)],
        )


def test_the_orders_of_a_mixture():
    """Each order, applied to numbered outputs, gives ours: logits, means, log-scales, coefficients."""
    size = 2
    for channels, kinds in ((3, 10), (1, 3)):
        named = [("logit", None, k) for k in range(size)]
        for kind in ("mean", "scale", *(("coefficient",) if channels == 3 else ())):
            named += [(kind, c, k) for c in range(channels) for k in range(size)]
        per_channel = [("logit", None, k) for k in range(size)]
        for c in range(channels):
            for kind in ("mean", "scale", *(("coefficient",) if channels == 3 else ())):
                per_channel += [(kind, c, k) for k in range(size)]
        interleaved = sorted(
            named, key=lambda p: (p[2], ["logit", "mean", "scale", "coefficient"].index(p[0]), p[1] or 0)
        )
        for head, order in (("mixture-per-channel", per_channel), ("mixture-interleaved", interleaved)):
            reading = read((2, kinds * size, 4, 5), channels, 4, 5, 8, head)
            assert [order[i] for i in reading.index] == named, head


@pytest.mark.parametrize(
    "shape, sizes, head, output, message",
    [
        ((2, 768, 5, 7), (3, 5, 7, 256), None, None, r"output must say how the output is laid out, 'B \(C L\) H W' or"),
        ((2, 3, 3, 5, 7), (3, 5, 7, 3), None, None, "output must say how the output is laid out"),
        ((2, 4, 4, 4), (1, 4, 4, 4), None, None, "output must say .* 'B L H W' or 'B H W L'"),
        ((2, 5, 5, 7), (1, 5, 7, 4), None, None, r"the model must return 4 values for each pixel \(C=1, .*L=4\); got"),
        ((2, 4, 5, 7), (1, 5, 7, 4), "mixture", None, "the model must return 3K or 10K values .*head mixture"),
        ((2, 50, 5, 7), (3, 5, 7, 256), None, None, "the model must return 768 .*head='mixture-per-channel'"),
        ((2, 4, 5, 7), (1, 5, 7, 4), "softmax", None, "head must be one of bernoulli, .*; got 'softmax'"),
        ((2, 4, 5, 7), (1, 5, 7, 4), None, "B H W L", "the model must return an output of the layout 'B H W L'"),
    ],
)
def test_an_output_that_cannot_be_read(shape, sizes, head, output, message):
    with pytest.raises(ValueError, match=f"^call: {message}"):
        read(shape, *sizes, head, output)


def test_entries_of_tuples_and_dicts():
    logits, other = torch.zeros(2, 4, 5, 7), torch.zeros(2, 9)
    sizes = {"channels": 1, "height": 5, "width": 7, "levels": 4}
    assert read_output("call", (other, logits), **sizes).layout.entry == 1
    assert read_output("call", {"z": other, "logits": logits}, **sizes).layout.entry == "logits"
    named = read_output("call", [logits, logits], **sizes, layout=parse_layout("call", "0: B L H W"))
    assert named.layout.entry == 0
    with pytest.raises(ValueError, match="output must say .* '0: B L H W' or '1: B L H W'"):
        read_output("call", [logits, logits], **sizes)
    with pytest.raises(ValueError, match="output must name an entry .* got 'x'"):
        read_output("call", {"y": logits}, **sizes, layout=parse_layout("call", "x: B L H W"))
