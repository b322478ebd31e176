"""Models of flat values, of lines and of single rows or columns, in any order, against their own forward."""

import pytest
import torch
from support.anyone import (
    Function,
    Masked,
    MaskedLinear,
    alive,
    assert_right,
    entered,
    every,
    log_sigmoid_of,
    log_softmax_of,
    plain,
    quietly,
    some,
)
from support.sampled import chi_square
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine.compiler import NotCausal


def returned(model, images, levels, flat=False):
    """What the forward of a model returns for images in 0..1."""
    x = entered(images, levels)
    with torch.no_grad():
        return model(x.flatten(1) if flat else x)


class Made(nn.Module):
    """Two hidden layers with masks by degree; `place` is when each value is drawn, in the order of its inputs."""

    def __init__(self, place, outputs, hidden=24, levels_last=True):
        super().__init__()
        self.count, self.outputs, self.levels_last = len(place), outputs, levels_last
        inner = torch.arange(hidden) % max(1, self.count - 1)
        last = place.repeat_interleave(outputs) if levels_last else place.repeat(outputs)
        self.first = MaskedLinear(inner[:, None] >= place)
        self.second = MaskedLinear(inner[:, None] >= inner)
        self.third = MaskedLinear(last[:, None] > inner)
        self.skip = MaskedLinear(last[:, None] > place)

    def forward(self, x):
        x = x.flatten(1)
        h = torch.relu(self.second(torch.relu(self.first(x))))
        sizes = (self.count, self.outputs) if self.levels_last else (self.outputs, self.count)
        y = (self.third(h) + self.skip(x)).view(len(x), *sizes)
        return y.squeeze(2) if self.levels_last and self.outputs == 1 else y


def channels_last(order, shape):
    """Values in the order of memory, (c * H + i) * W + j, as (i * W + j) * C + c."""
    channels, pixels = shape[0], shape[1] * shape[2]
    return order % pixels * channels + order // pixels


def placed(order):
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place


def made(shape, outputs, kind, **options):
    """(model, pixel_order or None): in raster order with channels last, or in an order drawn at random."""
    count = shape[0] * shape[1] * shape[2]
    memory = torch.arange(count)
    if kind == "raster":
        return alive(Made(channels_last(memory, shape), outputs, **options)), None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))  # of values as they are in memory
    return alive(Made(placed(order), outputs, **options)), channels_last(order, shape)


MADES = [
    ((1, 3, 4), 2, "raster", {"inputs": "flat"}),
    ((1, 3, 4), 2, "random", {"inputs": "flat"}),
    ((1, 3, 4), 2, "random", {}),
    ((2, 2, 3), 2, "raster", {}),
    ((3, 2, 2), 2, "random", {"inputs": "flat"}),
    ((1, 3, 3), 5, "raster", {}),
    ((1, 3, 3), 5, "random", {"inputs": "flat"}),
    ((2, 2, 3), 3, "raster", {"inputs": "flat", "output": "B (C H W) L"}),
    ((3, 2, 2), 4, "random", {"output": "B (C H W) L"}),
    ((1, 1, 1), 2, "raster", {}),
    ((1, 1, 1), 5, "raster", {"inputs": "flat"}),
    ((3, 1, 1), 2, "random", {}),
    ((1, 1, 6), 2, "random", {}),
    ((1, 6, 1), 3, "random", {}),
]


@pytest.mark.parametrize("shape, levels, kind, keywords", MADES, ids=str)
def test_made(shape, levels, kind, keywords):
    model, order = made(shape, 1 if levels == 2 else levels, kind)
    images = some(shape, levels)
    y = returned(model, images, levels, flat="inputs" in keywords)
    if levels == 2:
        expected = log_sigmoid_of(y, images.flatten(1))
        output = {"output": "B (C H W)"}
    else:
        expected = log_softmax_of(y.transpose(1, 2), images.flatten(1))
        output = {"output": "B (H W) L"} if shape[0] == 1 else {}
    told = {"shape": shape, "levels": levels, "input_range": (0, 1), "pixel_order": order} | output | keywords
    assert_right(model, expected, images, **told)


def test_made_with_levels_before_values():
    shape, levels = (1, 3, 3), 4
    model, order = made(shape, levels, "random", levels_last=False)
    images = some(shape, levels)
    expected = log_softmax_of(returned(model, images, levels), images.flatten(1))
    told = {"shape": shape, "levels": levels, "input_range": (0, 1), "output": "B L (H W)", "pixel_order": order}
    assert_right(model, expected, images, **told)


def test_samples_in_an_order_of_their_own_are_right():
    shape, levels = (1, 2, 2), 3
    model, order = made(shape, levels, "random")
    images = every(shape, levels)
    y = returned(model, images, levels)
    p = log_softmax_of(y.transpose(1, 2), images.flatten(1)).exp()
    assert abs(p.sum() - 1) < 1e-6
    keywords = {"shape": shape, "levels": levels, "input_range": (0, 1), "output": "B (H W) L", "pixel_order": order}
    assert chi_square(genfast.sample(model, 4000, **keywords), p, levels) > 1e-4
    with pytest.raises(NotCausal):
        genfast.sample(model, 1, **keywords | {"pixel_order": None})


@pytest.mark.parametrize("backend", ["torch", "full_forward"])
def test_what_is_wanted_of_an_order_is_the_same_on_all_backends(backend):
    """Known values, evidence and parameters are turned into the order and back."""
    shape, levels = (2, 2, 3), 3
    model, order = made(shape, levels, "random")
    told = {"shape": shape, "levels": levels, "input_range": (0, 1), "output": "B (C H W) L", "pixel_order": order}
    generator = torch.Generator().manual_seed(4)
    settings = {
        "given": some(shape, levels, 4),
        "known": torch.rand(4, *shape, generator=generator) < 0.4,
        "evidence": torch.randn(4, *shape, levels, generator=generator),
        "want": ("log_probs", "log_evidence", "parameters"),
    }
    drawn = [genfast.Engine(model, backend=name, **told).run(4, seed=1, **settings) for name in ("cpp", backend)]
    assert torch.equal(drawn[0].images, drawn[1].images)
    for name in settings["want"]:
        a, b = (getattr(one, name) for one in drawn)
        assert a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-4), name
    y = returned(model, drawn[0].images, levels)
    own = y.view(4, *shape, levels).permute(0, 1, 4, 2, 3).flatten(1, 2)
    assert torch.allclose(drawn[0].parameters, own, atol=1e-4)


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_pixel(levels, channels):
    """The first value depends on nothing; the others on those before."""
    shape, images = (channels, 1, 1), some((channels, 1, 1), levels)
    before = torch.tril(torch.ones(channels, channels), -1).repeat_interleave(levels, 0)
    layer = alive(MaskedLinear(before))

    class Pixel(nn.Module):
        def forward(self, x):
            return layer(x[:, :, 0, 0]).view(len(x), channels, levels, 1, 1)

    model = Pixel()
    y = returned(model, images, levels)
    assert_right(
        model,
        log_softmax_of(y.transpose(1, 2), images),
        images,
        shape=shape,
        levels=levels,
        input_range=(0, 1),
        head="categorical",
    )


class Lstm(nn.Module):
    """nn.LSTM over all pixels in a line, or over the columns of each row; moved by one, or begun by a token."""

    def __init__(self, way, layers=1, bias=True, levels=4, width=7):
        super().__init__()
        self.way = way
        self.lstm = nn.LSTM(3, width, layers, bias=bias, batch_first="time first" not in way)
        self.token, self.enter = nn.Parameter(torch.zeros(1, 1, 3)), nn.Linear(1, 3)
        self.above, self.out = Masked(1, 3, 3, "A"), nn.Linear(width, levels)

    def forward(self, x):
        n, _, height, width = x.shape
        if "rows" in self.way:
            rows = self.above(x).permute(0, 2, 3, 1)  # what comes before each pixel
            hidden, _ = self.lstm(rows.reshape(n * height, width, 3))
            return self.out(hidden).view(n, height, width, -1).permute(0, 3, 1, 2)
        line = self.enter(x.flatten(2).transpose(1, 2))
        if "token" in self.way:
            line = torch.cat((self.token.expand(n, -1, -1), line[:, :-1]), 1)
        else:
            line = F.pad(line, (0, 0, 1, 0))[:, :-1]
        if "time first" in self.way:
            hidden = self.lstm(line.transpose(0, 1))[0].transpose(0, 1)
        else:
            hidden = self.lstm(line)[0]
        return self.out(hidden).transpose(1, 2).reshape(n, -1, height, width)


LSTMS = [
    ("line", 1, True),
    ("line", 3, False),
    ("line with a token", 2, True),
    ("line, time first", 2, True),
    ("rows", 1, True),
    ("rows", 2, False),
]


@pytest.mark.parametrize("way, layers, bias", LSTMS)
@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 1, 5)])
def test_lstms(way, layers, bias, shape):
    model, images = alive(Lstm(way, layers, bias)), some(shape, 4)
    y = returned(model, images, 4)
    assert_right(model, log_softmax_of(y, images[:, 0]), images, shape=shape, levels=4, input_range=(0, 1))


def test_an_lstm_in_both_directions_is_refused_and_not_causal():
    class Both(Lstm):
        def __init__(self):
            super().__init__("line", width=4)
            self.lstm, self.out = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 4)

    with pytest.raises(ValueError, match="causal"):
        quietly(genfast.sample, alive(Both()), 1, shape=(1, 3, 4), levels=4, input_range=(0, 1))


class Line(nn.Module):
    """Causal Conv1d layers over all pixels, with a token of weights, or a label, at the start."""

    def __init__(self, start, width=6):
        super().__init__()
        self.start, self.enter = start, nn.Conv1d(1, width, 1)
        self.token, self.labels = nn.Parameter(torch.zeros(1, width, 1)), nn.Embedding(3, width)
        self.places = nn.Parameter(torch.zeros(1, width, 12))
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=d) for d in (1, 2))
        self.norm, self.out = nn.BatchNorm1d(width), nn.Conv1d(width, 4, 1)

    def forward(self, x):
        line = self.enter(x.flatten(2))
        start = torch.zeros_like(line[:, :, :1])
        if self.start == "token":
            start = self.token.repeat(len(x), 1, 1)
        line = torch.cat((start, line[:, :, :-1]), dim=2)
        if self.start == "places":
            line = line + self.places
        for conv in self.convs:
            line = line + torch.relu(conv(F.pad(line, (2 * conv.dilation[0], 0))))
        return self.out(self.norm(line)).view(len(x), 4, *x.shape[2:])


@pytest.mark.parametrize("start", ["zeros", "token", "places"])
def test_lines(start):
    model, images, shape = alive(Line(start)), some((1, 3, 4), 4), (1, 3, 4)
    y = returned(model, images, 4)
    assert_right(model, log_softmax_of(y, images[:, 0]), images, shape=shape, levels=4, input_range=(0, 1))


class Squeezed(nn.Module):
    """Takes images of one row, or of one column, as sequences: squeeze, Conv1d, unsqueeze."""

    def __init__(self, dim, back):
        super().__init__()
        self.dim, self.back = dim, back
        self.first, self.second = nn.Conv1d(1, 6, 2), nn.Conv1d(6, 4, 3)

    def forward(self, x):
        h = F.pad(x.squeeze(self.dim), (2, -1))
        h = F.pad(torch.relu(self.first(h)), (2, 0))
        y = self.second(h)
        return y.unsqueeze(self.dim) if self.back else y


@pytest.mark.parametrize("back", [True, False])
@pytest.mark.parametrize("dim, shape", [(2, (1, 1, 6)), (3, (1, 6, 1)), (-1, (1, 6, 1)), (-2, (1, 1, 6))])
def test_a_row_or_a_column_that_is_squeezed(dim, shape, back):
    model, images = alive(Squeezed(dim, back)), some(shape, 4)
    y = returned(model, images, 4)
    expected = log_softmax_of(y.flatten(2), images.flatten(1))
    output = {} if back else {"output": "B L (H W)"}
    assert_right(model, expected, images, shape=shape, levels=4, input_range=(0, 1), **output)


@pytest.mark.parametrize("shape", [(1, 1, 6), (1, 6, 1), (1, 1, 1), (2, 1, 4), (2, 4, 1)])
def test_convolutions_over_thin_images(shape):
    channels = shape[0]
    split = Function(lambda y: y.unflatten(1, (3, channels)))
    model = nn.Sequential(plain(Masked(6, 6, 5), inputs=channels, outputs=3 * channels), split)
    images = some(shape, 3)
    y = returned(model, images, 3)
    assert_right(model, log_softmax_of(y, images), images, shape=shape, levels=3, input_range=(0, 1))


class Written(nn.Module):
    """One hidden layer that grows with every value, by an outer product; each logit is written to its row of zeros."""

    def __init__(self, values=12, hidden=5):
        super().__init__()
        self.inner, self.outer = nn.Parameter(torch.randn(hidden, values)), nn.Parameter(torch.randn(values, hidden))

    def forward(self, x):
        logits, x = torch.zeros(x.shape[1], x.shape[0]), x.t()
        state = torch.zeros(x.shape[1], len(self.inner))
        for place in range(len(x)):
            logits[place] = torch.sigmoid(state) @ self.outer[place]
            state = state + torch.outer(x[place], self.inner[:, place])
        return logits.t()


def test_logits_that_a_loop_writes_into_zeros():
    model, images = alive(Written()), some((1, 4, 3), 2)
    expected = log_sigmoid_of(returned(model, images, 2, flat=True), images.flatten(1))
    assert_right(model, expected, images, shape=(1, 4, 3), levels=2, input_range=(0, 1), inputs="flat")


class Local(nn.Module):
    """Convolutions whose mask is another at every pixel, for an order of its own; windows by unfold."""

    def __init__(self, order, height, width, features=5):
        super().__init__()
        time = torch.empty(height * width, dtype=torch.long)
        time[order] = torch.arange(len(order))
        neighbours = F.unfold(F.pad(time.view(1, 1, height, width).float(), (1, 1, 1, 1), value=1e3), 3)[0]
        self.register_buffer("before", (neighbours < time).float())
        self.register_buffer("until", (neighbours <= time).float())
        self.first, self.second = nn.Linear(9, features), nn.Linear(9 * features, features)
        self.out = nn.Conv2d(features, 3, 1)

    def masked(self, x, layer, mask):
        windows = F.unfold(x, 3, padding=1).view(len(x) * x.shape[1], 9, -1) * mask
        y = layer.weight @ windows.view(len(x), -1, windows.shape[2]) + layer.bias[:, None]
        return y.view(len(x), -1, *x.shape[2:])

    def forward(self, x):
        h = torch.tanh(self.masked(x, self.first, self.before))
        return self.out(h + torch.tanh(self.masked(h, self.second, self.until)))


def test_convolutions_with_a_mask_for_each_pixel():
    """In a snake's order; by rows such a model would need a program of each pixel."""
    grid = torch.arange(12).view(4, 3)
    grid[1::2] = grid[1::2].flip(1)
    order = grid.flatten()
    model, images = alive(Local(order, 4, 3)), some((1, 4, 3), 3)
    expected = log_softmax_of(returned(model, images, 3), images[:, 0])
    options = {"shape": (1, 4, 3), "levels": 3, "input_range": (0, 1), "pixel_order": order}
    assert_right(model, expected, images, **options)


def test_convolutions_in_an_order_from_right_to_left():
    class Mirrored(nn.Module):
        """Masked convolutions with their windows mirrored: pixels at the right come first."""

        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = Masked(1, 5, 3, "A"), Masked(5, 5), nn.Conv2d(5, 3, 1)

        def forward(self, x):
            for layer in (self.first, self.second):
                weight = (layer.weight * layer.mask).flip(3)
                x = torch.tanh(F.conv2d(x, weight, layer.bias, padding=layer.padding))
            return self.out(x)

    order = torch.arange(12).view(4, 3).flip(1).flatten()
    model, images = alive(Mirrored()), some((1, 4, 3), 3)
    expected = log_softmax_of(returned(model, images, 3), images[:, 0])
    assert_right(model, expected, images, shape=(1, 4, 3), levels=3, input_range=(0, 1), pixel_order=order)
