"""Verification: whether a program computes the same as the model that it was compiled from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genfast.engine import eager
from genfast.engine.compiled import Compiled
from genfast.engine.compiler.plan import NotCausal, NotIncremental
from genfast.engine.full_forward import FullForward, at_work
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import SampleRequest

TOLERANCE = 1e-4  # of the largest output
IMAGES, PLACES = 2, 16
MOST_OUTPUTS = 2**24  # of the images that go through a forward at once


def prove(compiled: Compiled, network: FullForward) -> None:
    """Compare a program with the forward of its model on random images, and check that the model is causal.

    Raises: NotIncremental if they differ by more than 1e-4 of the largest output; NotCausal if an output changes with a
        later value.
    """
    with at_work(network.model), torch.no_grad():
        _prove(compiled, network)


def _prove(compiled: Compiled, network: FullForward) -> None:
    spec, generator = network.spec, torch.Generator("cpu").manual_seed(0)
    images = _images(spec, IMAGES, generator)
    labels = _labels(spec, IMAGES)
    expected = _parameters(network, images, labels)
    again = _parameters(network, images, labels)
    if not expected.isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for random images")
    known = torch.ones(images.shape, dtype=torch.bool, device="cpu")
    request = SampleRequest(IMAGES, labels=labels, given=images, known=known, want=("parameters",))
    condition = network.probe_condition(IMAGES)
    device = torch.device("cpu")
    got = network.comparable(compiled.run(eager.run, request, device, condition).parameters)
    scale = float(expected.abs().max()) or 1.0
    error = max(float((got - output).abs().max()) for output in (expected, again)) / scale
    if not error <= TOLERANCE:
        raise NotIncremental(
            f"sample: the program must equal the model's forward to {TOLERANCE:.0e} of its largest output; got a "
            f"difference of {error:.1e}: does forward depend on anything but its input and its weights?"
        )
    check_causal(network)


def _images(spec: ImageSpec, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator, dtype=spec.dtype, device="cpu")


def _labels(spec: ImageSpec, n: int) -> Tensor | None:
    return torch.arange(n, dtype=torch.int64, device="cpu") % spec.classes if spec.classes else None


def _parameters(network: FullForward, images: Tensor, labels: Tensor | None) -> Tensor:
    """The parameters of a foreign model for levels, on the CPU; probabilities as they are."""
    condition = network.probe_condition(len(images))
    return network.comparable(network.parameters(images.to(network.device), labels, condition).float().cpu())


def check_outputs(network: FullForward) -> None:
    """ValueError for a `FullForward` whose outputs for a random image are not finite: its weights are too large."""
    image = _images(network.spec, 1, torch.Generator("cpu").manual_seed(0)).to(network.device)
    labels = torch.zeros(1, dtype=torch.int64, device=network.device) if network.spec.classes else None
    if not network.parameters(image, labels, network.probe_condition(1)).isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for a random image")


def check_causal(network: FullForward) -> None:
    """Raise NotCausal if an output of a foreign model changes with a later value: from some place on, all values of a
    random image are changed, and no output up to there may move."""
    spec, generator = network.spec, torch.Generator("cpu").manual_seed(0)
    counts, values = network.likelihood.counts, spec.values
    order = network.order
    firsts = torch.randperm(values, generator=generator, dtype=torch.int64, device="cpu")[:PLACES].tolist()
    unchanged = _images(spec, 1, generator).repeat(len(firsts), 1, 1, 1)
    changed = unchanged.clone()
<<<<<<< HEAD
    for one, first in zip(changed, firsts):
        flat = one.flatten(1).T.reshape(-1)
        later = torch.from_numpy(order[first:])
        by = torch.randint(1, spec.levels, later.shape, generator=generator, dtype=torch.int64, device="cpu")
        flat[later] = ((by + flat[later]) % spec.levels).to(flat.dtype)
        one.copy_(flat.view(-1, spec.channels).T.view_as(one))
    labels = _labels(spec, 1)
    labels = None if labels is None else labels.expand(len(firsts))
    before, after = (_parameters(network, images, labels) for images in (unchanged, changed))
    moved = ((after - before).abs() > 1e-5 * (float(before.abs().max()) or 1.0)).flatten(2)
    draw = np.repeat(np.arange(len(counts)), counts)
    each = spec.channels // len(counts)
    for one, first in zip(moved.numpy(), firsts):
        for value in order[: first + 1]:
            pixel, channel = divmod(int(value), spec.channels)
            outputs = np.flatnonzero(one[:, pixel] & (draw == channel // each))
            if len(outputs) and not (each > 1 and channel % each):
                later, inner = divmod(int(order[first]), spec.channels)
                raise NotCausal(
                    f"sample: the model must be causal; got output {outputs[0]} of the pixel "
                    f"{divmod(pixel, spec.width)}, which moves with what comes after it, from channel {inner} of the "
                    f"pixel {divmod(later, spec.width)} on"
                )
=======
    for one, value in zip(changed, values):
        flat = one.flatten(1).T.flatten()
        sizes = flat[value:].shape
        by = torch.randint(1, spec.levels, sizes, generator=generator, dtype=torch.int64, device="cpu")
        flat[value:] = ((by + flat[value:]) % spec.levels).to(spec.dtype)
        one.copy_(flat.view(pixels, channels).T.view_as(one))
    draw = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    size = max(1, MOST_OUTPUTS // (sum(counts) * pixels))
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        before, after = forward(unchanged[part]), forward(changed[part])
        moved = ((after - before).abs() > 1e-5 * (float(before.abs().max()) or 1.0)).flatten(2)
        for one, value in zip(moved, values[part]):
            pixel, channel = divmod(value, channels)
            if one[:, :pixel].any() or one[draw <= min(channel, len(counts) - 1), pixel].any():
                place = divmod(pixel, width)
                raise NotCausal(
                    f"sample: the model must be causal; got an output that moves with what comes after it, from "
                    f"channel {channel} of the pixel {place} on"
                )


def _forward(program: Program, model: nn.Module, order: Order, images: Tensor) -> Tensor:
    """The outputs of a model as parameters [B, P, H, W], on the CPU."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    dims, features = order
    output = model(images.to(device, torch.float32) * program.scale + program.shift)
    if isinstance(output, (list, tuple)):
        output = output[0]
    output = output.permute(dims).float().cpu()
    return output.flatten(1, -3)[:, torch.from_numpy(features)] if output.dim() > 3 else output[:, None]
>>>>>>> levels
