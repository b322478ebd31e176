"""The names of arrays in .npz files, as people and packages give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from genfast.data.splits import ALL, SPLIT_NAMES

IMAGES = {"x", "image", "images", "img", "imgs", "data", "pixels", "inputs", "samples"}
LABELS = {"y", "label", "labels", "target", "targets"}
LEVELS = "levels"  # a number beside the images
NAMES = "train, valid, test with train_labels ..., x_train with y_train ..., images with labels, X with y"


@dataclass
class Layout:
    """Which array of a file has the images of each split, and which its labels; the split "all": one array."""

    images: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def layout(path: str | Path, ranks: Mapping[str, int]) -> Layout:
    """The layout of a file, by the names of its arrays and their numbers of dimensions.

    Known are names of a split (`train`), of images or labels (`images`, `y`), and of both in any order (`x_train`,
    `val_labels`); NumPy's `arr_0` for images and `arr_1` for their labels; and any name of a single array.

    Raises: ValueError that names every array which would not be used.
    """
    found, strange = Layout(), []
    names = [name for name in ranks if name != LEVELS]
    if positional := _positional(names, ranks):
        return positional
    for name in names:
        split, role = _meaning(name)
        parts = found.labels if role == "labels" else found.images
        if role is None:
            strange.append(name)
        elif split in parts:
            raise ValueError(f"{path}: expected one array of a meaning; got {parts[split]} and {name}")
        else:
            parts[split] = name
    if len(names) == 1 and not found.images:
        return Layout({ALL: names[0]})
    if list(found.images) == ["train"] and found.images["train"] != "train":  # of x_train alone all splits are made
        found = Layout({ALL: found.images["train"]}, {ALL if s == "train" else s: n for s, n in found.labels.items()})
    if not found.images:
        raise ValueError(f"{path}: expected arrays named {NAMES}; got {', '.join(sorted(names)) or 'no array'}")
    if ALL in found.images and len(found.images) > 1:
        strange += [found.images.pop(ALL)]
    foreign = sorted(name for split, name in found.labels.items() if split not in found.images)
    if foreign:
        expected = ", ".join("labels" if split == ALL else f"{split}_labels" for split in found.images)
        raise ValueError(f"{path}: expected labels named {expected}; got {', '.join(foreign)}")
    if strange:
        used = ", ".join((*found.images.values(), *found.labels.values()))
        raise ValueError(f"{path}: expected arrays named {NAMES}; got {', '.join(sorted(strange))} beside {used}")
    return found


def role(name: str) -> str | None:
    """What an array of a known name is, "images" or "labels"; else None."""
    return _meaning(name)[1]


def _positional(names: list[str], ranks: Mapping[str, int]) -> Layout | None:
    """The layout of `numpy.savez(path, images, labels)`."""
    if sorted(names) != ["arr_0", "arr_1"]:
        return None
    images, labels = sorted(names, key=lambda name: -ranks[name])
    return Layout({ALL: images}, {ALL: labels}) if ranks[images] > 2 >= ranks[labels] else None


def _meaning(name: str) -> tuple[str, str | None]:
    """(split, "images" or "labels") of a name; (..., None) for one that is not known."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^A-Za-z_\-. ]+", name)]
    if len(words) == 1 and (glued := re.fullmatch(r"([xy])(train\w*|val\w*|test\w*)|(train|val|test)([xy])", words[0])):
        words = [word for word in glued.groups() if word]
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    roles = [role for word in words for role, known in (("images", IMAGES), ("labels", LABELS)) if word in known]
    if len(splits) > 1 or len(roles) > 1 or len(splits) + len(roles) != len(words) or not words:
        return ALL, None
    return (splits or [ALL])[0], (roles or ["images"])[0]
