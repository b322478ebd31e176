"""`check`: right conventions agree with a loss in any unit, each wrong one is named, and no false loss agrees.

The losses are written with torch alone, as the authors of models write them.
"""

import copy
import math
import warnings

import pytest
import torch
from support.mixture_losses import customary, mixture
from torch import nn
from torch.nn import functional as F

import genfast

HEIGHT, WIDTH = 5, 4
GREY = {"shape": (1, HEIGHT, WIDTH), "levels": 6}
BITS = {"shape": (1, HEIGHT, WIDTH), "levels": 2}
COLOUR = {"shape": (3, HEIGHT, WIDTH), "levels": 6}


class Causal(nn.Conv2d):
    """A convolution of the pixels above and at the left, the present one left out (A) or not."""

    def __init__(self, inputs, outputs, first):
        super().__init__(inputs, outputs, 3, padding=1)
        mask = torch.ones(3, 3)
        mask[1, 1 if first else 2 :] = 0
        mask[2] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)


class Net(nn.Module):
    """Two causal convolutions, with dropout between; `last` is applied to the outputs."""

    def __init__(self, inputs, outputs, last=None, classes=0):
        super().__init__()
        self.first, self.second = Causal(inputs, 12, True), Causal(12, outputs, False)
        self.dropout, self.last = nn.Dropout(0.5), last
        self.label = nn.Embedding(classes, 12) if classes else None
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, x, y=None):
        h = self.first(x)
        if self.label is not None:
            h = h + self.label(y)[:, :, None, None]
        out = self.second(self.dropout(F.relu(h)))
        return out if self.last is None else self.last(out)


def of_levels(shape=(1, HEIGHT, WIDTH), levels=6, n=4):
    return torch.randint(levels, (n, *shape), generator=torch.Generator().manual_seed(3))


def nats(logits, images):
    """[n], of logits [n, L, H, W] or [n, L, C, H, W]."""
    target = images.long() if logits.dim() == 5 else images[:, 0].long()
    return F.cross_entropy(logits, target, reduction="none").flatten(1).sum(1)


def agrees(result):
    return result.ok and result.difference < 1e-6 and result.remedy is None


def remedied(result, *words):
    """Whether a check failed and its remedy has these words, and a difference that is small."""
    assert not result.ok and result.difference > 1e-4
    for word in words:
        assert word in result.remedy, result.remedy
    if "make" in result.remedy and "none of" not in result.remedy:
        assert float(result.remedy.partition("(difference ")[2].partition(")")[0]) < 1e-4
    return True


UNITS = {
    "nats of each image": lambda each: each,
    "bits of each image": lambda each: each / math.log(2),
    "nats a value of each image": lambda each: each / (HEIGHT * WIDTH),
    "sum": lambda each: each.sum(),
    "mean over images": lambda each: each.mean(),
    "mean over values": lambda each: each.mean() / (HEIGHT * WIDTH),
    "bits per dim": lambda each: each.mean() / (HEIGHT * WIDTH) / math.log(2),
    "bits per dim, a float": lambda each: float(each.mean() / (HEIGHT * WIDTH) / math.log(2)),
    "a batch of one number": lambda each: each.mean()[None],
}


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_the_loss_is_found_out(unit):
    model = Net(1, 6)
    loss = lambda images: UNITS[unit](nats(model(images / 5), images))  # noqa: E731
    assert agrees(genfast.check(model, of_levels(), loss, **GREY, input_range=(0, 1)))
    assert remedied(genfast.check(model, of_levels(), loss, **GREY, input_range=(-1, 1)), "input_range=(0, 1) makes")


def test_pixels_and_values_of_colours_differ():
    model = Net(3, 18, lambda out: out.unflatten(1, (6, 3)))
    images = of_levels((3, HEIGHT, WIDTH))
    for size in (1, HEIGHT * WIDTH, 3 * HEIGHT * WIDTH):
        loss = lambda images: nats(model(images / 5), images).mean() / size  # noqa: B023, E731
        assert agrees(genfast.check(model, images, loss, **COLOUR, input_range=(0, 1)))


def test_an_engine_is_checked_as_it_is():
    model = Net(1, 6)
    engine = genfast.Engine(model, **GREY, input_range=(0, 1), backend="torch")
    loss = lambda images: nats(model(images / 5), images)  # noqa: E731
    assert agrees(genfast.check(engine, of_levels(), loss))
    with pytest.raises(ValueError, match="levels must be given to the Engine"):
        genfast.check(engine, of_levels(), loss, levels=6)


def test_labels():
    model, images, labels = Net(1, 6, classes=3), of_levels(), torch.tensor([2, 0, 1, 1])
    options = GREY | {"classes": 3, "input_range": (0, 1), "labels": labels}
    assert agrees(genfast.check(model, images, lambda x, y: nats(model(x / 5, y), x), **options))
    assert agrees(genfast.check(model, images, lambda x, y: nats(model(x / 5, y), x).mean(), **options))
    assert agrees(genfast.check(model, images, lambda x: nats(model(x / 5, labels), x), **options))
    # The labels of a scalar loss of one argument belong to the images in their order.
    assert agrees(genfast.check(model, images, lambda x: nats(model(x / 5, labels), x).mean(), **options))
    other = genfast.check(model, images, lambda x: nats(model(x / 5, labels.flip(0)), x), **options)
    assert remedied(other, "none of")


def test_a_condition_with_a_row_for_each_image():
    class Conditional(Net):
        def forward(self, x, h):
            return self.second(F.relu(self.first(x) + h[:, :, None, None]))

    model, h = Conditional(1, 6), torch.randn(4, 12)
    options = GREY | {"input_range": (-1, 1), "condition": {"h": h}}
    for reduce in (lambda each: each, torch.mean):
        loss = lambda x: reduce(nats(model(x / 5 * 2 - 1, h), x))  # noqa: B023, E731
        assert agrees(genfast.check(model, of_levels(), loss, **options))
        result = genfast.check(model, of_levels(), loss, **options | {"input_range": (0, 1)})
        assert remedied(result, "input_range=(-1, 1) makes")


RANGES = {
    (-1, 1): lambda x: x / 5 * 2 - 1,
    (-0.5, 0.5): lambda x: x / 5 - 0.5,
    (0, 5): lambda x: x.float(),
    (1, 0): lambda x: 1 - x / 5,
    (0, 5 / 6): lambda x: x / 6,
    (-1, 1 - 2 / 6): lambda x: x / 3 - 1,
    (-0.1307 / 0.3081, (1 - 0.1307) / 0.3081): lambda x: (x / 5 - 0.1307) / 0.3081,
}


@pytest.mark.parametrize("right", RANGES)
def test_a_wrong_input_range(right):
    model = Net(1, 6)
    loss = lambda images: nats(model(RANGES[right](images)), images)  # noqa: E731
    named = "input_range=({:.10g}, {:.10g}) makes them agree".format(*right)
    assert remedied(genfast.check(model, of_levels(), loss, **GREY, input_range=(0, 1)), named)
    unknown = genfast.check(model, of_levels(), loss, **GREY)
    assert math.isinf(unknown.difference) and "input_range must be given" in unknown.remedy
    assert remedied(unknown, named, "as described")


def test_probabilities_that_are_taken_for_logits():
    class Untraceable(Net):
        def forward(self, x):
            assert float(x.mean()) < 2  # no graph: the engine does not see the sigmoid
            return super().forward(x).sigmoid()

    model = Untraceable(1, 1)
    loss = lambda images: F.binary_cross_entropy(model(images.float()), images.float())  # noqa: E731
    options = BITS | {"input_range": (0, 1)}
    with pytest.warns(RuntimeWarning, match="every value runs the whole network"):
        wrong = genfast.check(model, of_levels(levels=2), loss, **options, head="bernoulli")
        assert remedied(wrong, "head='probabilities' makes")
        refused = genfast.check(model, of_levels(levels=2), loss, **options)
        assert remedied(refused, "head='probabilities' makes", "head must be named")
        assert agrees(genfast.check(model, of_levels(levels=2), loss, **options, head="probabilities"))


def test_a_sigmoid_that_the_graph_shows():
    model = Net(1, 1, torch.sigmoid)
    loss = lambda images: F.binary_cross_entropy(model(images.float()), images.float())  # noqa: E731
    assert agrees(genfast.check(model, of_levels(levels=2), loss, **BITS, input_range=(0, 1)))


@pytest.mark.parametrize("scale", [2.5, 8])
def test_probabilities_near_one_are_rounded_before_the_loss_sees_them(scale):
    """And those that are 1 have a logarithm that BCELoss clamps."""
    model = Net(1, 1, torch.sigmoid)
    with torch.no_grad():
        model.second.weight *= scale
    images, options = of_levels(levels=2, n=8), BITS | {"input_range": (0, 1)}
    loss = lambda x: F.binary_cross_entropy(model(x.float()), x.float())  # noqa: E731
    result = genfast.check(model, images, loss, **options)
    assert result.ok and result.difference > 1e-5, "the test would see nothing"
    exact = lambda x: F.binary_cross_entropy(model(x.float()).double(), x.double())  # noqa: E731
    assert genfast.check(model, images, exact, **options).ok
    wrong = genfast.check(model, images, loss, **options | {"input_range": (-1, 1)})
    assert remedied(wrong, "input_range=(0, 1) makes")


def test_logits_that_are_taken_for_probabilities():
    model = Net(1, 1)
    loss = lambda x: F.binary_cross_entropy_with_logits(model(x.float()), x.float())  # noqa: E731
    wrong = genfast.check(model, of_levels(levels=2), loss, **BITS, input_range=(0, 1), head="probabilities")
    assert remedied(wrong, "head='bernoulli' makes")


def test_the_order_of_a_mixture():
    model, images = Net(3, 20), of_levels((3, HEIGHT, WIDTH))
    with torch.no_grad():
        model.second.weight *= 0.2
    loss = lambda images: mixture(model(images / 5 * 2 - 1), images).mean()  # noqa: E731
    options = COLOUR | {"input_range": (-1, 1)}
    assert genfast.check(model, images, loss, **options, head="mixture-per-channel").difference < 1e-5
    wrong = genfast.check(model, images, loss, **options, head="mixture")
    assert remedied(wrong, "head='mixture-per-channel' makes")
    unnamed = genfast.check(model, images, loss, **options)
    assert remedied(unnamed, "head='mixture-per-channel' makes", "got (2, 20, 5, 4)")
    both = genfast.check(model, images, loss, **options | {"input_range": (0, 1)}, head="mixture-interleaved")
    assert remedied(both, "input_range=(-1, 1) and head='mixture-per-channel' make")


def test_a_mixture_whose_loss_approximates_the_tails():
    model, images = Net(3, 50), of_levels((3, HEIGHT, WIDTH), 256)
    with torch.no_grad():
        model.second.weight *= 0.3
        model.second.bias[5:].view(3, 3, 5)[:, 1] -= 3
    loss = lambda images: customary(model(images / 127.5 - 1), images)  # noqa: E731
    options = {"shape": (3, HEIGHT, WIDTH), "levels": 256, "input_range": (-1, 1)}
    right = genfast.check(model, images, loss, **options, head="mixture-per-channel")
    assert right.ok and right.difference > 1e-4, "the test would see nothing"
    wrong = genfast.check(model, images, loss, **options, head="mixture-interleaved")
    assert remedied(wrong, "head='mixture-per-channel' makes")
    wrong = genfast.check(model, images, loss, **options | {"input_range": (0, 1)}, head="mixture-per-channel")
    assert remedied(wrong, "input_range=(-1, 1) makes")


def test_levels_before_channels():
    model, images = Net(3, 18), of_levels((3, HEIGHT, WIDTH))
    first = lambda x: nats(model(x / 5).unflatten(1, (6, 3)), x)  # noqa: E731
    last = lambda x: nats(model(x / 5).unflatten(1, (3, 6)).transpose(1, 2), x)  # noqa: E731
    options = COLOUR | {"input_range": (0, 1)}
    assert agrees(genfast.check(model, images, first, **options, head="categorical-levels-first"))
    assert agrees(genfast.check(model, images, last, **options, head="categorical"))
    assert remedied(
        genfast.check(model, images, first, **options, head="categorical"), "head='categorical-levels-first'"
    )
    assert remedied(
        genfast.check(model, images, last, **options, head="categorical-levels-first"), "head='categorical'"
    )


def test_a_layout_that_sizes_do_not_tell():
    model = Net(1, 4, lambda out: out.permute(0, 2, 3, 1))
    size = {"shape": (1, 4, 4), "levels": 4}
    loss = lambda x: nats(model(x / 3).permute(0, 3, 1, 2), x)  # noqa: E731
    images = of_levels((1, 4, 4), 4)
    assert agrees(genfast.check(model, images, loss, **size, input_range=(0, 1), output="B H W L"))
    wrong = genfast.check(model, images, loss, **size, input_range=(0, 1), output="B L H W")
    assert remedied(wrong, "output='B H W L' makes")


def test_inputs_of_another_kind():
    class Codes(Net):
        def forward(self, x):
            return super().forward(F.one_hot(x, 6).permute(0, 3, 1, 2).float())

    model = Codes(6, 6)
    loss = lambda images: nats(model(images[:, 0].long()), images)  # noqa: E731
    assert agrees(genfast.check(model, of_levels(), loss, **GREY, inputs="codes"))
    assert remedied(
        genfast.check(model, of_levels(), loss, **GREY, input_range=(0, 1)), "inputs='codes'", "genfast calls"
    )


SHIFTS = {
    "images + 1 as targets": lambda model, x: nats(model(x / 5), x + 1),
    "images + 1 in place of images": lambda model, x: nats(model((x + 1) / 5), x + 1),
    "5 - images in place of images": lambda model, x: nats(model((5 - x) / 5), 5 - x),
    "5 - images as targets": lambda model, x: nats(model(x / 5), 5 - x),
    "images.flip(2, 3) in place": lambda model, x: nats(model(x.flip(2, 3) / 5), x.flip(2, 3)),
}


@pytest.mark.parametrize("words", SHIFTS)
def test_a_loss_of_other_levels(words):
    model, images = Net(1, 6), of_levels(levels=5)
    wrong = genfast.check(model, images, lambda x: SHIFTS[words](model, x.long()), **GREY, input_range=(0, 1))
    assert remedied(wrong, words)


def test_channels_in_reverse_and_columns_as_rows():
    model, images = Net(3, 18, lambda out: out.unflatten(1, (6, 3))), of_levels((3, 5, 5))
    options = {"shape": (3, 5, 5), "levels": 6, "input_range": (0, 1)}
    bgr = genfast.check(model, images, lambda x: nats(model(x.flip(1) / 5), x.flip(1)), **options)
    assert remedied(bgr, "images.flip(1) in place of images", "BGR")
    turned = genfast.check(model, images, lambda x: nats(model(x.mT / 5), x.mT), **options)
    assert remedied(turned, "images.transpose(2, 3) in place of images")


def test_a_model_that_draws_from_the_last_pixel_on():
    class Backwards(Net):
        def forward(self, x):
            return super().forward(x.flip(2, 3)).flip(2, 3)

    model = Backwards(1, 6)
    loss = lambda images: nats(model(images / 5), images)  # noqa: E731
    options = GREY | {"input_range": (0, 1)}
    assert remedied(genfast.check(model, of_levels(), loss, **options), "pixel_order=torch.arange(20).flip(0) makes")
    right = genfast.check(model, of_levels(), loss, **options, pixel_order=torch.arange(20).flip(0))
    assert agrees(right)


def test_logits_that_look_like_probabilities():
    class Untraceable(Net):
        def forward(self, x):
            assert float(x.mean()) < 2
            return 0.5 + super().forward(x).clamp(-3, 3) / 10

    model = Untraceable(1, 1)
    loss = lambda x: F.binary_cross_entropy_with_logits(model(x.float()), x.float())  # noqa: E731
    with pytest.warns(RuntimeWarning, match="every value runs"):
        refused = genfast.check(model, of_levels(levels=2), loss, **BITS, input_range=(0, 1))
    assert remedied(refused, "head='bernoulli' makes them agree", "head must be named")


def test_a_loss_that_agrees_with_a_model_that_is_not_causal():
    model = nn.Conv2d(1, 6, 3, padding=1)
    result = genfast.check(model, of_levels(), lambda x: nats(model(x / 5), x), **GREY, input_range=(0, 1))
    assert math.isinf(result.difference) and remedied(result, "give pixel_order", "the model must be causal")


def test_an_engine_that_differs_from_the_forward_is_found(monkeypatch):
    model, right = Net(1, 6), genfast.Engine.log_prob
    monkeypatch.setattr(genfast.Engine, "log_prob", lambda *arguments: right(*arguments) - 0.1)
    result = genfast.check(model, of_levels(), lambda x: nats(model(x / 5), x), **GREY, input_range=(0, 1))
    assert not result.ok and result.difference == pytest.approx(0.1 / (HEIGHT * WIDTH), rel=1e-3)
    assert "backend='full_forward' makes them agree" in result.remedy


FALSE = {
    "a row is left out": lambda model, x: nats(model(x / 5)[:, :, 1:], x[:, :, 1:]),
    "zeros are left out": lambda model, x: (
        F.cross_entropy(model(x / 5), x[:, 0].long(), reduction="none", ignore_index=0).flatten(1).sum(1)
    ),
    "half the pixels, as a mean": lambda model, x: F.cross_entropy(model(x / 5)[..., ::2], x[:, 0, :, ::2].long()),
    "smoothed": lambda model, x: F.cross_entropy(model(x / 5), x[:, 0].long(), label_smoothing=0.1),
    "another input": lambda model, x: nats(model(x / 5 + 0.03), x),
    "a bound": lambda model, x: nats(model(x / 5), x) + 0.01,
}


@pytest.mark.parametrize("kind", FALSE)
def test_another_loss_does_not_agree(kind):
    model = Net(1, 6)
    result = genfast.check(model, of_levels(), lambda x: FALSE[kind](model, x), **GREY, input_range=(0, 1))
    assert remedied(result, "none of", "the loss may leave out pixels")


def test_the_reason_of_a_wrong_sign_or_unit():
    model = Net(1, 6)
    each = lambda images: nats(model(images / 5), images)  # noqa: E731
    options = GREY | {"input_range": (0, 1)}
    assert remedied(genfast.check(model, of_levels(), lambda x: -each(x), **options), "must return its negative")
    assert remedied(
        genfast.check(model, of_levels(), lambda x: 3 * each(x), **options),
        "nll is 3 times the nats of an image and 60 times",
    )


def test_errors_of_the_loss_say_what_was_called():
    model, images = Net(1, 6), of_levels()
    options = GREY | {"input_range": (0, 1)}
    called = r"genfast calls nll\(images\) with uint8 \[4, 1, 5, 4\], which must"
    with pytest.raises(ValueError, match=called + " work; got RuntimeError"):
        genfast.check(model, images, lambda x: model(x), **options)
    with pytest.raises(ValueError, match=called + r" return numbers \[4\].*; got shape \(4, 6, 5, 4\)"):
        genfast.check(model, images, lambda x: model(x / 5), **options)
    with pytest.raises(TypeError, match=called + " return .*; got tuple"):
        genfast.check(model, images, lambda x: (nats(model(x / 5), x), 1), **options)
    with pytest.raises(TypeError, match=called + " return .*; got torch.bfloat16"):
        genfast.check(model, images, lambda x: nats(model(x / 5), x).bfloat16(), **options)
    with pytest.raises(ValueError, match=called + " return .*, finite; got 4"):
        genfast.check(model, images, lambda x: nats(model(x / 5), x) * math.nan, **options)


def test_arguments_that_do_not_fit():
    model, images = Net(1, 6), of_levels()
    loss = lambda x: nats(model(x / 5), x)  # noqa: E731
    with pytest.raises(ValueError, match="check: images must be two at least; got 1"):
        genfast.check(model, images[:1], loss, **GREY, input_range=(0, 1))
    with pytest.raises(ValueError, match="check: levels must be an int"):
        genfast.check(model, images, loss, shape=(1, HEIGHT, WIDTH))
    with pytest.raises(TypeError, match="check: nll must be a function of images; got Tensor"):
        genfast.check(model, images, images, **GREY)
    with pytest.raises(TypeError, match="check: model must be an autoregressive torch.nn.Module; got VAE"):
        genfast.check(genfast.models.build("vae", latent=2, hidden=4), images, loss)


def test_a_model_of_genfast_agrees_with_itself():
    model = genfast.models.build("pixelcnn", height=HEIGHT, width=WIDTH, hidden=4, layers=1, head=6, levels=6).eval()
    images = of_levels()
    assert agrees(genfast.check(model, images, lambda x: nats(model(x)[:, 0], x)))
    wrong = genfast.check(model, images, lambda x: nats(model(x)[:, 0], x)[:, None].sum(1) + 1)
    assert not wrong.ok and "may leave out" in wrong.remedy


def test_a_loss_is_called_with_as_many_images_each_time():
    sizes = []

    def loss(images):
        sizes.append(len(images))
        return nats(model(images / 5), images).mean()

    model = Net(1, 6)
    assert agrees(genfast.check(model, of_levels(n=7), loss, **GREY, input_range=(0, 1)))
    assert sizes == [7] * 5


class Caches(Net):
    """Keeps what it sees first, counts its calls, and masks its weights when it is called."""

    def __init__(self):
        super().__init__(1, 6)
        self.pad, self.sizes = None, {}
        self.norm = nn.BatchNorm2d(12)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        self.sizes[len(x)] = True
        if self.pad is None:
            self.pad = torch.zeros(1, 1, *x.shape[2:])
        self.first.weight.data = self.first.weight.data * self.first.mask
        return self.second(F.relu(self.norm(self.first(x + self.pad))))


@pytest.mark.filterwarnings("ignore:sample. every value runs")
@pytest.mark.parametrize("right", [True, False])
def test_the_model_and_the_random_state_are_left_as_they_were(right):
    model = Caches().train()
    model.second.eval()
    hook = model.register_forward_hook(lambda module, args, out: out * 2)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    tensors = [(id(one), one.data_ptr()) for one in (*model.parameters(), *model.buffers())]
    random = torch.get_rng_state()
    loss = lambda x: nats(model(x / 5), x).mean() + 0 * torch.rand(())  # noqa: E731
    result = genfast.check(model, of_levels(), loss, **GREY, input_range=(0, 1) if right else (0, 2))
    assert result.ok == right
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert [(id(one), one.data_ptr()) for one in (*model.parameters(), *model.buffers())] == tensors
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert model.pad is None and model.sizes == {} and list(model._forward_hooks) == [hook.id]


def unchecked(call):
    """The warnings of a call that point to `check`."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return [one for one in seen if one.category is genfast.UncheckedModel]


def test_an_unchecked_model_is_pointed_to_check_once():
    options = GREY | {"input_range": (0, 1)}
    for call in (
        lambda model: genfast.sample(model, 1, **options),
        lambda model: next(genfast.stream(model, 1, **options)),
        lambda model: genfast.log_prob(model, of_levels(), **options),
        lambda model: genfast.Engine(model, **options),
    ):
        model = Net(1, 6)
        (seen,) = unchecked(lambda: call(model))  # noqa: B023
        assert str(seen.message).startswith("sample: genfast.check(model, images, nll, ...) compares")
        assert seen.filename == __file__
        assert not unchecked(lambda: call(model))  # noqa: B023
    assert not unchecked(lambda: genfast.sample(genfast.models.build("pixelcnn", hidden=4, layers=1), 1))


def test_a_checked_model_is_remembered_with_its_conventions():
    model, images = Net(1, 6), of_levels()
    loss = lambda x: nats(model(x / 5), x)  # noqa: E731
    assert not unchecked(lambda: genfast.check(model, images, loss, **GREY, input_range=(-1, 1)))
    assert not unchecked(lambda: genfast.check(model, images, loss, **GREY, input_range=(0, 1)))
    assert not unchecked(lambda: genfast.sample(model, 1, **GREY, input_range=(0, 1)))
    assert unchecked(lambda: genfast.sample(model, 1, **GREY, input_range=(-1, 1))), "these conventions are wrong"
