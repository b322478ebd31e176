"""Which transforms of torch.func run."""

from __future__ import annotations

import torch
from torch._C._functorch import TransformType, get_interpreter_stack

transforms_run = torch._C._are_functorch_transforms_active
_MAPS = (TransformType.Vmap, TransformType.Jvp)


def mapped() -> bool:
    """Whether vmap or forward mode is among the torch.func transforms that run: native ops take no part in these."""
    return any(level.key() in _MAPS for level in get_interpreter_stack() or ())


# What torch.compiler.assume_constant_result sets, without its import of the whole compiler.
mapped._dynamo_marked_constant = True  # type: ignore[attr-defined]
