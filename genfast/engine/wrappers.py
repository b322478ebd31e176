"""The model inside the wrappers of torch: what is compiled, averaged or spread over devices is drawn from as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import nn

F = TypeVar("F", bound=Callable[..., Any])
# Where torch has classes that hold a model as their `module`: DataParallel and DistributedDataParallel,
# FullyShardedDataParallel, AveragedModel. `torch.compile` holds it as `_orig_mod`.
HOLDERS = ("torch.nn.parallel.", "torch.distributed.", "torch.optim.swa_utils")


def unwrapped(model: Any) -> Any:
    """The model in any number of torch's wrappers; anything else as it is."""
    while isinstance(model, nn.Module) and (inner := _held(model)) is not None:
        model = inner
    return model


def _held(model: nn.Module) -> nn.Module | None:
    held = model._modules
    if len(held) == 1 and "_orig_mod" in held:
        return held["_orig_mod"]
    if "module" in held and any(base.__module__.startswith(HOLDERS) for base in type(model).__mro__):
        return held["module"]
    return None


def unwraps(verb: F) -> F:
    """Decorator of a function whose first argument is a model: it is given the model without wrappers."""

    @functools.wraps(verb)
    def call(model: Any, *args: Any, **kwargs: Any) -> Any:
        return verb(unwrapped(model), *args, **kwargs)

    return cast(F, call)
