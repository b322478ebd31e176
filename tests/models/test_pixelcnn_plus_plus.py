import itertools
import math

import pytest
import torch
from scipy import stats
from support.sampled import every_image

from genfast import testing
from genfast.models import PixelCNNPlusPlusConfig, build


def awake(std=0.25, **config):
    """A small model with all its weights at work."""
    model = build("pixelcnn++", **{"filters": 4, "blocks": 1, "resolutions": 1, "mixtures": 2, **config})
    return testing.awake(model, std).float()


def reads(features, x):
    """Which value of an image moves which place of a feature map: bool [C, H, W, H', W'], by derivatives."""
    weights = torch.rand(features(x).shape[1], dtype=x.dtype)[:, None, None]
    jacobian = torch.autograd.functional.jacobian(lambda x: (features(x)[0] * weights).sum(0), x)
    return (jacobian[:, :, 0] != 0).permute(2, 3, 4, 0, 1)


def network_reads(model):
    c = model.double().eval().config
    labels = torch.zeros(1, dtype=torch.long) if c.classes else None
    x = torch.rand(1, c.channels, c.height, c.width, dtype=torch.float64)
    return reads(lambda x: model.network(x, labels), x)


def assert_expected(moved, expected):
    places = itertools.product(*map(range, moved.shape[1:]))
    wrong = [place for place in places if not torch.all(moved[(slice(None), *place)] == expected(*place))]
    assert not wrong, f"(row, column) of a value, (row, column) of what it moves: {wrong[:10]}"


@pytest.mark.parametrize(
    "config",
    [
        {"height": 6, "width": 6},
        {"height": 4, "width": 6, "channels": 3, "classes": 2},
        {"height": 6, "width": 6, "resolutions": 2},
        {"height": 12, "width": 4, "resolutions": 3},
        {"height": 4, "width": 12, "resolutions": 3, "channels": 3, "blocks": 3},
    ],
)
def test_causal_and_complete(config):
    """No blind spot within reach: every earlier pixel, all its colours, moves every later one."""
    assert_expected(network_reads(awake(**config)), lambda p, q, i, j: (p, q) < (i, j))


@pytest.mark.parametrize("blocks", [1, 2])
def test_reach_of_one_resolution(blocks):
    """Only distance hides a pixel: a column and a row for each convolution, and those of the input."""
    n = 4 * blocks
    moved = network_reads(awake(blocks=blocks, height=n + 5, width=n + 5, filters=3))

    def expected(p, q, i, j):
        if p == i:
            return 0 < j - q <= n + 1
        return 0 < i - p <= n + 3 and -n - 1 <= j - q <= n + 2

    assert_expected(moved, expected)


@pytest.mark.parametrize("resolutions", [2, 3])
def test_reach_of_more_resolutions(resolutions):
    """What a coarse feature holds is seen from afar; the rest, in an odd row, within the finest reach."""
    moved = network_reads(awake(blocks=1, height=8, width=16, resolutions=resolutions, filters=3))

    def hidden(p, q, i, j):
        return i % 2 == 1 and (p == i and j - q > 6 or p == i - 1 and q - j > 6)

    assert_expected(moved, lambda p, q, i, j: (p, q) < (i, j) and not hidden(p, q, i, j))


@pytest.mark.parametrize("resolutions", [1, 2, 3])
def test_each_stream_reads_its_own_part(resolutions):
    """Every feature map: the first stream holds whole rows above, the second all earlier pixels."""
    model = awake(height=8, width=4, resolutions=resolutions).double()
    modules = [stack[0] for stack in (*model.encoder, *model.decoder)] + [*model.halving, *model.doubling]
    layers = [getattr(m, "down", None) or m[0] for m in modules], [getattr(m, "right", None) or m[1] for m in modules]
    x = torch.rand(1, 1, 8, 4, dtype=torch.float64)
    for stream, allowed in zip(layers, (lambda p, q, i, j: p < i, lambda p, q, i, j: (p, q) < (i, j)), strict=True):
        assert len(stream) == 2 * resolutions + 2 * (resolutions - 1)
        for layer in stream:
            seen = []
            handle = layer.register_forward_hook(lambda module, args, y, seen=seen: seen.append(y))

            def features(x, seen=seen):
                seen.clear()
                model.network(x, None)
                return seen[0]

            moved = reads(features, x)[0]
            handle.remove()
            step = 8 // moved.shape[2]
            assert moved.any()
            for p, q, i, j in moved.nonzero().tolist():
                assert allowed(p, q, i * step, j * step), (p, q, i, j, layer)


def test_levels_are_scaled_and_the_outside_is_marked():
    model = awake(height=2, width=2, levels=5)
    seen = []
    model.above.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.tensor([[[[0, 4], [2, 1]]]], dtype=torch.uint8))
    assert seen[0][0].tolist() == [[[-1, 1], [0, -0.5]], [[1, 1], [1, 1]]]


@pytest.mark.parametrize(
    "config",
    [
        {"height": 2, "width": 4},
        {"height": 2, "width": 4, "resolutions": 2, "mixtures": 1},
        {"height": 1, "width": 2, "levels": 3, "channels": 3},
        {"height": 1, "width": 1, "levels": 256, "mixtures": 5},
    ],
)
def test_probabilities_sum_to_one(config):
    model = awake(**config).double()
    log_prob = model.log_prob(every_image(model))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert log_prob.std() > 0.1


@pytest.mark.parametrize(
    "config",
    [
        {"height": 2, "width": 2, "resolutions": 2, "levels": 3},
        {"height": 1, "width": 2, "channels": 3, "classes": 3},
    ],
)
def test_samples_follow_the_distribution(config):
    n = 20_000
    model = awake(**config).eval()
    images = every_image(model)
    labels = (torch.full((len(images),), 2), 2) if model.config.classes else (None, None)
    p = model.log_prob(images, labels[0]).double().exp().detach()
    x = model.sample(n, seed=5, labels=labels[1])
    assert x.dtype == torch.uint8 and x.shape == (n, *images.shape[1:])
    index = (x.flatten(1).long() * model.config.levels ** torch.arange(x[0].numel()).flip(0)).sum(1)
    count = index.bincount(minlength=len(images)).double()
    common = p * n > 5
    observed = torch.cat((count[common], count[~common].sum()[None]))
    expected = torch.cat((p[common], p[~common].sum()[None])) * n
    keep = expected > 0
    assert keep.sum() > 4
    assert stats.chisquare(observed[keep].numpy(), (expected[keep] / expected[keep].sum() * n).numpy()).pvalue > 1e-3


def test_a_sample_depends_on_seed_and_index_alone():
    """With the rows so far padded to whole features of the lowest resolution."""
    model = awake(height=4, width=4, channels=3, levels=256, resolutions=3, dropout=0.5)
    x = model.sample(5, seed=11)
    assert torch.equal(torch.cat([model.sample(n, seed=11, first=i) for i, n in ((0, 1), (1, 4))]), x)
    assert len({tuple(image.flatten().tolist()) for image in x}) == 5
    assert model.training


@pytest.mark.parametrize("channels, mixtures", [(1, 10), (3, 3)])
def test_parameters_that_fit_either_number_of_channels(channels, mixtures):
    """30 parameters are 10 grey components or 3 colour ones: the model says which."""
    model = awake(height=2, width=2, channels=channels, mixtures=mixtures, levels=256)
    x = model.sample(2)
    assert x.shape == (2, channels, 2, 2) and model(x).shape == (2, 30, 2, 2)


def test_labels_move_every_pixel():
    model = awake(height=2, width=4, classes=3, resolutions=2).double()
    x = torch.randint(0, 2, (1, 1, 2, 4), dtype=torch.uint8).expand(3, -1, -1, -1)
    params = model(x, torch.arange(3))
    assert ((params[1:] - params[:1]).abs().amax(1) > 1e-6).all()
    torch.testing.assert_close(model(x[:2], torch.tensor([2, 1])), params[[2, 1]])


def test_the_components_start_apart():
    """The mean of every component, and so its gradient, differs from the first update on."""
    model = build("pixelcnn++", channels=3, height=4, width=4, levels=256, filters=8, blocks=1, mixtures=4)
    x = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    means = model(x)[:, 4:16].unflatten(1, (3, 4))
    spread = torch.tensor([-0.75, -0.25, 0.25, 0.75])[:, None, None]
    assert (means - spread).abs().max() < 0.25
    # Every level is likely enough from the first update: far from the 2**-8 of a uniform guess by little.
    assert -model.log_prob(x).mean() / 48 < 1.5 * math.log(256)


def test_every_parameter_learns():
    model = awake(height=4, width=4, levels=4, channels=3, resolutions=3, classes=2, dropout=0.5)
    x, labels = torch.randint(0, 4, (6, 3, 4, 4), dtype=torch.uint8), torch.arange(6) % 2
    assert not torch.equal(model.log_prob(x, labels), model.log_prob(x, labels))
    model.eval().log_prob(x, labels).mean().backward()
    assert torch.equal(model.log_prob(x, labels), model.log_prob(x, labels))
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]


@pytest.mark.parametrize(
    "config, error, message",
    [
        ({"height": 30}, ValueError, "multiples of 4, for 3 resolutions, such as 28x28 or 32x28; got 30 and 28"),
        (
            {"width": 27, "resolutions": 2},
            ValueError,
            "multiples of 2, for 2 resolutions, such as 28x26 or 28x28; got 28 and 27",
        ),
        ({"resolutions": 4}, ValueError, "resolutions must be at most 3; got 4"),
        ({"resolutions": 0}, ValueError, "resolutions must be at least 1; got 0"),
        ({"channels": 2}, ValueError, "channels must be 1 or 3; got 2"),
        ({"mixtures": 0}, ValueError, "mixtures must be at least 1; got 0"),
        ({"blocks": 1.0}, TypeError, "blocks must be an int; got 1.0"),
        ({"classes": -1}, ValueError, "classes must be at least 0; got -1"),
        ({"dropout": 1}, ValueError, r"dropout must be a number in \[0, 1\); got 1"),
    ],
)
def test_bad_config(config, error, message):
    with pytest.raises(error, match=message):
        PixelCNNPlusPlusConfig(**config)


def test_odd_sizes_without_down_sampling():
    model = awake(height=3, width=5)
    assert model.sample(2).shape == (2, 1, 3, 5)
