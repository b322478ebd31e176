"""One step of training of each model, as its recipes have it, beside the same in plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from genfast import models
from genfast._native import backends
from genfast.benchmarks import matching, work
from genfast.benchmarks.rows import EAGER, OURS
from genfast.benchmarks.runner import Case, Prepared, on_reference
from genfast.train.config import AdversarialConfig, TrainConfig, is_adversarial
from genfast.train.diagnosis import loss_of
from genfast.train.memory import keep_freed_memory
from genfast.train.optim import make_optimizer
from genfast.train.presets import PRESETS, Recipe

# Data set -> what a model of it is told: channels, height, width, levels, classes.
DATA = {
    "digits": (1, 8, 8, 16, 10),
    "mnist-binary": (1, 28, 28, 2, 0),
    "mnist": (1, 28, 28, 256, 10),
    "photos": (3, 32, 32, 256, 0),
    "digit-outlines": (1, 32, 32, 256, 0),
    "photo-edges": (3, 64, 64, 256, 0),
}
SMALL = ("digits", "digit-outlines")
STEPS = 2  # whose losses are compared
FEW = 8  # images of a quick run


def cases(quick: bool, against: Sequence[str]) -> list[Case]:
    """A case for each recipe; `quick`: those of the smallest images, and of no model more than one."""
    made = []
    for model, recipes in PRESETS.items():
        wanted = [recipe for recipe in recipes.values() if recipe.data in DATA]
        if quick:
            wanted = [recipe for recipe in wanted if recipe.data in SMALL][:1]
        for recipe in wanted:
            channels, height, width, *_ = DATA[str(recipe.data)]
            count = FEW if quick else recipe.train["batch"]
            shape = f"{recipe.name} B={count} {channels}x{height}x{width}"
            prepare = partial(_prepare, model, recipe, count, tuple(against))
            made.append(Case("training", model, shape, "float32", "step", prepare))
    return made


@cache
def _built(model: str, name: str) -> nn.Module:
    """A model as it is before its training, kept over the passes."""
    recipe = PRESETS[model][name]
    channels, height, width, levels, classes = DATA[str(recipe.data)]
    config = models.MODELS[model][1]
    conditional = config.is_always_conditional() if recipe.conditional is None else recipe.conditional
    told = {"channels": channels, "height": height, "width": width, "levels": levels}
    if conditional:
        told["classes"] = classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.build(model, **(told | recipe.model))


def _prepare(model: str, recipe: Recipe, count: int, against: Sequence[str]) -> Prepared:
    keep_freed_memory()  # as `genfast train` does
    made = _built(model, recipe.name)
    batch = _batch(made, count)
    contenders: dict[str, Callable[[], Any]] = {OURS: _step(copy.deepcopy(made), recipe, batch)}
    if EAGER in against:
        contenders[EAGER] = on_reference(_step(copy.deepcopy(made), recipe, batch))
    missing = {name: "steps are not compiled" for name in against if name != EAGER}
    counted = on_reference(_step(copy.deepcopy(made), recipe, batch))
    return Prepared(
        contenders,
        missing=missing,
        images=len(batch[0]),
        check=partial(_check, made, recipe, batch),
        work=lambda: (work.flops(counted), 0),
        kept=partial(_kept, copy.deepcopy(made), batch),
    )


def _batch(model: Any, count: int) -> tuple[Tensor, ...]:
    """Random images of a model, with what else its losses take."""
    generator, spec = torch.Generator("cpu").manual_seed(0), model.spec

    def levels(shape: Sequence[int], below: int) -> Tensor:
        return torch.randint(below, (count, *shape), generator=generator, dtype=torch.uint8, device="cpu")

    images = levels(spec.shape, spec.levels)
    if is_adversarial(model) and model.takes_pairs:
        return levels(model.source.shape, model.source.levels), images
    if spec.classes:
        return images, torch.randint(spec.classes, (count,), generator=generator, dtype=torch.int64, device="cpu")
    return (images,)


def _step(model: Any, recipe: Recipe, batch: tuple[Tensor, ...]) -> Callable[[], list[float]]:
    """A step of training, which gives the losses that it made smaller."""
    model.train()
    return _adversarial(model, recipe, batch) if is_adversarial(model) else _likelihood(model, recipe, batch)


def _likelihood(model: Any, recipe: Recipe, batch: tuple[Tensor, ...]) -> Callable[[], list[float]]:
    config = TrainConfig(**recipe.train)
    optimizer, parameters = make_optimizer(model, config), list(model.parameters())

    def step() -> list[float]:
        loss = loss_of(model, batch).mean()
        optimizer.zero_grad(set_to_none=True)
        (loss / batch[0][0].numel()).backward()
        nn.utils.clip_grad_norm_(parameters, config.clip or float("inf"))
        optimizer.step()
        return [float(loss.detach())]

    return step


def _adversarial(model: Any, recipe: Recipe, batch: tuple[Tensor, ...]) -> Callable[[], list[float]]:
    config = AdversarialConfig(**recipe.train)
    rates = {"discriminator": config.discriminator_lr or config.lr, "generator": config.lr}
    sides = {"discriminator": model.discriminator, "generator": model.generator}
    losses = {"discriminator": model.discriminator_loss, "generator": model.generator_loss}
    optimizers = {
        side: torch.optim.Adam(network.parameters(), lr=rates[side], betas=config.betas, fused=True)
        for side, network in sides.items()
    }

    def descend(side: str) -> float:
        loss, _ = losses[side](*batch)
        optimizers[side].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(sides[side].parameters(), config.clip or float("inf"))
        optimizers[side].step()
        return float(loss.detach())

    def step() -> list[float]:
        found = [descend("discriminator") for _ in range(model.discriminator_steps)]
        sides["discriminator"].requires_grad_(False)
        found.append(descend("generator"))
        sides["discriminator"].requires_grad_(True)
        return found

    return step


def _check(made: nn.Module, recipe: Recipe, batch: tuple[Tensor, ...]) -> matching.Match:
    """The losses of the first steps against those on the reference, from the same state and random numbers."""
    got = _losses(_step(copy.deepcopy(made), recipe, batch))
    with backends.reference_only():
        expected = _losses(_step(copy.deepcopy(made), recipe, batch))
    return matching.match({"losses": got.float()}, {"losses": expected}, slack=50)


def _losses(step: Callable[[], list[float]]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return torch.tensor([step() for _ in range(STEPS)], dtype=torch.float64, device="cpu")


def _kept(model: Any, batch: tuple[Tensor, ...]) -> int:
    """Of the loss of the generator, or the only one."""
    run = partial(model.generator_loss, *batch) if is_adversarial(model) else partial(loss_of, model, batch)
    return work.kept_bytes(run, [batch, [*model.parameters()], [*model.buffers()]])
