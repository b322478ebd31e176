"""Digits in two colours, tied to the digits or drawn without regard to them."""

import functools

import numpy as np
import torch

PAIRS = (
    ((1.0, 0.2, 0.2), (0.2, 0.2, 1.0)),
    ((0.9, 0.6, 0.1), (0.1, 0.5, 0.3)),
    ((0.0, 1.0, 0.0), (1.0, 0.0, 1.0)),
)


@functools.cache
def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy(found.images / 16).float(), torch.from_numpy(found.target).long()


def coloured(count, share, *, seed=0, pair=PAIRS[0], ground=False):
    """Images uint8 [count, 3, 8, 8] of 256 levels, digits, which colour each has, and v in [0, 1].

    A colour is tied to five of the digits with this share; None: it is drawn. `ground`: the colour is that of the
    ground, under white digits.
    """
    rng = np.random.default_rng(seed)
    v, y = digits()
    rows = torch.from_numpy(rng.permutation(len(v))[:count])
    v, y = v[rows], y[rows]
    own = torch.from_numpy(rng.permutation(10) < 5)[y].long()
    kept = torch.from_numpy(rng.random(count) < (0.5 if share is None else share))
    which = torch.where(kept, own, 1 - own)
    colour = torch.tensor(pair, dtype=torch.float32)[which][:, :, None, None]
    images = colour * (1 - v[:, None]) + v[:, None] if ground else colour * v[:, None]
    return (255 * images).round().to(torch.uint8), y, which, v


def same_partition(a, b):
    """Whether two codings put the same images together."""
    pairs = torch.stack((a, b), 1).unique(dim=0)
    return len(pairs) == len(a.unique()) == len(b.unique())
