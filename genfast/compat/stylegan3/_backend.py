"""What the argument `impl` stands for."""

from __future__ import annotations

BACKENDS = {"cuda": "auto", "ref": "reference"}


def backend(call: str, impl: str) -> str:
    """The backend of an `impl`: "cuda", which means the fastest that serves, or "ref"."""
    if impl not in BACKENDS:
        raise ValueError(f"{call}: impl must be 'cuda' or 'ref'; got {impl!r}")
    return BACKENDS[impl]
