"""Models of strangers: native, equal to what their authors compute, drawn right, and left as they were."""

import functools
import math
import re

import pytest
import torch
from engine.strangers import NATIVE, OTHERS, STRANGERS
from engine.strangers.judge import judge, keywords, p_value, probabilities, random_images
from support.sampled import chi_square

import genfast

every_stranger = pytest.mark.parametrize("name", STRANGERS)
SLOW = re.compile("whole network|full forward")
judged = functools.cache(lambda name: judge(STRANGERS[name]))


def test_there_are_enough():
    assert len(NATIVE) >= 25 and len({s.name for s in NATIVE}) == len(NATIVE)
    assert all(s.model.__doc__ for s in STRANGERS.values()) and all(s.reason for s in OTHERS)


@every_stranger
def test_authors_are_right(name):
    """The judge is judged: the loss sums to one over all images, and the author's loop draws from it."""
    stranger = STRANGERS[name]
    (shape, levels), p = stranger.tiny, probabilities(stranger)
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    drawn = stranger.sample(stranger.build(shape, levels), 2000, shape, levels, **stranger.side(shape, 1))
    assert chi_square(drawn, p, levels) > 1e-4
    assert chi_square(drawn, torch.full_like(p, 1 / len(p)), levels) < 1e-9, "a flat model would do as well"


@pytest.mark.parametrize("name", [s.name for s in NATIVE])
def test_native(name):
    judgement = judged(name)
    assert judgement.backend == "cpp", judgement.others["cpp"]
    assert not [text for text in judgement.warned if SLOW.search(text)]


@pytest.mark.parametrize("name", [s.name for s in OTHERS])
def test_not_native_with_a_warning(name):
    judgement = judged(name)
    assert judgement.backend == "full_forward", STRANGERS[name].reason
    assert [text for text in judgement.warned if SLOW.search(text)], judgement.warned


def test_a_refusal_prints_nothing(capfd):
    """torch writes pages of graph where a branch on values stops its tracing."""
    stranger = STRANGERS["BranchOnValues"]
    with pytest.warns(RuntimeWarning, match=SLOW):
        assert genfast.Engine(stranger.build(), **stranger.options()).backend == "full_forward"
    assert capfd.readouterr() == ("", "")


@every_stranger
def test_log_prob_is_the_authors_loss(name):
    assert judged(name).difference < 1e-6


@every_stranger
def test_nothing_of_the_module_is_touched(name):
    judgement = judged(name)
    assert judgement.changed == [] and judgement.broken == []


@every_stranger
def test_samples(name):
    assert p_value(STRANGERS[name]) > 1e-4


def checked(name, told=None, change=lambda levels: levels):
    """`genfast.check` against the author's loss, of levels that `change` changes first."""
    stranger = STRANGERS[name]
    model, side = stranger.build(), stranger.side(stranger.shape, 1)
    labels = {"labels": int(side["labels"])} if "labels" in side else {}
    conventions = keywords(stranger, 1) | (told or {}) | labels
    images = random_images(stranger, 4)
    return genfast.check(model, images, lambda levels: stranger.nll(model, change(levels), **side), **conventions)


@pytest.mark.filterwarnings("ignore:sample:RuntimeWarning")
@every_stranger
def test_check(name):
    right = checked(name)
    assert right.ok and abs(right.difference) < 1e-4 * math.prod(STRANGERS[name].shape)


@pytest.mark.filterwarnings("ignore:sample:RuntimeWarning")
@every_stranger
def test_check_names_what_is_wrong(name):
    convention, remedy = STRANGERS[name].wrong
    wrong = checked(name, convention)
    assert not wrong.ok and re.search(remedy, wrong.remedy), wrong


def test_check_names_the_order_of_channels():
    wrong = checked("ColoursInBlocks", change=lambda levels: levels.flip(1))
    assert not wrong.ok and "channel" in wrong.remedy, wrong


@pytest.mark.parametrize("reduce", [lambda nats: nats.sum(), lambda nats: nats.mean() / math.log(2) / 64])
def test_check_takes_a_scalar(reduce):
    """The sum over a batch in nats, and bits per dimension."""
    stranger = STRANGERS["OverwrittenWeights"]
    model = stranger.build()
    images = random_images(stranger, 4)
    assert genfast.check(model, images, lambda x: reduce(stranger.nll(model, x)), **stranger.options()).ok
