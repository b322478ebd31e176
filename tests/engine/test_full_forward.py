"""The loop of full forwards: what it feeds a model, and that the model is afterwards what it was."""

import copy
import functools
import threading
import warnings

import pytest
import torch
from support.anyone import Function, Masked, alive, entered, every, log_softmax_of, plain, quietly, some
from support.sampled import chi_square
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine.compiler import NotCausal
from genfast.random import uniform

SHAPE, LEVELS = (1, 6, 4), 4
BASE = {"shape": SHAPE, "levels": LEVELS, "input_range": (0, 1)}


def slow(model, **keywords):
    return quietly(genfast.Engine, model, backend="full_forward", **BASE | keywords)


class Watched(nn.Module):
    """Notes the shapes of what it is given."""

    def __init__(self, *more):
        super().__init__()
        self.body, self.more, self.seen = plain(Masked(6, 6)), nn.ModuleList(more), []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        for layer in self.more:
            x = layer(x)
        return self.body(x)


def rows_fed(model, **keywords):
    """The rows that each draw of one image was given."""
    engine = slow(model, **keywords)
    engine.run(1, seed=0)
    seen = engine.network.model.seen
    return [shape[2] for shape in seen[-SHAPE[1] * SHAPE[2] :]]


def whole(x):
    """Of a state that the whole image has."""
    return x + 0 * x.mean() + x.shape[2] / 7


ROWS = {
    "a causal network": ((), True),
    "a size that matters": ((Function(whole),), False),
    "positions from below": ((Function(lambda x: x + torch.arange(x.shape[2]).flip(0).view(-1, 1) / 9),), False),
    "rows in pairs": ((Function(lambda x: F.pad(x, (0, 0, 1, -1)).unflatten(2, (-1, 2)).flatten(2, 3)),), False),
    "parameters of all rows": ((Function(lambda x: x + torch.linspace(0, 1, 6).view(6, 1)),), False),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_cropped_where_that_is_proved(name):
    more, cropped = ROWS[name]
    model = Watched(*more)
    rows = rows_fed(model)
    assert rows == ([row + 1 for row in range(6) for _ in range(4)] if cropped else [6] * 24)
    images = some(SHAPE, LEVELS)
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS)), images[:, 0])
    assert torch.allclose(slow(model).log_prob(images), expected, atol=1e-4)


class Unet(nn.Module):
    """Strided layers, and back: a shift by two rows keeps it causal."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x):
        return self.up(torch.relu(self.down(F.pad(x, (0, 0, 2, -2)))))


def test_a_model_that_halves_its_rows_is_not_cropped():
    model = alive(Unet())
    drawn = slow(model).run(4, seed=2).images
    assert torch.equal(drawn, by_hand(model, 4, seed=2))


def by_hand(model, n, seed, first=0):
    """The loop that the documents state: every value from a whole forward, its number by seed, image and place."""
    images = torch.zeros(n, *SHAPE, dtype=torch.uint8)
    for place in range(SHAPE[1] * SHAPE[2]):
        i, j = divmod(place, SHAPE[2])
        with torch.no_grad():
            p = model(entered(images, LEVELS))[:, :, i, j].double().softmax(1)
        u = [float(uniform(seed, first + b, place)) for b in range(n)]
        images[:, 0, i, j] = torch.tensor([int((row.cumsum(0) <= v).sum()) for row, v in zip(p, u)])
    return images


@pytest.mark.parametrize("backend", ["full_forward", "cpp"])
def test_draws_are_those_of_a_loop_by_hand(backend):
    model = plain(Masked(6, 6))
    drawn = genfast.Engine(model, backend=backend, **BASE).run(5, seed=7, first=3).images
    assert torch.equal(drawn, by_hand(model, 5, seed=7, first=3))


class Squeezes(nn.Module):
    """Loses its batch where there is but one image."""

    def __init__(self):
        super().__init__()
        self.body = plain(Function(torch.sin))

    def forward(self, x):
        return self.body(x).squeeze()


class Caches(nn.Module):
    """Keeps a padding of the first batch that it sees, and takes no other."""

    def __init__(self):
        super().__init__()
        self.body, self.padding = plain(Function(torch.sin)), None

    def forward(self, x):
        if self.padding is None:
            self.padding = torch.zeros(len(x), 1, 1, x.shape[3])
        return self.body(torch.cat((self.padding, x), 2))[:, :, 1:]


@pytest.mark.parametrize("kind", [Squeezes, Caches])
def test_any_batch(kind):
    model, images = kind(), some(SHAPE, LEVELS, 3)
    with torch.no_grad():
        expected = log_softmax_of(kind.forward(copy.deepcopy(model), entered(images, LEVELS)), images[:, 0])
    engine = slow(model)
    assert torch.allclose(engine.log_prob(images), expected, atol=1e-5)
    for n in (3, 1, 2):
        drawn = engine.run(n, seed=5, want=("log_probs",))
        assert torch.equal(drawn.images, engine.run(3, seed=5).images[:n])
        assert torch.allclose(engine.log_prob(drawn.images), drawn.log_probs.flatten(1).sum(1), atol=1e-5)
    assert getattr(model, "padding", None) is None, "the model of the user was called"


class Hooked(nn.Module):
    """Weights of weight_norm, of a parametrization, and of a hook, which are no leaves."""

    def __init__(self):
        super().__init__()
        self.first = Masked(1, 6, 3, "A")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.second = nn.utils.weight_norm(nn.Conv2d(6, 6, 1))
        self.third = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1))
        self.fourth = nn.Conv2d(6, LEVELS, 1)
        self.fourth.raw = nn.Parameter(self.fourth.weight.detach().clone())
        del self.fourth.weight
        self.fourth.register_forward_pre_hook(lambda layer, _: setattr(layer, "weight", layer.raw * 2))

    def forward(self, x):
        return self.fourth(self.third(torch.relu(self.second(torch.relu(self.first(x))))))


@pytest.mark.parametrize("backend", ["cpp", "full_forward"])
def test_weights_that_hooks_compute(backend):
    torch.manual_seed(0)
    model, images = Hooked().eval(), some(SHAPE, LEVELS)
    expected = log_softmax_of(model(entered(images, LEVELS)).detach(), images[:, 0])
    model(entered(images, LEVELS)).sum().backward()
    before = {name: id(value) for name, value in vars(model.fourth).items()}
    assert not model.fourth.weight.is_leaf
    got = genfast.log_prob(model, images, backend=backend, **BASE)
    assert torch.allclose(got, expected, atol=1e-5)
    assert {name: id(value) for name, value in vars(model.fourth).items()} == before


class Random(nn.Module):
    """Draws numbers of torch and gives them no weight."""

    def __init__(self):
        super().__init__()
        self.body = plain(Function(torch.sin))

    def forward(self, x):
        return self.body(x) + 0 * torch.randn_like(x)


@pytest.mark.parametrize("model", [Random, lambda: plain()], ids=["that draws", "that does not"])
@pytest.mark.parametrize("backend", ["auto", "full_forward"])
def test_the_random_state_of_torch_is_as_before(model, backend):
    model = model()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    images = quietly(genfast.sample, model, 2, backend=backend, **BASE)
    quietly(genfast.log_prob, model, images, backend=backend, **BASE)
    assert torch.equal(torch.get_rng_state(), before)


class Diagonals(nn.Module):
    """No order of rows: each pixel sees the one before in an order along the columns."""

    def __init__(self):
        super().__init__()
        self.body = plain(Function(torch.sin))

    def forward(self, x):
        return self.body(x.transpose(2, 3)).transpose(2, 3)


def test_an_order_of_pixels_of_its_own():
    model, images, small = Diagonals(), every((1, 2, 2), 3), {"shape": (1, 2, 2), "levels": 3}
    model.body = nn.Sequential(model.body, alive(nn.Conv2d(4, 3, 1), 3.0))
    with torch.no_grad():
        p = log_softmax_of(model(entered(images, 3)), images[:, 0]).exp()
    engine = slow(model, **small, pixel_order=[0, 2, 1, 3])
    assert chi_square(engine.run(3000, seed=0).images, p, 3) > 1e-4
    with pytest.raises(NotCausal, match="must be causal"):
        slow(model, **small).run(1, seed=0)


def test_threads_share_a_foreign_model():
    models = [plain(), plain(Function(torch.sin))]
    expected = [quietly(genfast.sample, copy.deepcopy(model), 3, seed=1, **BASE) for model in models]
    engines = [quietly(genfast.Engine, model, **BASE) for model in models]
    drawn, failed = [], []

    def work(k):
        try:
            of = (models, engines)[k // 2 % 2][k % 2]
            keywords = {} if isinstance(of, genfast.Engine) else BASE
            drawn.append((k % 2, genfast.sample(of, 3, seed=1, **keywords)))
        except Exception as error:  # to be seen by the test
            failed.append(error)

    threads = [threading.Thread(target=functools.partial(work, k)) for k in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed and len(drawn) == 8
    assert all(torch.equal(images, expected[k]) for k, images in drawn)
