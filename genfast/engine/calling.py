"""How a model is called: a copy of a foreign one, in evaluation mode, with what its conventions say."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genfast._text import first_line
from genfast.engine.conventions import OF_FLOATS, Conventions
from genfast.engine.protocols import ImageSpec

PROBES = 2  # images of a probe: with a single one, what squeezes loses its batch
# For each model that is in `evaluating`: how many are inside, and the modules that were in training mode before.
_EVALUATING: dict[Any, tuple[int, list[nn.Module]]] = {}
_MODES = threading.Lock()


def probe_images(spec: ImageSpec, n: int = PROBES) -> tuple[Tensor, Tensor | None]:
    """Random levels int64 [n, C, H, W], the same at every call, and labels 0, 1, .. of a conditional model, again and
    again."""
    # A generator of its own: the user's would give other numbers after a sampling than before it.
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.randint(spec.levels, (n, *spec.shape), generator=generator, dtype=torch.int64, device="cpu")
    labels = torch.arange(n, dtype=torch.int64, device="cpu") % spec.classes if spec.classes else None
    return images, labels


def scale_of(conventions: Conventions) -> tuple[float, float]:
    """(scale, shift): a level v enters the model as v * scale + shift."""
    if conventions.inputs not in OF_FLOATS:
        return 1.0, 0.0
    assert conventions.input_range is not None  # it was given or inferred
    low, high = conventions.input_range
    return (high - low) / (conventions.spec.levels - 1), low


def inputs_of(conventions: Conventions, images: Tensor, dtype: torch.dtype) -> Tensor:
    """What a foreign model is given for levels [B, C, R, W]."""
    if conventions.inputs == "levels":
        return images.long()
    if conventions.inputs == "codes":
        return images[:, 0].long()
    if conventions.inputs == "flat-levels":
        return images.flatten(1).long()
    scale, shift = scale_of(conventions)
    x = images.float() * torch.tensor(scale, dtype=torch.float32, device="cpu") + shift
    x = x.to(dtype)
    return x.flatten(1) if conventions.inputs == "flat" else x


def call_error(
    conventions: Conventions, plain: Sequence[Tensor], condition: Mapping[str, Tensor], error: Exception
) -> ValueError:
    """What genfast calls, and what the model raised, such as "model(x) with float32 [2, 3, 32, 32] in input_range
    (-1, 1)". `plain`: the images and, if there are some, the labels."""
    call = ", ".join((*("x", "labels")[: len(plain)], *(f"{name}={name}" for name in condition)))
    kinds = kinds_of([*plain, *condition.values()])
    if conventions.input_range:
        kinds[0] += " in input_range ({:g}, {:g})".format(*conventions.input_range)
    return ValueError(
        f"sample: genfast calls model({call}) with {', '.join(kinds)}, which must work; got {type(error).__name__}: "
        f"{first_line(error)}"
    )


def kinds_of(values: Sequence[Tensor]) -> list[str]:
    """The dtype and the shape of each, such as "float32 [2, 3, 32, 32]"."""
    return [f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" for value in values]


def plain(output: Any) -> Any:
    """What forward returned; of an object that holds logits, such as a distribution, a dict of these."""
    if isinstance(output, (Tensor, Mapping, tuple, list)):
        return output
    try:
        logits = output.logits
    except AttributeError:
        return output
    return {"logits": logits} if isinstance(logits, Tensor) else output


def copied(model: nn.Module) -> Any:
    """A deep copy of a model, also of one with weights that hooks have computed, which are no leaves."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]:
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    with torch.no_grad():
        return copy.deepcopy(model, memo)


@contextmanager
def at_work(model: Any) -> Iterator[None]:
    """A context in which a model is in evaluation mode, and after which the random state of torch is as before."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), evaluating(model):
        yield


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A context with the model in evaluation mode; afterwards each module is in its previous mode.

    Of several threads with one model the last that leaves restores the modes: another may still be computing.
    """
    with _MODES:
        users, training = _EVALUATING.pop(model, (0, []))
        training = training + [module for module in model.modules() if module.training]
        _EVALUATING[model] = users + 1, training
        model.eval()
    try:
        yield
    finally:
        with _MODES:
            users, training = _EVALUATING.pop(model)
            if users > 1:
                _EVALUATING[model] = users - 1, training
            else:
                for module in training:
                    module.training = True
