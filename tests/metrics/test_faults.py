"""Faults that are planted in samplers of real digits are found by name; samplers of real held-out digits have none."""

from functools import cache

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from genfast import metrics
from genfast.data import load
from genfast.metrics.intervals import at_least_of, at_most, bootstrap_means
from genfast.tasks import neighbours

N = 1000


@cache
def digits():
    """(training data, all held-out images, frequencies of the classes, the training mean)."""
    train, others = load("digits"), [load("digits", split=split) for split in ("valid", "test")]
    shares = torch.bincount(train.labels, minlength=10)
    return train, torch.cat([data.images for data in others]), shares, train.images.double().mean(0)


def classes(images):
    """The class of the nearest training image, which is right for 98.7 % of the held-out ones."""
    train = digits()[0]
    return train.labels[neighbours(images.flatten(1).float(), train.images.flatten(1).float(), 1)[1][:, 0]]


def halves(seed):
    """A random half of the held-out images to draw from, and the other half to compare with."""
    images = digits()[1]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    return images[order[:250]], images[order[250:]], generator


def faults(images, held_out, **settings):
    train, _, shares, _ = digits()
    predicted = {"predicted": classes(images), "predicted_held_out": classes(held_out), "shares": shares}
    return metrics.find_faults(images, train.images, held_out, 16, **(predicted | settings))


def drawn(source, generator, n=N):
    return source[torch.randint(len(source), (n,), generator=generator)]


def as_levels(images):
    return images.round().clamp(0, 15).to(torch.uint8)


def memorised(source, generator, share=1.0, noise=0.0, n=N):
    copies = drawn(digits()[0].images, generator, n).double() + noise * torch.randn(n, 1, 8, 8, generator=generator)
    mixed = torch.rand(n, 1, 1, 1, generator=generator) < share
    return torch.where(mixed, as_levels(copies), drawn(source, generator, n))


def without(source, generator, lost):
    return drawn(source[~torch.isin(classes(source), torch.tensor(lost))], generator)


def blurred(source, generator, sigma, share=1.0):
    x = torch.exp(-(torch.arange(-4.0, 5, dtype=torch.float64) ** 2) / (2 * sigma**2))
    kernel = torch.outer(x, x)[None, None] / x.sum() ** 2
    images = drawn(source, generator)
    smooth = F.conv2d(F.pad(images.double(), (4, 4, 4, 4), mode="replicate"), kernel)
    return torch.where(torch.rand(N, 1, 1, 1, generator=generator) < share, as_levels(smooth), images)


def averaged(source, generator, kept=0.0, noise=0.0):
    images = kept * drawn(source, generator).double() + (1 - kept) * digits()[3]
    return as_levels(images + noise * torch.randn(N, 1, 8, 8, generator=generator))


def one(source, generator):
    return as_levels(source[:1].double() + torch.randn(N, 1, 8, 8, generator=generator))


PLANTED = [
    ("memorises", memorised, {}),
    ("memorises", memorised, {"share": 0.05}),
    ("memorises", memorised, {"noise": 2.0}),
    ("memorises", memorised, {"n": 100}),
    ("drops classes", without, {"lost": [1, 4, 7]}),
    ("drops classes", without, {"lost": [0, 2, 9]}),
    ("drops classes", without, {"lost": [8]}),
    ("blurs", blurred, {"sigma": 0.5}),
    ("blurs", blurred, {"sigma": 1.0}),
    ("blurs", blurred, {"sigma": 2.0}),
    ("blurs", blurred, {"sigma": 0.8, "share": 0.4}),
    ("copies the training mean", averaged, {}),
    ("copies the training mean", averaged, {"kept": 0.4}),
    ("copies the training mean", averaged, {"noise": 2.0}),
    ("makes nearly one image", one, {}),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name, make, strength", PLANTED, ids=lambda value: str(getattr(value, "__name__", value)))
def test_a_planted_fault_is_found_by_its_name_and_no_other(name, make, strength, seed):
    source, held_out, generator = halves(seed)
    result = faults(make(source, generator, **strength), held_out, seed=seed)
    assert result.found == (name,), str(result)
    if name == "drops classes":
        assert result.tests[1].classes == tuple(sorted(strength["lost"]))


def test_a_faultless_sampler_is_flagged_in_at_most_one_of_twenty():
    """Other real images, each once or drawn with replacement; and faint or noisy ones, which are no fault by name."""
    flagged = []
    for seed in range(20):
        source, held_out, generator = halves(seed)
        for images in (source, drawn(source, generator)):
            flagged.append(bool(faults(images, held_out, seed=seed).found))
    assert sum(flagged) <= len(flagged) / 20, flagged


def test_what_cannot_be_tested_is_said():
    source, held_out, _ = halves(0)
    result = faults(source, held_out, predicted=None)
    assert result.tests[1].found is None and "without labels" in result.tests[1].words and result.found == ()
    lost = faults(source, held_out, predicted=torch.full((250,), -1))
    assert lost.tests[1].found is None and "of none" in lost.tests[1].words
    with pytest.raises(ValueError, match=r"^find_faults: predicted must be of 250 images; got 3$"):
        faults(source, held_out, predicted=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^find_faults: predicted classes must lie in -1..9; got 0 to 10$"):
        faults(source, held_out, predicted=torch.arange(250) % 11)
    with pytest.raises(ValueError, match=r"^memorisation: images, training and held_out must be sets of one shape"):
        metrics.memorisation(source[:, :, 1:], source, held_out)
    with pytest.raises(ValueError, match=r"^sharpness: images and real must be sets of one shape"):
        metrics.sharpness(source[:0], source, 16)


def test_sharpness_is_the_ratio_of_energies():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 101, (50, 3, 9, 7), generator=generator, dtype=torch.uint8)
    same, fainter = metrics.sharpness(images, images, 256), metrics.sharpness(images.double() / 2, images, 256)
    for column in ("gradient", "high_frequency", "contrast", "detail"):
        assert getattr(same, column).value == pytest.approx(1)
        expected = 1.0 if column == "detail" else 0.25
        value = getattr(fainter, column)
        assert value.value == pytest.approx(expected) and value.low < expected < value.high
    assert (same.images, same.real) == (50, 50)
    energies = metrics.image_energies(images, 256)
    x = images.double() / 255
    gradient = (x.diff(dim=2).square().sum((1, 2, 3)) + x.diff(dim=3).square().sum((1, 2, 3))) / x[0].numel()
    torch.testing.assert_close(energies[:, 0], gradient)
    middle = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    middle[0, 0, 1, 1] = 4
    blurred_away = torch.tensor([4 - 1, *4 * [-0.5], *4 * [-0.25]]).square().mean()
    assert float(metrics.image_energies(middle, 2)[0, 1]) == pytest.approx(float(blurred_away))
    copies = metrics.sharpness(images[:1].expand(500, -1, -1, -1), images, 256)
    assert copies.images == 1, "500 copies are one image"


def test_neighbour_ratios_are_those_of_the_two_nearest():
    training = torch.zeros(3, 1, 1, 8, dtype=torch.uint8)
    training[1], training[2] = 10, 100
    images = torch.stack([training[1], training[1] + 2, training[0] + 5])
    ratios, nearest = metrics.neighbour_ratios(images, training)
    assert ratios.tolist() == pytest.approx([0, 2 / 12, 1]) and nearest[:2].tolist() == [1, 1]
    shifted = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8) * 3
    moved = shifted.clone()
    moved[..., :-1] = shifted[..., 1:]
    others = torch.randint(0, 200, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ratio, which = metrics.neighbour_ratios(moved, torch.cat((others, shifted)))
    assert which.tolist() == [5] and float(ratio) < 0.1


def test_tails_are_those_of_scipy():
    for count, trials, share in ((3, 100, 0.05), (0, 30, 0.1), (30, 30, 0.2), (12, 1000, 0.02)):
        assert at_most(count, trials, share) == pytest.approx(stats.binom.cdf(count, trials, share), rel=1e-9)
    for hits, taken, marked, total in ((4, 10, 12, 50), (0, 5, 3, 20), (30, 300, 30, 600), (3, 3, 3, 9)):
        expected = stats.hypergeom.sf(hits - 1, total, marked, taken)
        assert at_least_of(hits, taken, marked, total) == pytest.approx(expected, rel=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(100):
        above, below = (torch.rand(80, generator=generator) + shift for shift in (0.5, 1.5))
        interval = metrics.ratio_interval(above, below, seed=seed)
        held += interval.low < 0.5 < interval.high
    assert 88 <= held <= 100
    one, other = torch.arange(50.0), torch.arange(50.0) + 1
    assert metrics.difference_interval(one, other) == metrics.Interval(-1.0, -1.0, -1.0)
    assert bootstrap_means(torch.ones(1, 2), 5).tolist() == 5 * [[1, 1]]
