"""Translation of images to another domain, and of folders of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genfast.data._images import quantise
from genfast.data.folder import Tree
from genfast.data.grid import brightness, png
from genfast.data.image_file import common_bits, quiet_about_size
from genfast.data.reading import Reading, checked_options
from genfast.data.splits import ALL
from genfast.engine.arguments import as_levels, check_count, check_integers
from genfast.engine.decoder import BLOCK
from genfast.engine.engine import check_finite
from genfast.engine.protocols import Translator, device_of
from genfast.engine.wrappers import unwraps
from genfast.io import check_free, check_writable, write_bytes


@unwraps
def translate(model: Translator, images: Tensor, *, seed: int = 0, first: int = 0, noise: bool = True) -> Tensor:
    """The translation of each image, of any size that is at least the stride of the model.

    Image b depends on (seed, first + b) and itself alone: `translate(model, images[5:], first=5)` is
    `translate(model, images)[5:]`, whatever the batches. On a CPU this holds bit for bit; elsewhere except for a value
    within rounding of a boundary between two levels. The noise is dropout with masks of Philox numbers.

    If the stride does not divide the size, the image is padded by reflection at the bottom and the right, and the
    result cropped.

    Args:
        model: a `genfast.engine.protocols.Translator`, such as `genfast.models.Pix2Pix`; used in evaluation mode.
        images: levels, integers [n, S, h, w], on the device of the model; h and w at least `model.stride`.
        seed: int in [0, 2**64).
        first: number of the first image; first + n is at most 2**63.
        noise: False: without dropout; the seed then has no effect.
    Returns: uint8 [n, C, h, w], levels.
    Raises: TypeError or ValueError for an argument that does not fit, before any work.
    Paper: Image-to-Image Translation with Conditional Adversarial Networks, arXiv 1611.07004.
    Example: `genfast.translate(genfast.models.load("RUN/model"), sources, seed=1)`
    """
    check_translator(model)
    images = check_integers("translate", "images", images)
    channels, stride = model.source.channels, model.stride
    if images.dim() != 4 or images.shape[1] != channels or min(images.shape[2:]) < stride:
        expected = f"[n, C, h, w] with C={channels}, h and w at least {stride}, the stride of the model"
        raise ValueError(f"translate: images must have shape {expected}; got {tuple(images.shape)}")
    if images.device != (device := device_of(model)):
        raise ValueError(f"translate: images must be on the model's device {device}; got {images.device}")
    images = as_levels("translate", "images", images, model.source.levels)
    _, first, seed = check_count("translate", len(images), first, seed)
    check_finite(model, "translate")
    return model.translated(images, seed, first, noise)


def check_translator(model: Any) -> None:
    """TypeError for a model that is no `Translator`."""
    if not isinstance(model, nn.Module) or not isinstance(model, Translator):
        raise TypeError(
            f"translate: model must translate images, as genfast.models.Pix2Pix does; got {type(model).__name__}"
        )


@unwraps
def translate_folder(
    model: Translator,
    folder: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    noise: bool = True,
    split: str = ALL,
    bits: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    tell: Callable[[str], None] = lambda note: None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, dict[Path, str]]:
    """Translate every image file below `folder` to a PNG of the same name, at the same place below `out`.

    Grey and colour files are converted to the channels of the model; sizes may differ. The number of an image, which
    with the seed determines its noise, is its index among the sorted files. Files are written atomically.

    Args: model, seed, noise (as `translate`); folder; out (made if missing); split, bits (as `genfast.data.load`);
        overwrite (files that are there, else an error before any work); progress (called with the number of files after
        each batch); tell (with what a user should know of the reading); say (with which images these are, before the
        work).
    Returns: (number of files written, {path: reason} of the others).
    Raises: FileNotFoundError for a missing folder; ValueError for one without images, for two files that would get the
        same name, and for `out` inside `folder`; FileExistsError for files that are there.
    """
    check_translator(model)
    folder, out = Path(folder), Path(out)
    checked_options(str(folder), None, model.source.levels, bits)
    tree = Tree.of(folder)
    jobs = _jobs(tree, out, split)
    for _, target in jobs:
        check_free(target, overwrite)
    check_writable(out)
    reading = Reading(str(folder), model.source.channels, None, model.source.levels, bits, common_bits(tree.every))
    say(f"{folder}[{split}]: {len(jobs)} image files, read with {model.source.channels} channels")
    written = 0
    wrong: dict[Path, str] = {}
    batch: list[tuple[int, Path, Tensor]] = []

    def flush() -> None:
        nonlocal written
        if batch:
            written += _translate_batch(model, batch, seed, noise)
            if progress:
                progress(len(batch))
            batch.clear()

    with quiet_about_size():
        for number, (path, target) in enumerate(jobs):
            image = _source(model, path, reading, wrong)
            if image is None:
                continue
            if batch and (batch[0][2].shape != image.shape or batch[-1][0] + 1 != number or len(batch) == BLOCK):
                flush()
            batch.append((number, target, image))
        flush()
    for note in (*tree.notes(split), *reading.notes(len(jobs))):
        tell(note)
    return written, wrong


def _jobs(tree: Tree, out: Path, split: str) -> list[tuple[Path, Path]]:
    """The image files of a split of a folder, each with its output file below `out`."""
    folder = tree.folder
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out}: expected a folder outside of {folder}, whose images stay as they are; got one inside")
    jobs = [(path, (out / path.relative_to(folder)).with_suffix(".png")) for path in tree.files(split)]
    taken: dict[Path, Path] = {}
    sources = {path.resolve() for path, _ in jobs}
    for path, target in jobs:
        if target.resolve() in sources:  # through a link, or if `folder` is inside `out`
            raise ValueError(
                f"{out}: expected a folder outside of {folder}; got one where {target} is to be translated"
            )
        if target in taken:
            names = f"{taken[target].relative_to(folder)} and {path.relative_to(folder)}"
            raise ValueError(
                f"{folder}: expected one file of a name; got {names}, both of which would be {target.name}"
            )
        taken[target] = path
    return jobs


def _source(model: Any, path: Path, reading: Reading, wrong: dict[Path, str]) -> Tensor | None:
    """The levels of an image file, uint8 [S, h, w]; None if it cannot be translated, with the reason in `wrong`."""
    array = reading.pixels(path)
    if array is None:
        wrong[path] = f"not readable: {reading.wrong[path][1]}"
        return None
    if min(array.shape[:2]) < model.stride:
        wrong[path] = f"{array.shape[1]}x{array.shape[0]}, smaller than the stride of the model, {model.stride}"
        return None
    return torch.from_numpy(np.array(quantise(array, model.source.levels).transpose(2, 0, 1), order="C"))


def _translate_batch(model: Any, batch: list[tuple[int, Path, Tensor]], seed: int, noise: bool) -> int:
    """Translate and write images of one size with consecutive numbers; returns how many."""
    device = device_of(model)
    sources = torch.stack([image for _, _, image in batch]).to(device)
    images = brightness(translate(model, sources, seed=seed, first=batch[0][0], noise=noise), model.spec.levels)
    for (_, target, _), image in zip(batch, images, strict=True):
        write_bytes(target, png(image.permute(1, 2, 0).numpy()))
    return len(batch)
