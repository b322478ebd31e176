"""What genfast makes of a stranger's model: the path it takes, and how far it is from what the author computes."""

import warnings
from dataclasses import dataclass

import torch
from support.sampled import chi_square

import genfast

from .stranger import Stranger, changed, every_image, state

IMAGES, DRAWS = 6, 4000


@dataclass(frozen=True)
class Judgement:
    """Attributes:
    backend: that draws.
    others: the reasons against the other backends.
    warned: the warnings, which a path that is not native must give.
    difference: the largest of |genfast's nats - the author's| / the author's, over images.
    changed: what of the module is other than before, by name.
    broken: batch sizes at which the author's forward gives other bits than that of an untouched model, or an error.
    """

    backend: str
    others: dict[str, str]
    warned: list[str]
    difference: float
    changed: list[str]
    broken: list[str]


def random_images(stranger: Stranger, n: int) -> torch.Tensor:
    """Levels [n, C, H, W], uint8 as far as they go."""
    generator = torch.Generator().manual_seed(1)
    dtype = torch.uint8 if stranger.levels <= 256 else torch.int32
    return torch.randint(stranger.levels, (n, *stranger.shape), generator=generator).to(dtype)


def keywords(stranger: Stranger, rows: int, shape=None, levels=None) -> dict:
    """All that genfast is told for so many images: conventions, labels, and the condition."""
    return stranger.options(shape, levels) | stranger.side(shape or stranger.shape, rows)


def judge(stranger: Stranger) -> Judgement:
    """Sample from the model, score images, and compare with an untouched one."""
    model, untouched = stranger.build(), stranger.build()
    images, told = random_images(stranger, IMAGES), keywords(stranger, IMAGES)
    before = state(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Labels and conditions of six images; so many are drawn.
        drawn = genfast.sample(model, IMAGES, seed=0, **told)
        nats = -genfast.log_prob(model, images, **told)
    explanation = genfast.explain(genfast.sample, model, **without_labels(told))
    touched = changed(before, state(model))
    assert drawn.shape == images.shape and drawn.dtype == images.dtype and int(drawn.max()) < stranger.levels
    own = stranger.nll(untouched, images, **stranger.side(stranger.shape, IMAGES))
    return Judgement(
        explanation.backend,
        explanation.others,
        [str(warning.message) for warning in caught],
        ((nats - own).abs() / own).max().item(),
        touched,
        broken(stranger, model),
    )


def without_labels(told: dict) -> dict:
    return {key: value for key, value in told.items() if key != "labels"}


@torch.no_grad()
def broken(stranger: Stranger, model: torch.nn.Module) -> list[str]:
    """The batch sizes at which forward is other than that of an untouched model, the larger first: some authors keep
    what the first batch needs."""
    untouched, found = stranger.build(), []
    for size in (16, 5):
        levels, side = random_images(stranger, size).long(), stranger.side(stranger.shape, size)
        try:
            outputs = [leaves(stranger.output(m, levels, stranger.levels, side)) for m in (model, untouched)]
        except RuntimeError as error:
            found.append(f"{size}: {error}")
            continue
        if not all(torch.equal(a, b) for a, b in zip(*outputs)):
            found.append(f"{size}: other bits")
    return found


def leaves(output) -> list[torch.Tensor]:
    """The tensors of what forward returns."""
    if isinstance(output, dict):
        output = list(output.values())
    return [output] if isinstance(output, torch.Tensor) else [value for value in output if value is not None]


def p_value(stranger: Stranger, draws: int = DRAWS) -> float:
    """Of the samples of images that are few enough to be listed, by the probabilities of the author's loss."""
    shape, levels = stranger.tiny
    model, told = stranger.build(shape, levels), keywords(stranger, 1, shape, levels)
    if "labels" in told:
        told["labels"] = int(told["labels"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `judge` keeps them
        drawn = genfast.sample(model, draws, seed=0, **told)
    return chi_square(drawn, probabilities(stranger), levels)


def probabilities(stranger: Stranger) -> torch.Tensor:
    """Of every image of `tiny`, by the author's loss, float64 [N]."""
    shape, levels = stranger.tiny
    images, side = every_image(shape, levels), stranger.side(shape, 1)
    return torch.exp(-stranger.nll(stranger.build(shape, levels), images, levels, **side))
