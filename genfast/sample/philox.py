"""Philox4x32-10: random numbers as a pure function of their place."""

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)


def philox4x32(counter, key):
    """Ten rounds of Philox4x32.

    Args:
        counter: four arrays of 32-bit words, broadcast against each other.
        key: two 32-bit words.
    Returns: four uint64 arrays that hold 32-bit words.
    Paper: Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., SC 2011).
    """
    a, b, c, d = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, c = (q >> _HIGH) ^ b ^ np.uint64(k0), (p >> _HIGH) ^ d ^ np.uint64(k1)
        b, d = q & _LOW, p & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def uniform(seed, image, element, draw=0):
    """The random number of one place: float64 in [0, 1), a multiple of 2**-24 and so exact in float32 too.

    It is `(word 0 of Philox4x32-10) >> 8`, times 2**-24, with the 64-bit seed as key and the counter
    (draw, element, low half of image, high half of image).

    Args:
        seed: int in [0, 2**64).
        image: index of the sample, array or int in [0, 2**64).
        element: index inside the sample, array or int in [0, 2**32).
        draw: which of several numbers for that element, array or int in [0, 2**32).
    Returns: array of the broadcast shape.
    Raises: ValueError for a seed out of range.
    Example: `uniform(0, np.arange(4)[:, None], np.arange(784))`
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"uniform: seed must lie in [0, 2**64); got {seed}")
    image = np.asarray(image, dtype=np.uint64)
    words = philox4x32((draw, element, image & _LOW, image >> _HIGH), (seed & 0xFFFFFFFF, seed >> 32))
    return (words[0] >> np.uint64(8)).astype(np.float64) * 2.0**-24
