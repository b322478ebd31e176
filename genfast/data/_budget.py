"""The memory that images may take: a file that declares more is refused before it is read."""

from __future__ import annotations

from genfast.data._text import in_bytes
from genfast.io import memory

GB = 10**9
SHARE = 0.5  # of the memory of the machine, without a limit of the caller
EXPANSION = 100  # images for each byte of a compressed file; deflate makes up to 1032 zeros of one
ALWAYS = 2**28  # bytes that a compressed file may hold whatever its size: small sets of blank images are no attack


def check_size(size: int, name: str, max_gb: float | None = None, *, compressed: int | None = None) -> None:
    """ValueError for `size` bytes of images that are more than the limit.

    The limit is `max_gb`, or half of the memory of the machine; then `compressed` bytes of a file may hold 100 times as
    much, and 256 MiB in any case.
    """
    limit, why = (memory() * SHARE, "half of the memory") if max_gb is None else (max_gb * GB, "as --max-gb says")
    if max_gb is None and compressed is not None and limit > (held := max(ALWAYS, EXPANSION * compressed)):
        limit, why = held, f"as {in_bytes(compressed)} of a compressed file may hold"
    if size > limit:
        more = "" if max_gb is not None else "; --max-gb allows more"
        raise ValueError(f"{name}: expected at most {in_bytes(limit)} of images, {why}{more}; got {in_bytes(size)}")
