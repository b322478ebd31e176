"""Philox4x32-10, a counter-based generator: each random number is a pure function of its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

_LOW = 0xFFFFFFFF


def philox4x32(counter: Sequence[int | Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32.

    Args:
        counter: four words of 32 bits: int64 tensors, or ints, broadcast against each other.
        key: two ints of 32 bits.
    Returns: four int64 tensors that hold 32-bit words.
    Paper: Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., SC 2011).
    """
    words = (
        word if isinstance(word, Tensor) else torch.tensor(word, dtype=torch.int64, device="cpu") for word in counter
    )
    a, b, c, d = torch.broadcast_tensors(*words)
    k0, k1 = key
    for _ in range(10):
        # The product of two 32-bit words wraps around in int64, which keeps its bits.
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, c = (q >> 32 & _LOW) ^ b ^ k0, (p >> 32 & _LOW) ^ d ^ k1
        b, d = q & _LOW, p & _LOW
        k0, k1 = k0 + 0x9E3779B9 & _LOW, k1 + 0xBB67AE85 & _LOW
    return a, b, c, d


def uniform(seed: int, image: Any, element: Any, draw: Any = 0) -> Any:
    """The random number of one place: float64 in [0, 1), a multiple of 2**-24 and so exact in float32 too.

    It is `(word 0 of Philox4x32-10) >> 8`, times 2**-24, with the 64-bit seed as key and the counter
    (draw, element, low half of image, high half of image).

    Args:
        seed: int in [0, 2**64).
        image: index of the sample, array or int in [0, 2**64), or an int64 tensor of these bits.
        element: index inside the sample, array, int or tensor in [0, 2**32).
        draw: which of several numbers for that element, array, int or tensor in [0, 2**32).
    Returns: a tensor if `image` is one, else an array, of the broadcast shape.
    Raises: ValueError for a seed out of range.
    Example: `uniform(0, np.arange(4)[:, None], np.arange(784))`
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"uniform: seed must lie in [0, 2**64); got {seed}")
    if not torch.is_tensor(image):
        image, element, draw = (_bits(word) for word in (image, element, draw))
        return uniform(seed, image, element, draw).numpy()
    words = philox4x32((draw, element, image & _LOW, image >> 32 & _LOW), (seed & _LOW, seed >> 32))
    return (words[0] >> 8).double() * 2.0**-24


def normal(seed: int, image: Tensor, element: Tensor, draw: int | Tensor = 0) -> Tensor:
    """Four standard normal numbers of one place: float64 [..., 4], by Box and Muller from the four words of Philox.

    With the words (a, b, c, d) of the counter of `uniform`, each >> 8::

        sqrt(-2 log((a + 1) / 2**24)) * (cos, sin)(2 pi b / 2**24), and the same of c and d

    The largest is 5.77.

    Args: as `uniform`, but tensors: image, element and draw int64, broadcast against each other.
    Paper: A Note on the Generation of Random Normal Deviates (Box and Muller 1958).
    """
    words = philox4x32((draw, element, image & _LOW, image >> 32 & _LOW), (seed & _LOW, seed >> 32))
    a, b, c, d = ((word >> 8).double() * 2.0**-24 for word in words)
    pairs = []
    for radius, angle in ((a, b), (c, d)):
        radius, angle = (-2 * torch.log(radius + 2.0**-24)).sqrt(), 2 * math.pi * angle
        pairs += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.stack(pairs, -1)


def _bits(word: ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(word, dtype=np.uint64).astype(np.int64))
