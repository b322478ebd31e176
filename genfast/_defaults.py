"""torch's default dtype and device, which are the user's: what the package builds itself is built without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Inside, new modules and the state of optimizers are float32 and on the CPU, as in a fresh process.

    For modules of the package's own making: of a file, a preset, a classifier. One that the user builds follows the
    user's defaults.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)
