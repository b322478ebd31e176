"""`genfast inpaint`: fill in unknown parts of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genfast import metrics
from genfast._text import shown
from genfast.cli._command import command
from genfast.cli._engine import accepted, batch_size_of, first_held_out, restoring_options, steps_bar
from genfast.cli.options import nonnegative_int, number, picture_path, positive_int
from genfast.data.arrays import read_npz
from genfast.data.grid import brightness, rows
from genfast.io import write_bytes
from genfast.random import uniform
from genfast.random.streams import NOISE
from genfast.tasks.inpaint import ORDERS, check_order, inpaint

PARTS = ("lower", "upper", "left", "right", "center")


def options(parser: argparse.ArgumentParser) -> None:
    restoring_options(parser)
    text = f"what is unknown: {', '.join(PARTS)}, random:SHARE, or FILE.npz with an array mask, True where known"
    parser.add_argument("--mask", required=True, metavar="MASK", help=text)
    text = "exact: given all that is known; raster: given what comes before; pseudo-gibbs: of a VAE, cheaper (exact)"
    parser.add_argument("--order", choices=(*ORDERS, "pseudo-gibbs"), default="exact", help=text)
    parser.add_argument(
        "--steps", type=nonnegative_int, default=500, help="steps of the chain, except for order raster (500)"
    )
    parser.add_argument("--results", type=positive_int, default=3, help="results for each image (3)")


@command("inpaint", "fill in unknown parts of images", options)
def run(args: argparse.Namespace) -> None:
    path = picture_path(args.out)
    model, truth, given_labels, levels = first_held_out(args, lambda model: check_order(model, args.order))
    known = mask_of(args.mask, truth, args.seed)
    repeats = args.results
    size = args.batch_size or batch_size_of(model, args.backend)
    with steps_bar(0 if args.order == "raster" else args.steps, len(truth) * repeats, size) as progress:
        result = inpaint(
            model,
            truth.repeat_interleave(repeats, 0),
            known.repeat_interleave(repeats, 0),
            order=args.order,
            steps=args.steps,
            seed=args.seed,
            batch_size=size,
            backend=args.backend,
            progress=progress,
            labels=None if given_labels is None else given_labels.repeat_interleave(repeats),
        )
    true = brightness(truth, levels)
    filled = brightness(result.images, levels).unflatten(0, (-1, repeats)).unbind(1)
    means = () if result.mean is None else (result.mean.cpu().unflatten(0, (-1, repeats)).mean(1),)
    write_bytes(path, rows(true, torch.where(known, true, 128), *filled, *(brightness(mean, levels) for mean in means)))
    results = f"{repeats} results{', their mean' if means else ''}"
    how = {"raster": "drawn in raster order", "pseudo-gibbs": "approximate"}.get(args.order)
    how = how or accepted(result.acceptance)
    print(f"{path}: {len(truth)} images, each: truth, input, {results}; {how}")
    if not known.all():
        print(
            f"unknown values: {_errors(result.images.cpu().unflatten(0, (-1, repeats)), means, truth, known, levels)}"
        )


def _errors(images: Tensor, means: Sequence[Tensor], truth: Tensor, known: Tensor, levels: int) -> str:
    """The errors of inpainting, as text: of the results [n, R, C, H, W], and of their mean, if there is one."""
    errors = []
    for name, filled in (("a result", images.flatten(0, 1)), *(("the mean", mean) for mean in means)):
        repeats = len(filled) // len(truth)
        error = metrics.imputation_error(
            filled, truth.repeat_interleave(repeats, 0), known.repeat_interleave(repeats, 0), levels
        )
        wrong = f"{100 * error['wrong']:.2f} % of bits wrong, " if levels == 2 else ""
        errors.append(f"{name} {wrong}PSNR {error['psnr']:.2f} dB")
    return "; ".join(errors)


def mask_of(name: str, images: Tensor, seed: int = 0) -> Tensor:
    """The mask of a value of the option --mask: bool [n, 1 or C, H, W], True where a value is known."""
    n, _, height, width = images.shape
    known = torch.ones(n, 1, height, width, dtype=torch.bool)
    areas = {
        "lower": (slice(height // 2, None), slice(None)),
        "upper": (slice(None, height // 2), slice(None)),
        "left": (slice(None), slice(None, width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "center": (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)),
    }
    kind, _, share = name.partition(":")
    if name in areas:
        rows, columns = areas[name]
        known[:, :, rows, columns] = False
        return known
    if kind == "random":
        unknown = number(share)
        if unknown is None or not 0 <= unknown <= 1:
            raise ValueError(f"mask: expected random:SHARE with a share in 0 to 1; got {name}")
        u = uniform(seed, torch.arange(n)[:, None], torch.arange(height * width), NOISE)
        mask: Tensor = u >= unknown
        return mask.view(n, 1, height, width)
    if Path(name).suffix.lower() != ".npz":
        raise ValueError(f"mask: expected {', '.join(PARTS)}, random:SHARE or FILE.npz; got {name}")
    arrays = read_npz(name)
    if "mask" not in arrays or arrays["mask"].dtype != np.bool_:
        got = shown(", ".join(sorted(arrays)) or "none")
        raise ValueError(f"{shown(name)}: expected an array 'mask' of bool; got {got}")
    mask = torch.from_numpy(arrays["mask"])
    mask = mask.view(*(1,) * (4 - mask.dim()), *mask.shape)
    if mask.shape[0] not in (1, n) or mask.shape[1] not in (1, images.shape[1]) or mask.shape[2:] != (height, width):
        raise ValueError(f"{shown(name)}: expected a mask for images {tuple(images.shape)}; got {tuple(mask.shape)}")
    return mask.expand(n, -1, -1, -1)
