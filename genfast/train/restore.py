"""What a checkpoint must hold for a run to continue from it: all of it is checked before any of it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genfast._config import check_options
from genfast._tensors import Kind

SCALAR = Kind((), torch.float32)
# Nats per value of which no likelihood is better: a density of exp(50).
BEST_NATS = -50.0


@dataclass
class TrainState:
    """What a checkpoint holds beside its tensors.

    Attributes:
        step, counted: updates, and those of them since the last record.
        seconds: of training.
        train: the settings.
        images: checksums of the training and of the validation images.
        idle: parameters without moments by optimizer and number, as no loss has depended on them; None: not known.
        best_nats, best_step: validation loss and step of the weights in RUN/model; None and 0: there are none.
    """

    step: int = field(metadata={"ge": 0, "le": 10**9})
    counted: int = field(metadata={"ge": 0})
    seconds: float = field(metadata={"ge": 0})
    train: dict[str, Any]
    images: list[str]
    idle: list[str] | None = None
    best_nats: float | None = None
    best_step: int = field(default=0, metadata={"ge": 0})

    def __post_init__(self) -> None:
        check_options(self)
        if len(self.images) != 2 or not all(isinstance(text, str) for text in [*self.images, *(self.idle or [])]):
            raise ValueError(f"TrainState: images must be two texts, idle texts; got {self.images} and {self.idle}")
        for name, value in (("counted", self.counted), ("best_step", self.best_step)):
            if value > self.step:
                raise ValueError(f"TrainState: {name} must be at most the step, {self.step}; got {value}")
        if bool(self.best_step) != (self.best_nats is not None):
            got = f"{self.best_nats} and {self.best_step}"
            raise ValueError(f"TrainState: best_nats and best_step must both be there or not; got {got}")


def check_reach(state: TrainState, steps: int, values: int) -> None:
    """ValueError for a state that no run of so many steps on images of so many values can reach."""
    if state.step > steps:
        raise ValueError(f"step must be at most {steps}, the last; got {state.step}")
    if state.best_nats is not None and not BEST_NATS * values <= state.best_nats:
        raise ValueError(f"best_nats must be at least {BEST_NATS:g} for each of {values} values; got {state.best_nats}")


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters by the numbers that the state of an optimizer has for them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def idle_parameters(optimizers: Mapping[str, torch.optim.Optimizer]) -> list[str]:
    """The parameters without moments, such as `generator.3`."""
    return [
        f"{prefix}.{number}"
        for prefix, optimizer in optimizers.items()
        for number, parameter in enumerate(parameters_of(optimizer))
        if parameter not in optimizer.state
    ]


def moment_kinds(
    optimizers: Mapping[str, torch.optim.Optimizer], state: TrainState, there: Iterable[str]
) -> dict[str, Kind]:
    """The kinds of the tensors of Adam's state, by name; `there`: the tensors of the checkpoint."""
    if state.step == 0:
        return {}
    names = set(there)
    kinds: dict[str, Kind] = {}
    for prefix, optimizer in optimizers.items():
        for number, parameter in enumerate(parameters_of(optimizer)):
            name = f"{prefix}.{number}"
            parts = {f"{name}.step": SCALAR, f"{name}.exp_avg": Kind.of(parameter)}
            parts[f"{name}.exp_avg_sq"] = parts[f"{name}.exp_avg"]
            if name in state.idle if state.idle is not None else not names & parts.keys():
                continue
            kinds |= parts
    return kinds


def check_finite(name: str, tensor: Tensor) -> None:
    """ValueError for values that are not finite."""
    if tensor.is_floating_point() and (bad := int((~tensor.isfinite()).sum())):
        raise ValueError(f"{name} must be finite; got {bad} values that are not")


def check_moments(name: str, tensor: Tensor, updates: int) -> None:
    """ValueError for a part of Adam's state that so many updates cannot have given."""
    if name.endswith(".exp_avg_sq") and bool((tensor < 0).any()):
        raise ValueError(f"{name} must be at least 0; got {float(tensor.min())}")
    if name.endswith(".step") and not (1 <= float(tensor) <= updates and float(tensor).is_integer()):
        raise ValueError(f"{name} must be a whole number from 1 to {updates}; got {float(tensor)}")
