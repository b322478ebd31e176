"""Keeping freed memory in the process."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 32 << 20


def keep_freed_memory():
    """Let glibc reuse the memory of one training step in the next, instead of returning it to the system.

    A step allocates and frees the same large tensors as the one before; fetched anew, each page is cleared and
    faulted in again: a fifth of the time of a step of the `mnist` preset. Another C library is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory():
    """Return to the system what is free now: tensors of other sizes, such as those of an evaluation, fragment it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
