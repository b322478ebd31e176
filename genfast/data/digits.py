"""scikit-learn's digits: small grey images with labels that need no download."""

from __future__ import annotations

import numpy as np

from genfast.data._images import ImageData, image_data
from genfast.data._registry import DataRequest, register_dataset
from genfast.data.splits import check_split


@register_dataset("digits", "8x8 digits with labels, of scikit-learn")
def _read(request: DataRequest) -> ImageData:
    return load_digits(request.split)


def load_digits(split: str) -> ImageData:
    """scikit-learn's 1797 8x8 digits with their labels: 1297 train, 200 valid, 300 test.

    The file counts 0 to 16 set pixels of each 4x4 cell; 16 is stored as 15, so that there are 16 levels.
    """
    check_split(split)
    try:
        from sklearn import datasets
    except ImportError:
        raise RuntimeError("digits: expected the package scikit-learn; got none") from None
    digits = datasets.load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))
    part = {"test": order[:300], "valid": order[300:500], "train": order[500:]}[split]
    images, labels = np.minimum(digits.images[part], 15), digits.target[part]
    return image_data(images, 16, f"digits[{split}]", labels=labels, classes=10)
