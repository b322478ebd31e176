"""Images a second to a compressed file and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch

from genfast._native import backends
from genfast.benchmarks import matching
from genfast.benchmarks.coding import CODING_ENGINES, coding_engine, images_of
from genfast.benchmarks.rows import OURS
from genfast.benchmarks.runner import Case, Prepared
from genfast.tasks import compress, decompress

COUNT, FEW = 1024, 16
QUICK = "PixelRNN, 7 layers of 16"


def cases(quick: bool, against: Sequence[str]) -> list[Case]:
    """A case for each model and way; none without the C++ kernels, which code alone."""
    if backends.cpp is None:
        return []
    count = FEW if quick else COUNT
    return [
        Case("compress", name, f"B={count} 28x28", "float32", way, partial(_prepare, name, way, count, tuple(against)))
        for name in ((QUICK,) if quick else CODING_ENGINES)
        for way in ("encode", "decode")
    ]


@cache
def _file(name: str, count: int) -> tuple[torch.Tensor, bytes]:
    """Images and the file of them, kept over the passes."""
    images = images_of(name, count)
    return images, compress(coding_engine(name), images)


def _prepare(name: str, way: str, count: int, against: Sequence[str]) -> Prepared:
    model, (images, file) = coding_engine(name), _file(name, count)
    ways: dict[str, Callable[[], object]] = {
        "encode": partial(compress, model, images),
        "decode": partial(decompress, file, model),
    }
    missing = dict.fromkeys(against, "plain PyTorch has no coder")

    def check() -> matching.Match:
        wrong = float((decompress(compress(model, images), model) != images).double().mean())
        return matching.Match(wrong == 0, wrong)

    return Prepared({OURS: ways[way]}, missing=missing, images=count, check=check)
