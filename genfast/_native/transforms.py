"""Which transforms of torch.func run, and whether a graph is made."""

from __future__ import annotations

import torch
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.fx.experimental.proxy_tensor import get_proxy_mode

transforms_run = torch._C._are_functorch_transforms_active
_MAPS = (TransformType.Vmap, TransformType.Jvp)


def mapped() -> bool:
    """Whether vmap or forward mode is among the torch.func transforms that run: native ops take no part in these."""
    return any(level.key() in _MAPS for level in get_interpreter_stack() or ())


# What torch.compiler.assume_constant_result sets, without its import of the whole compiler.
mapped._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_traced() -> bool:
    """Whether make_fx records what runs: a graph is made of the example's values."""
    # Either has a mode of its own on a stack, whose length takes a tenth of the time.
    modes = torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack()
    return bool(modes) and get_proxy_mode() is not None
