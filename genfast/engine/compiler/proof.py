"""Verification: whether a program computes the same as the model that it was compiled from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from genfast.engine import eager
from genfast.engine.compiler.plan import NotCausal, NotIncremental
from genfast.engine.full_forward import FullForward, evaluating
from genfast.engine.program import Program
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import SampleRequest

Order = tuple[list[int], np.ndarray]
TOLERANCE = 1e-4  # of the largest output
IMAGES, PLACES = 2, 16
MOST_OUTPUTS = 2**24  # of the images that go through a forward at once


def prove(program: Program, model: nn.Module, order: Order) -> None:
    """Compare a program with the forward of its model on random images, and check that the model is causal.

    Args: program; model, a module on floats [B, C, H, W]; order, (dims, features): how the dimensions of the output
        are permuted to [B, .., H, W], and which of its features each parameter of the program is.
    Raises: NotIncremental if they differ by more than 1e-4 of the largest output; NotCausal if an output changes with a
        later value.
    """
    with evaluating(model), torch.no_grad():
        _prove(program, model, order)


def _prove(program: Program, model: nn.Module, order: Order) -> None:
    spec, generator = program.spec, torch.Generator("cpu").manual_seed(0)
    images = torch.randint(0, spec.levels, (IMAGES, *spec.shape), generator=generator, dtype=spec.dtype, device="cpu")
    expected = _forward(program, model, order, images)
    again = _forward(program, model, order, images)
    if not expected.isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for random images")
    known = torch.ones(images.shape, dtype=torch.bool, device="cpu")
    request = SampleRequest(IMAGES, given=images, known=known, want=("parameters",))
    got = eager.run(program, request).parameters
    scale = float(expected.abs().max()) or 1.0
    error = max(float((got - output).abs().max()) for output in (expected, again)) / scale
    if not error <= TOLERANCE:
        raise NotIncremental(
            f"sample: the program must equal the model's forward to {TOLERANCE:.0e} of its largest output; got a "
            f"difference of {error:.1e}: does forward depend on anything but its input and its weights?"
        )
    counts = [read.count for read in program.parameters]
    _perturb(spec, counts, lambda batch: _forward(program, model, order, batch), generator)


def check_outputs(network: FullForward) -> None:
    """ValueError for a `FullForward` whose outputs for a random image are not finite: its weights are too large."""
    spec, generator = network.spec, torch.Generator("cpu").manual_seed(0)
    image = torch.randint(0, spec.levels, (1, *spec.shape), generator=generator, dtype=spec.dtype, device="cpu")
    labels = torch.zeros(1, dtype=torch.int64, device=network.device) if spec.classes else None
    if not network.parameters(image.to(network.device), labels).isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for a random image")


def check_causal(network: FullForward) -> None:
    """Raise NotCausal if an output of a `FullForward` changes with a later value, on a random image."""
    generator = torch.Generator("cpu").manual_seed(0)
    counts = network.likelihood.counts
    _perturb(network.spec, counts, lambda batch: network.parameters(batch.to(network.device), None).cpu(), generator)


def _perturb(
    spec: ImageSpec, counts: list[int], forward: Callable[[Tensor], Tensor], generator: torch.Generator
) -> None:
    """Change all values of an image from some place on: no output up to there may change.

    Args: spec, of the images; counts, the number of parameters of each draw; forward, a function of levels
        [B, C, H, W] to parameters [B, P, H, W].
    """
    channels, width, pixels = spec.channels, spec.width, spec.height * spec.width
    values = torch.randperm(pixels * channels, generator=generator, dtype=torch.int64, device="cpu")[:PLACES].tolist()
    image = torch.randint(0, spec.levels, spec.shape, generator=generator, dtype=spec.dtype, device="cpu")
    unchanged = image.repeat(len(values), 1, 1, 1)
    changed = unchanged.clone()
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
