"""The accelerated ops: plain functions of tensors, each with a native and a pure PyTorch implementation.

The function of every op that `genfast.reference` has is exported.
"""

from __future__ import annotations

import importlib

from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

_FOUND = {
    op: getattr(importlib.import_module(f"{__name__}.{spec.stem}"), op)
    for op, spec in (SPECS | SAMPLERS | NON_DIFFERENTIABLE).items()
}
# A module may have the name of its op: the function is what `genfast.ops` exports.
globals().update(_FOUND)
__all__ = sorted(_FOUND)
