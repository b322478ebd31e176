"""What sampling is measured against, and the arithmetic of a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genfast.benchmarks import timing
from genfast.benchmarks.sampling_cases import CACHED, FULL, Case
from genfast.engine.engine import Engine
from genfast.engine.full_forward import FullForward
from genfast.engine.program import Program
from genfast.likelihoods import Likelihood

ALLOWED = 1e-4  # of the largest parameter: how far an engine may be from the forward of the model
RIVAL_SECONDS = 0.25  # a rival is timed on so many pixels as it makes in about this time


def difference(engine: Engine) -> float:
    """How far the engine's parameters of two images are from the model's own forward, relative to the largest."""
    drawn = engine.run(2, seed=0, want=("parameters",))
    assert drawn.parameters is not None  # as they were wanted
    expected = engine.network.parameters(drawn.images, None)
    expected = expected.detach()
    return float((drawn.parameters - expected).abs().max() / max(1.0, float(expected.abs().max())))


def rival(
    name: str, case: Case, engine: Engine, seconds: float = RIVAL_SECONDS
) -> tuple[Callable[[], Any], int, float]:
    """A contender, the images that it draws, and the share of their pixels."""
    network, model = engine.network, engine.model
    if name == CACHED:
        eager = Engine(model, backend="torch", **case.options)
        return partial(eager.run, case.batch, seed=0), case.batch, 1.0
    images = case.rival_images or case.batch
    zeros = torch.zeros(images, *network.spec.shape, dtype=torch.uint8, device="cpu")
    forward = timing.once(partial(network.parameters, zeros, None))
    forward = min(forward, timing.once(partial(network.parameters, zeros, None)))
    spec, likelihood = network.spec, network.likelihood
    pixels = spec.height * spec.width
    count = max(1, min(pixels, int(seconds / forward / likelihood.draws)))
    places = [int((k + 0.5) * pixels / count) for k in range(count)]
    if name == FULL:
        return partial(draw_by_whole_images, network, zeros, places), images, count / pixels
    whole = Engine(model, backend="full_forward", **case.options)
    known = torch.ones_like(zeros, dtype=torch.bool)
    known.flatten(2)[:, :, places] = False
    return partial(whole.run, images, seed=0, given=zeros, known=known), images, count / pixels


def draw_by_whole_images(network: FullForward, images: Tensor, places: Iterable[int]) -> None:
    """The loop of most tutorials: the network over the whole image for each value that is drawn.

    `images`: uint8 [n, C, H, W], of which the pixels `places` are drawn.
    """
    for place in places:
        i, j = divmod(place, network.spec.width)
        for k, draw in enumerate(draws_of_a_tutorial(network.likelihood)):
            parameters = network.parameters(images, None)[:, :, i : i + 1, j : j + 1]
            values = draw(parameters.split(network.likelihood.counts, 1)[k])
            images[:, network.likelihood.drawn_channels(k), i, j] = values


def draws_of_a_tutorial(likelihood: Likelihood) -> list[Callable[[Tensor], Tensor]]:
    """How a tutorial draws each draw of a pixel, [n, 1] or [n, C], from its parameters [n, P, 1, 1]."""
    if not likelihood.takes_evidence:
        return [lambda parameters: likelihood.draw(parameters, 0)[..., 0, 0]]
    if likelihood.parameters == likelihood.channels:
        return [lambda parameters: torch.bernoulli(parameters[..., 0, 0].sigmoid())] * likelihood.draws
    return [lambda parameters: torch.multinomial(parameters[..., 0, 0].softmax(1), 1)] * likelihood.draws


def flops(program: Program) -> int:
    """Of an image, in its matrix products: twice the depth times the outputs, at every position."""
    total = 0
    for it in (it for part in (program.row, *program.pixel) for it in part):
        if it.kind == "linear":
            first, end, left, right = it.domain
            stride = program.buffers[it.buffer].stride
            rows = range(it.row_remainder, program.spec.height, it.row_modulus)
            columns = range(it.column_remainder, program.columns, it.column_modulus)
            high = sum(first <= at // stride < end for at in rows)
            wide = sum(left <= at // stride < right for at in columns)
            total += 2 * it.weight.size * high * wide
    return total


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, so many threads of torch on as many cores."""
    cores, before = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(cores)[:count])
    torch.set_num_threads(count)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)
