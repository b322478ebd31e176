"""Ties of colour with content: planted ones are found, clean sets are clean, whatever the colours are and where."""

import numpy as np
import pytest
import torch
from support.coloured import PAIRS, coloured, same_partition

from genfast.audit import column
from genfast.audit.pixels import factors, groups, take_apart
from genfast.audit.run import LEVEL
from genfast.audit.ties import planted, power, ties_of


@pytest.mark.parametrize("ground", (False, True), ids=("ink", "ground"))
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_an_image_is_taken_apart(pair, ground):
    """The content is that of the grey image, whatever the colours; the colours are found exactly."""
    images, _, colour, v = coloured(300, None, seed=1, pair=pair, ground=ground)
    parts = take_apart(images, 256)
    wanted = v / v.flatten(1).amax(1)[:, None, None]
    turned = 1 - wanted
    error = torch.minimum(
        (parts.content[:, 0] - wanted).abs().flatten(1).amax(1), (parts.content[:, 0] - turned).abs().flatten(1).amax(1)
    )
    assert float(error.max()) < 0.02, int(error.argmax())
    (found, *_) = factors(parts)
    assert found.name == "colour" and not found.continuous and same_partition(found.codes, colour)


def test_content_does_not_follow_the_colours():
    """The same digits in other colours have the same content, within the rounding to levels."""
    one, *_ = coloured(200, None, seed=2, pair=PAIRS[0])
    other, *_ = coloured(200, None, seed=2, pair=PAIRS[1])
    a, b = (take_apart(images, 256).content for images in (one, other))
    assert float((a - b).abs().max()) < 0.03


@pytest.mark.parametrize("share, least", ((0.9, 3), (0.7, 3), (0.6, 2)))
def test_planted_ties_are_found(share, least):
    found = []
    for seed in range(3):
        images, y, *_ = coloured(1200, share, seed=seed, pair=PAIRS[seed], ground=seed == 1)
        every = ties_of(images, 256, [column("digit", list(map(str, y.tolist())))])
        assert {t.other for t in every.ties} == {"content", "digit"}
        found.append(min(q for t, q in zip(every.ties, every.q) if t.other == "content") <= LEVEL)
        assert min(q for t, q in zip(every.ties, every.q) if t.other == "digit") <= LEVEL
    assert sum(found) >= least


def test_clean_sets_are_clean():
    """Of 12 p-values that are uniform, 3 below 0.02 have a probability of 0.002."""
    p = []
    for seed in range(12):
        images, y, *_ = coloured(500, None, seed=20 + seed, pair=PAIRS[seed % 3], ground=seed % 2 == 1)
        p += [t.result.p for t in ties_of(images, 256).ties if t.factor.name == "colour"]
    assert len(p) == 12 and sum(value < 0.02 for value in p) < 3 and np.mean(p) > 0.25, p


def test_many_colours():
    rng = np.random.default_rng(0)
    hues = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.float32)
    for tied in (False, True):
        _, y, _, v = coloured(1000, None, seed=3)
        drawn = torch.from_numpy(rng.integers(0, 6, 1000))
        own = torch.where(torch.from_numpy(rng.random(1000) < 0.5), y % 6, drawn) if tied else drawn
        images = (255 * hues[own][:, :, None, None] * v[:, None]).round().to(torch.uint8)
        (t, *_) = ties_of(images, 256).ties
        assert same_partition(t.factor.codes, own) and (t.result.p <= LEVEL) == tied


def test_colours_without_gaps():
    """Hues of the whole circle are cut, and a tie of theirs is found."""
    rng = np.random.default_rng(1)
    for tied in (False, True):
        _, y, _, v = coloured(1000, None, seed=4)
        angle = (
            torch.from_numpy(rng.random(1000)) * 6.28
            if not tied
            else y * 0.628 + torch.from_numpy(rng.normal(0, 1.0, 1000))
        )
        hues = torch.stack([0.5 + 0.5 * torch.cos(angle - shift) for shift in (0, 2.094, 4.189)], 1).float()
        images = (255 * hues[:, :, None, None] * v[:, None]).round().to(torch.uint8)
        (t, *_) = (t for t in ties_of(images, 256).ties if t.factor.name == "colour")
        assert t.factor.continuous and (t.result.p <= LEVEL) == tied


def test_lighting():
    """Dark and light grey images are two groups; a tie of theirs is found; grey digits as they are have no factor."""
    rng = np.random.default_rng(2)
    for tied in (False, True):
        _, y, _, v = coloured(800, None, seed=5)
        light = (y < 5) if tied else torch.from_numpy(rng.random(800) < 0.5)
        images = (255 * v * torch.where(light, 1.0, 0.4)[:, None, None])[:, None].round().to(torch.uint8)
        (t,) = ties_of(images, 256).ties
        assert t.factor.name == "lighting" and same_partition(t.factor.codes, light.long())
        assert (t.result.p <= LEVEL) == tied
    assert not ties_of((255 * v)[:, None].round().to(torch.uint8), 256).ties


def test_groups():
    generator = torch.Generator().manual_seed(0)
    spread = 0.02 * torch.randn(600, 2, generator=generator)
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    own = torch.arange(600) % 3
    assert same_partition(groups(centres[own] + spread), own)
    assert int(groups(torch.rand(600, 2, generator=generator)).max()) == 0
    assert int(groups(0.01 * torch.rand(600, 2, generator=generator)).max()) == 0
    few = centres[own] + spread
    few[0] = torch.tensor([5.0, 5.0])
    assert int(groups(few)[0]) == -1


def test_power_is_what_is_found():
    """What the audit says it would find of a column is what it finds of planted sets, within their number."""
    rng = np.random.default_rng(3)
    y = torch.from_numpy(rng.integers(0, 10, 1000))
    said = planted(y, y[None], LEVEL)
    assert said.found[0] < 0.2 and said.found[-1] == 1.0 and 0.54 <= said.smallest <= 0.65
    assert list(said.found) == sorted(said.found) or max(np.diff(said.found)) > -0.2
    images, y, *_ = coloured(1000, None, seed=6)
    every = ties_of(images, 256)
    assert 0.54 <= power(every.content, every.partitions, LEVEL).smallest <= 0.7
