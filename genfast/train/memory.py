"""Memory of the C library: keeping freed memory in the process, or returning it."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 32 << 20


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of one training step in the next, instead of returning it to the system.

    Each step allocates the same large tensors. Pages that were returned are cleared and faulted in again, which takes a
    fifth of the time of a step of the `mnist` preset. Other C libraries are left unchanged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Return free memory to the system: after an evaluation, whose tensors have other sizes, it is fragmented."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
