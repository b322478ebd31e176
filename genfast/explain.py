"""Which backend serves a call, and why not the others."""

from genfast._native import backends
from genfast.engine.decoder import engine_of


def explain(op, *args, **kwargs):
    """Which backend `op(*args, **kwargs)` would use, and why not the others; `op` may be a name.

    `explain(genfast.sample, model)` tells it of the engine that draws images from the model.
    """
    name = op if isinstance(op, str) else op.__name__
    if name in ("sample", "genfast.sample"):
        return engine_of(*args, **kwargs).explanation
    return backends.explanation(name, *args, **kwargs)
