"""The accelerated ops: plain functions of tensors, each with a native and a pure PyTorch implementation.

The function of every op that `genfast.reference` has is exported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from genfast._native.autocast import following
from genfast._native.register import SCHEMAS
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS


def _public(op: str, stem: str) -> Callable:
    function = getattr(importlib.import_module(f"{__name__}.{stem}"), op)
    return following(SCHEMAS[op], function)


_FOUND = {op: _public(op, spec.stem) for op, spec in (SPECS | SAMPLERS | NON_DIFFERENTIABLE).items()}
# A module may have the name of its op: the function is what `genfast.ops` exports.
globals().update(_FOUND)
__all__ = sorted(_FOUND)
