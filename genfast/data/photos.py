"""Patches of scikit-learn's two photographs, china.jpg and flower.jpg: colour images that need no download."""

import numpy as np

from genfast.data._images import check_split, image_data, quantise

PHOTOS = ("china.jpg", "flower.jpg")
PERIOD = 5  # columns of blocks: four to train on, then one to hold out, for the test and for validation in turn
LARGEST = 64  # two such periods in a photograph 640 pixels wide


def load_photos(split, *, size=32, levels=256):
    """Colour patches [N, 3, size, size] of both photographs, no pixel of which is in two splits.

    Each photograph is cut into columns of blocks: of every five, the fifth is held out from top to bottom, so
    that every split has sky, walls and leaves. Held-out patches tile their columns; training patches overlap,
    a quarter of their size apart. By size 32: 5200 train, 52 valid, 52 test.
    """
    check_split(split)
    if not 2 <= levels <= 256:
        raise ValueError(f"photos: expected 2 to 256 levels; got {levels}")
    patches = photo_patches(split, size, max(1, size // 4) if split == "train" else size)
    return image_data(quantise(patches, levels), levels, f"photos[{split}]")


def photo_patches(split, size, step):
    """Patches of a split, `step` pixels apart: uint8 [N, 3, size, size] of 0..255."""
    if not 1 <= size <= LARGEST:
        raise ValueError(f"photos: expected a size from 1 to {LARGEST}; got {size}")
    return np.concatenate([_patches(photo, split, size, step) for photo in _photos()])


def _photos():
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise RuntimeError("photos: expected the package scikit-learn; got none") from None
    return [load_sample_image(name) for name in PHOTOS]


def _patches(photo, split, size, step):
    height, width = photo.shape[:2]
    tops = range(0, height - size + 1, step)
    lefts = [
        left
        for start, stop in _columns(width // size, split)
        for left in range(start * size, (stop - 1) * size + 1, step)
    ]
    windows = np.lib.stride_tricks.sliding_window_view(photo, (size, size), axis=(0, 1))
    return windows[np.ix_(tops, lefts)].reshape(-1, photo.shape[2], size, size)


def _columns(count, split):
    """The half-open ranges of columns of blocks that belong to a split."""
    held_out = range(PERIOD - 1, count, PERIOD)
    if split != "train":
        return [(i, i + 1) for i in held_out[split == "valid" :: 2]]
    starts = [0, *(i + 1 for i in held_out)]
    return [(start, stop) for start, stop in zip(starts, [*held_out, count], strict=True) if start < stop]
