"""What a foreign model takes and returns, said by keywords, by an `Engine` made of them, or read from its graph."""

import itertools
import re

import numpy as np
import pytest
import torch
from support.anyone import Function, Masked, alive, assert_right, entered, log_softmax_of, plain, some
from torch import nn

import genfast
from genfast.engine.conventions import conventions_of, rows_of

SHAPE = (1, 3, 4)
FITTING = {"shape": SHAPE, "levels": 4, "input_range": (0, 1)}
ONE = torch.zeros(1, 2)

REFUSED = [
    ({"shape": None}, r"shape must be \(channels, height, width\) for a Sequential; got None"),
    ({"shape": 12}, r"shape must be \(channels, height, width\); got 12"),
    ({"shape": (3, 4)}, r"shape must be .*; got \(3, 4\)"),
    ({"shape": (1, 0, 4)}, r"shape must be .*; got \(1, 0, 4\)"),
    ({"shape": (1, 3.0, 4)}, r"shape must be .*; got \(1, 3.0, 4\)"),
    ({"shape": (True, 3, 4)}, r"shape must be .*; got \(True, 3, 4\)"),
    ({"levels": None}, "levels must be an int, 2 to 65536; got None"),
    ({"levels": 1}, "levels must be an int, 2 to 65536; got 1"),
    ({"levels": 65537}, "levels must be an int, 2 to 65536; got 65537"),
    ({"levels": 4.0}, "levels must be an int, 2 to 65536; got 4.0"),
    ({"levels": True}, "levels must be an int, 2 to 65536; got True"),
    ({"inputs": "float"}, "inputs must be one of images, flat, levels, codes.*; got 'float'"),
    ({"inputs": 3}, "inputs must be one of images, flat, levels, codes.*; got 3"),
    ({"inputs": ["codes"]}, r"inputs must be one of images, flat, levels, codes.*; got \['codes'\]"),
    (
        {"inputs": "codes", "shape": (3, 3, 4), "input_range": None},
        r"shape must be \(1, H, W\) for inputs='codes'; got \(3, 3, 4\)",
    ),
    ({"inputs": "levels"}, r"input_range must be None for inputs='levels', which are integers; got \(0, 1\)"),
    ({"input_range": 1}, "input_range must be two different numbers; got 1"),
    ({"input_range": "01"}, "input_range must be two different numbers; got '01'"),
    ({"input_range": (0, 1, 2)}, r"input_range must be two different numbers; got \(0, 1, 2\)"),
    ({"input_range": (0, None)}, r"input_range must be two different numbers; got \(0, None\)"),
    ({"input_range": (1, 1)}, r"input_range must be two different numbers; got \(1, 1\)"),
    ({"input_range": (0, float("nan"))}, r"input_range must be two different numbers; got \(0, nan\)"),
    ({"input_range": (-float("inf"), 1)}, r"input_range must be two different numbers; got \(-inf, 1\)"),
    ({"input_range": (0, 10**400)}, "input_range must be two different numbers; got"),
    ({"head": "softmax"}, "head must be one of .*probabilities, log-probabilities; got 'softmax'"),
    ({"head": ["categorical"]}, r"head must be one of .*; got \['categorical'\]"),
    ({"output": 3}, "output must be a pattern such as 'B H W L'; got int"),
    ({"output": "B H L"}, "output must be a pattern of the letters .*; got 'B H L'"),
    ({"output": "B H W W"}, "output must be a pattern of the letters .*; got 'B H W W'"),
    ({"output": "B L P H W"}, "output must be a pattern of the letters .*; got 'B L P H W'"),
    ({"output": "B (H W L"}, r"output must be a pattern of the letters .*; got 'B \(H W L'"),
    ({"output": ""}, "output must be a pattern of the letters .*; got ''"),
    ({"classes": -1}, "classes must be an int, at least 0; got -1"),
    ({"classes": 2.0}, "classes must be an int, at least 0; got 2.0"),
    ({"classes": "10"}, "classes must be an int, at least 0; got '10'"),
    ({"condition": ONE}, r"condition must be a dict of tensors by the names of arguments; got tensor\("),
    ({"condition": {0: ONE}}, "condition must be a dict of tensors by the names of arguments; got {0"),
    ({"condition": {"h": [0.0]}}, "condition h must be a torch.Tensor; got list"),
    ({"condition": {"h": torch.zeros(())}}, r"condition h must be \[n, ...\] or \[1, ...\]; got \(\)"),
    ({"condition": {"h": torch.zeros(0, 2)}}, r"condition h must be \[n, ...\] or \[1, ...\]; got \(0, 2\)"),
    ({"pixel_order": [0.0] * 12}, r"pixel_order must be integers, one for each value; got float64 \(12,\)"),
    ({"pixel_order": [[0, 1]] * 6}, r"pixel_order must be integers, one for each value; got int64 \(6, 2\)"),
    ({"pixel_order": range(11)}, "pixel_order must be a permutation of the 12 pixels .*; got 11 numbers"),
    ({"pixel_order": [0] * 12}, "pixel_order must be a permutation of the 12 pixels .*; got 12 numbers"),
    ({"pixel_order": range(1, 13)}, "pixel_order must be a permutation of the 12 pixels .*; got 12 numbers"),
    ({"pixel_order": 3}, r"pixel_order must be integers, one for each value; got int64 \(\)"),
    ({"pixel_order": "raster"}, "pixel_order must be integers, one for each value; got <U6"),
    ({"range": (0, 1)}, "keywords must be of shape, levels, .*; got 'range'"),
]


@pytest.mark.parametrize("changes, message", REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_is_refused_in_a_sentence(changes, message):
    """Before the model is called at all."""
    model = nn.Sequential(Function(lambda x: pytest.fail("the model was called")))
    with pytest.raises((TypeError, ValueError)) as caught:
        genfast.sample(model, 1, **FITTING | changes)
    assert re.fullmatch(f"sample: {message}.*", str(caught.value)), str(caught.value)


def conventions(**keywords):
    return conventions_of("sample", nn.Identity(), FITTING | keywords)


def test_the_key_is_what_a_program_depends_on():
    order = list(range(12))[::-1]
    one = {"pixel_order": order, "condition": {"h": torch.zeros(3, 2)}, "head": "categorical", "output": "B L H W"}
    assert conventions(**one).key == conventions(**one | {"condition": {"h": torch.ones(7, 2)}}).key
    assert hash(conventions(**one).key) == hash(conventions(**one).key)
    others = [
        {"levels": 5},
        {"shape": (1, 4, 3)},
        {"classes": 2},
        {"inputs": "flat"},
        {"input_range": (0, 2)},
        {"input_range": None},
        {"head": "probabilities"},
        {"output": "B H W L"},
        {"output": "0: B L H W"},
        {"condition": {"g": torch.zeros(3, 2)}},
        {"condition": {"h": torch.zeros(3, 3)}},
        {"condition": {"h": torch.zeros(3, 2, dtype=torch.int64)}},
        {"pixel_order": None},
        {"pixel_order": order[1:] + order[:1]},
    ]
    keys = [conventions(**one).key, *(conventions(**one | other).key for other in others)]
    assert len(set(keys)) == len(keys)


def test_an_order_of_pixels_is_one_of_values():
    colour = {"shape": (3, 1, 2)}
    pixels = conventions(**colour, pixel_order=[1, 0]).pixel_order
    assert pixels.tolist() == [3, 4, 5, 0, 1, 2] and pixels.dtype == np.int64
    assert conventions(**colour, pixel_order=(5, 0, 4, 1, 3, 2)).pixel_order.tolist() == [5, 0, 4, 1, 3, 2]
    for raster in (range(2), torch.arange(6), np.arange(2, dtype=np.uint8)):
        assert conventions(**colour, pixel_order=raster).pixel_order is None


def test_rows_of_a_condition():
    condition = {"h": torch.arange(6).view(3, 2), "one": torch.full((1, 2), 7)}
    rows = rows_of("sample", condition, 1, 2)
    assert rows["h"].tolist() == [[2, 3], [4, 5]] and rows["one"].tolist() == [[7, 7], [7, 7]]
    with pytest.raises(ValueError, match=r"^sample: condition h must have a row for each image up to index 3.*got 3"):
        rows_of("sample", condition, 2, 2)


def test_an_engine_in_place_of_the_model_gives_the_same_bits():
    model = plain()
    engine = genfast.Engine(model, **FITTING)
    images, mask = some(SHAPE, 4), torch.rand(1, 1, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    verbs = {
        "sample": lambda of, **k: genfast.sample(of, 5, seed=1, first=2, **k),
        "stream": lambda of, **k: torch.cat(list(genfast.stream(of, 5, batch_size=2, **k))),
        "log_prob": lambda of, **k: genfast.log_prob(of, images, **k),
        "inpaint": lambda of, **k: genfast.inpaint(of, images, mask, steps=3, **k).images,
        "denoise": lambda of, **k: genfast.denoise(of, images, genfast.BitFlipNoise(0.1), steps=2, **k).images,
    }
    for name, verb in verbs.items():
        assert torch.equal(verb(engine), verb(model, **FITTING)), name
        for beside in ({"levels": 4}, {"input_range": (0, 1)}, {"backend": "torch"}):
            with pytest.raises(ValueError, match=f"{next(iter(beside))} must be given to the Engine .*; got a value"):
                verb(engine, **beside)


def normalised(mean, deviation):
    mean, deviation = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, deviation))
    return lambda x: (x - mean) / deviation


SHOWN = {
    "x / 255": (lambda x: x / 255, (0, 255), 256),
    "x / 127.5 - 1": (lambda x: x / 127.5 - 1, (0, 255), 256),
    "(x - 127.5) / 127.5": (lambda x: (x - 127.5) / 127.5, (0, 255), 256),
    "x / 3": (lambda x: x / 3, (0, 3), 4),
    "2x - 1": (lambda x: 2 * x - 1, (0, 1), 4),
    "(x - 0.5) / 0.5": (lambda x: (x - 0.5) / 0.5, (0, 1), 4),
    "x - 0.5": (lambda x: x - 0.5, (0, 1), 4),
    "(x + 1) / 2": (lambda x: (x + 1) / 2, (-1, 1), 4),
    "x.add(1).mul(0.5)": (lambda x: x.add(1).mul(0.5), (-1, 1), 4),
    "mean and deviation": (normalised([0.1307], [0.3081]), (0, 1), 4),
    "mean and deviation by channel": (normalised([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]), (0, 1), 4),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_range_that_forward_shows(name):
    function, (low, high), levels = SHOWN[name]
    channels = 3 if "channel" in name else 1
    split = Function(lambda y: y.unflatten(1, (levels, channels)))
    model = nn.Sequential(Function(function), plain(inputs=channels, outputs=levels * channels), split)
    images, shape = some((channels, 3, 4), levels), (channels, 3, 4)
    expected = log_softmax_of(model(entered(images, levels, low, high)).detach(), images)
    engine = assert_right(model, expected, images, shape=shape, levels=levels)
    assert engine.network.conventions.input_range == (low, high)


def test_a_range_that_is_rounded_to_levels():
    """`(x * 255).round().long()` takes 0..1."""
    model = nn.Sequential(
        Function(lambda x: (x * 3).round().long().squeeze(1)),
        alive(nn.Embedding(4, 5)),
        Function(lambda x: x.permute(0, 3, 1, 2)),
        plain(inputs=5),
    )
    images = some(SHAPE, 4)
    expected = log_softmax_of(model(entered(images, 4)).detach(), images[:, 0])
    engine = assert_right(model, expected, images, shape=SHAPE, levels=4)
    assert engine.network.conventions.input_range == (0, 1)


class TwoUsers(nn.Module):
    """Divides a copy of its images only: they also enter as they are."""

    def __init__(self):
        super().__init__()
        self.body = plain(inputs=2)

    def forward(self, x):
        return self.body(torch.cat((x / 255, x), 1))


HIDDEN = {
    "nothing": nn.Identity(),
    "x * 2": Function(lambda x: x * 2),
    "1 - 2x": Function(lambda x: 1 - 2 * x),
    "x / 2": Function(lambda x: x / 2),
    "x * 100": Function(lambda x: x * 100),
    "x - 3": Function(lambda x: x - 3),
    "-x": Function(lambda x: x * -1.5),
    "tanh": Function(torch.tanh),
    "a layer's own weight": Function(lambda x: x * torch.full((1, 1, 1, 1), 1.7)),
    "times itself": Function(lambda x: x * x),
    "a map, then a number for each channel": Function(
        lambda x: (x * torch.full((1, 1, 3, 4), 1.5) - torch.tensor([3.0, 4.0]).view(2, 1, 1)).mean(1, keepdim=True)
    ),
    "a map added, then a number for each channel": Function(
        lambda x: ((x + torch.full((1, 1, 3, 4), 1.5)) * torch.tensor([3.0, 4.0]).view(2, 1, 1)).mean(1, keepdim=True)
    ),
    "divided and rounded": Function(lambda x: x.div(3, rounding_mode="floor")),
    "0 * x": Function(lambda x: x * 0),
}


@pytest.mark.parametrize("name", [*HIDDEN, "two users"])
def test_a_range_that_forward_does_not_show_is_asked_for(name):
    model = TwoUsers() if name == "two users" else nn.Sequential(HIDDEN[name], plain())
    with pytest.raises(ValueError, match="^sample: input_range must be given, .* forward does not show it; got None$"):
        genfast.sample(model, 1, shape=SHAPE, levels=4)


def test_a_range_that_is_given_is_taken_whatever_forward_shows():
    model, images = nn.Sequential(Function(lambda x: x / 255), plain()), some(SHAPE, 4)
    expected = log_softmax_of(model(entered(images, 4)).detach(), images[:, 0])
    assert_right(model, expected, images, **FITTING)


def test_pixels_in_another_order_by_a_mask_of_their_own():
    """A model of one hidden layer whose masks follow an order of the values."""
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    place = torch.empty(6, dtype=torch.int64)
    place[order] = torch.arange(6)
    before = (place[:, None] > place).float()  # values, channels last
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) * before * 3

    def forward(x):
        return (x.permute(0, 2, 3, 1).flatten(1) @ weight.T).view(len(x), 1, 2, 3).permute(0, 3, 1, 2)

    model, shape = Function(forward), (3, 1, 2)
    images = some(shape, 2)
    assert all(before[b, a] for a, b in itertools.combinations(order.tolist(), 2))
    expected = -nn.functional.binary_cross_entropy_with_logits(
        forward(images.float()).double(), images.double(), reduction="none"
    ).sum((1, 2, 3))
    keywords = {"shape": shape, "levels": 2, "input_range": (0, 1)}
    assert_right(model, expected, images, **keywords, pixel_order=order)
    with pytest.raises(genfast.engine.compiler.NotCausal):
        genfast.sample(model, 1, **keywords)


def test_masks_of_a_kind_are_needed():
    """The tests above would see it if models were not causal."""
    with pytest.raises(ValueError, match="must be causal"):
        genfast.sample(nn.Sequential(Masked(1, 4, 3, "B")), 1, **FITTING)
