"""Verification: whether a program computes the same as the model that it was compiled from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genfast._native import backends
from genfast.engine import cpp, eager
from genfast.engine.calling import PROBES, at_work, probe_images
from genfast.engine.compiled import Compiled
from genfast.engine.compiler.plan import NotCausal, NotIncremental
from genfast.engine.full_forward import FullForward, differ, is_close
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import SampleRequest

TOLERANCE = 1e-4  # of an output, or of the size of most
MOVED = 1e-5  # the same, of what moves with a change
MOST_OUTPUTS = 2**24  # of the images that go through a forward at once


def prove(compiled: Compiled, network: FullForward) -> None:
    """Compare a program with the forward of its model on random images, and check that the model is causal.

    Raises: NotIncremental if they differ by more than 1e-4 of their size; NotCausal if an output changes with a
        later value.
    """
    with at_work(network.model), torch.no_grad():
        _prove(compiled, network)


def _prove(compiled: Compiled, network: FullForward) -> None:
    images, labels = _probe(network.spec)
    expected = parameters(network, images, labels)
    again = parameters(network, images, labels)
    if not expected.isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for random images")
    known = torch.ones(images.shape, dtype=torch.bool, device="cpu")
    request = SampleRequest(len(images), labels=labels, given=images, known=known, want=("parameters",))
    condition = network.probe_condition(len(images))
    device = torch.device("cpu")
    run = cpp.run if backends.backends()["cpp"].available else eager.run
    got = network.comparable(compiled.run(run, request, device, condition).parameters)
    for output in (expected, again):
        if differ(got, output, TOLERANCE).any():
            error = float((got - output).abs().max())
            raise NotIncremental(
                f"sample: the program must equal the model's forward to {TOLERANCE:.0e} of its outputs; got a "
                f"difference of {error:.1e}: does forward depend on anything but its input and its weights?"
            )
    # The program is causal by its order, and equals the model: few places are enough.
    check_causal(network, 4)


def random_images(spec: ImageSpec, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator, dtype=spec.dtype, device="cpu")


def _probe(spec: ImageSpec) -> tuple[Tensor, Tensor | None]:
    """`probe_images`, of the dtype of images."""
    images, labels = probe_images(spec)
    return images.to(spec.dtype), labels


def parameters(network: FullForward, images: Tensor, labels: Tensor | None, same: bool = False) -> Tensor:
    """The parameters of a foreign model for levels, on the CPU; probabilities as they are.

    same: one condition for all.
    """
    condition = network.probe_condition(1 if same else len(images))
    condition = {name: value.expand(len(images), *value.shape[1:]) for name, value in condition.items()}
    return network.comparable(network.parameters(images.to(network.device), labels, condition).float().cpu())


def check_outputs(network: FullForward) -> None:
    """ValueError for a `FullForward` whose outputs for a random image are not finite: its weights are too large."""
    image = random_images(network.spec, 1, torch.Generator("cpu").manual_seed(0)).to(network.device)
    labels = torch.zeros(1, dtype=torch.int64, device=network.device) if network.spec.classes else None
    if not network.parameters(image, labels, network.probe_condition(1)).isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for a random image")


def check_repeatable(network: FullForward) -> None:
    """ValueError for a foreign model that gives the same images other outputs at every call."""
    images, labels = _probe(network.spec)
    fresh = network.fresh()
    with at_work(fresh.model):
        first, *others = (parameters(fresh, images, labels) for _ in range(3))
    for other in others:
        if not is_close(other, first):
            error = float((other - first).abs().max())
            raise ValueError(
                f"sample: the model must return the same for the same images; got outputs that differ by {error:.2g}: "
                "forward must not draw random numbers or masks, count calls, or change its weights"
            )
    _check_apart(network, images, labels, first)


def _check_apart(network: FullForward, images: Tensor, labels: Tensor | None, expected: Tensor) -> None:
    """ValueError for a foreign model whose outputs for an image depend on the other images of a batch."""
    others = ((images.long() + 1) % network.spec.levels).to(images.dtype)
    others[0] = images[0]
    with at_work(network.model):
        got = parameters(network, others, labels)
    if not is_close(got[:1], expected[:1]):
        raise ValueError(
            "sample: the model must give an image the same whatever else is in the batch; got outputs that differ by "
            f"{float((got[0] - expected[0]).abs().max()):.2g}: does forward mix the batch, such as a layer that takes "
            "batch_first=True?"
        )


def labels_matter(network: FullForward) -> bool:
    """Whether a foreign model that takes labels gives random images other outputs for others of them."""
    images, labels = _probe(network.spec)
    assert labels is not None  # the model takes some
    given, others = (parameters(network, images, one) for one in (labels, (labels + 1) % network.spec.classes))
    return not torch.equal(given, others)


def check_causal(network: FullForward, places: int = 16) -> None:
    """Raise NotCausal if an output of a foreign model changes with a later value: from some place on, all values of a
    random image are changed, and no output up to there may move."""
    spec, generator = network.spec, torch.Generator("cpu").manual_seed(0)
    counts, values = network.likelihood.counts, spec.values
    order = network.order
    firsts = torch.randperm(values, generator=generator, dtype=torch.int64, device="cpu")[:places].tolist()
    unchanged = random_images(spec, 1, generator)
    changed = unchanged.repeat(len(firsts), 1, 1, 1)
    for one, first in zip(changed, firsts):
        flat = one.flatten(1).T.reshape(-1).clone()
        later = torch.from_numpy(order[first:])
        by = torch.randint(1, spec.levels, later.shape, generator=generator, dtype=torch.int64, device="cpu")
        flat[later] = ((by + flat[later]) % spec.levels).to(flat.dtype)
        one.copy_(flat.view(-1, spec.channels).T.view_as(one))
    # Of each output of each pixel: how many values are drawn before it.
    number = np.empty(values, np.int64)
    number[order] = np.arange(values)
    first_channel = np.repeat(np.arange(len(counts)) * (spec.channels // len(counts)), counts)
    numbers = torch.from_numpy(number.reshape(-1, spec.channels)[:, first_channel].T.copy())
    size = max(PROBES, MOST_OUTPUTS // (sum(counts) * spec.height * spec.width))
    for start in range(0, len(firsts), size):
        part = slice(start, start + size)
        batch = torch.cat((unchanged, changed[part]))
        labels = torch.zeros(len(batch), dtype=torch.int64, device="cpu") if spec.classes else None
        whole = parameters(network, batch, labels, same=True)
        moved = differ(whole[1:], whole[:1], MOVED).flatten(2)
        for one, first in zip(moved, firsts[part]):
            wrong = (one & (numbers <= first)).nonzero()
            if len(wrong):
                output, pixel = wrong[0].tolist()
                place, channel = divmod(int(order[first]), spec.channels)
                raise NotCausal(
                    f"sample: the model must be causal; got output {output} of the pixel {divmod(pixel, spec.width)}, "
                    f"which moves with what comes after it, from channel {channel} of the pixel "
                    f"{divmod(place, spec.width)} on"
                )
