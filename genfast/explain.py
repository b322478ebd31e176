"""Which backend runs a call, and why not the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genfast._native import backends
from genfast.engine.decoder import engine_of


def explain(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> backends.Explanation:
    """Which backend `op(*args, **kwargs)` would use, and why not the others.

    `op` is an op or its name. `explain(genfast.sample, model)` does the same for the engine that samples from a model.
    """
    name = op if isinstance(op, str) else op.__name__
    if name in ("sample", "genfast.sample"):
        return engine_of(*args, **kwargs).explanation
    return backends.explanation(name, *args, **kwargs)
