"""Which images belong to a split: of a data set that is split, and of one that is not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SPLITS = ("train", "valid", "test")
ALL = "all"  # every image, of all splits
CHOICES = (*SPLITS, ALL)
# What people call a split, in lower case.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SHARE = 10  # one image of so many is held out for validation, and one for the test


def check_split(split: str, choices: tuple[str, ...] = SPLITS) -> None:
    """Raise ValueError for a split that is none of `choices`."""
    if split not in choices:
        raise ValueError(f"split: expected one of {', '.join(choices)}; got {split!r}")


def split_indices(count: int, split: str) -> np.ndarray:
    """Which of `count` unsplit images belong to `split`: a fixed shuffle, then 80 / 10 / 10 per cent."""
    if split == ALL:
        return np.arange(count)
    # RandomState is the one numpy stream that is promised never to change: the split stays what it was.
    order = np.random.RandomState(0).permutation(count)
    tenth = count // SHARE
    part: np.ndarray = {"test": order[:tenth], "valid": order[tenth : 2 * tenth], "train": order[2 * tenth :]}[split]
    return np.sort(part)


def choose(counts: Mapping[str, int], split: str, name: str, what: str) -> list[tuple[str, np.ndarray]]:
    """The images of a split: [(part, which of its images)].

    A data set without splits has the one part "all", whose images are split 80 / 10 / 10 per cent. If there are parts
    "train" and "test" and none "valid", a tenth of "train" is held out as "valid".

    Args: counts (images of each part); split; name and what (of the data set, and what its parts are, for errors).
    Raises: LookupError for a split that is missing; ValueError for one that has no image.
    """
    check_split(split, CHOICES)
    if split == ALL:
        return [(part, np.arange(counts[part])) for part in sorted(counts, key=CHOICES.index)]
    if ALL in counts:
        chosen = split_indices(counts[ALL], split)
        if len(chosen) == 0 and counts[ALL]:
            needs = f"images, so that one in {SHARE} is for {split!r}, or {what}s train, valid and test"
            raise ValueError(f"{name}: expected at least {SHARE} {needs}; got {counts[ALL]}")
        return [(ALL, chosen)]
    if split not in counts and not (split == "valid" and _holds_out(counts)):
        raise LookupError(f"{name}: expected a {what} {split!r}; got only {', '.join(counts)}")
    if split == "test" or not _holds_out(counts):
        return [(split, np.arange(counts[split]))]
    held_out = split_indices(counts["train"], "valid")
    if split == "valid" and not len(held_out):
        needs = f"images in 'train' to hold one in 10 out for 'valid', or a {what} 'valid'"
        raise ValueError(f"{name}: expected at least {SHARE} {needs}; got {counts['train']}")
    is_held_out = np.zeros(counts["train"], bool)
    is_held_out[held_out] = True
    return [("train", np.flatnonzero(is_held_out == (split == "valid")))]


def notes_of(counts: Mapping[str, int], split: str, name: str) -> tuple[str, ...]:
    """What a user should know of a split that `choose` made."""
    if split not in ("train", "valid") or not _holds_out(counts):
        return ()
    there = counts["train"]
    return (f"{name}: no 'valid': {there // SHARE} of {there} images of 'train' held out as it",)


def _holds_out(counts: Mapping[str, int]) -> bool:
    return "train" in counts and "test" in counts and "valid" not in counts
