"""The rate of fused multiply-adds that the C++ kernels could reach on this machine."""

from __future__ import annotations

from collections.abc import Callable

import torch

from genfast._native import backends

ENTRY = "fma_peak"
backends.check_signature(ENTRY, ("total", "operations", "pieces", "rounds"))


def fma_loop(rounds: int = 2_000_000) -> tuple[Callable[[], None], int] | None:
    """A loop of float32 fused multiply-adds on as many threads as torch has now, without memory, on the isa in use; and
    its FLOPs, two for each. None without the C++ kernels."""
    if backends.cpp is None:
        return None
    pieces = torch.get_num_threads()
    total = torch.empty(pieces, dtype=torch.float32, device="cpu")
    operations = torch.empty(1, dtype=torch.int64, device="cpu")

    def run() -> None:
        backends.cpp.fma_peak("float32", total.data_ptr(), operations.data_ptr(), pieces, rounds)

    run()
    return run, int(operations)
