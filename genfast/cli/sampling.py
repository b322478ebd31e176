"""The commands that draw from a model: `genfast sample | inpaint | denoise`."""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from genfast import metrics
from genfast.cli.held_out import held_out, held_out_options
from genfast.cli.options import add_device, add_target, count, counted, labels, picture_path, positive
from genfast.data.arrays import read_npz
from genfast.data.grid import brightness, rows, writer
from genfast.engine.arguments import check_count
from genfast.engine.decoder import engine_of
from genfast.engine.engine import BACKENDS, Engine
from genfast.engine.latents import describe, is_latent, refuse_codes
from genfast.io import write_bytes
from genfast.random.philox import uniform
from genfast.tasks.denoise import METHODS, MOST_VALUES, denoise
from genfast.tasks.impute import imputation_error
from genfast.tasks.inpaint import ORDERS, check_order, inpaint
from genfast.tasks.noise import FIRST, BitFlip, Gaussian
from genfast.tasks.shards import sample_shards
from genfast.train.progress import counter
from genfast.train.run_folder import open_model
from genfast.train.session import draw, first_images, sample_labels
from genfast.train.trainer import pick_device

PARTS = ("lower", "upper", "left", "right", "center")


def sample_options(parser):
    add_target(parser)
    add = parser.add_argument
    add("-n", type=count, default=64, help="images to draw (64)")
    text = "FILE.png (a grid), FILE.npz (the levels), or a folder for .npz files, finished if it was begun"
    add("--out", required=True, metavar="OUT", help=text)
    add("--seed", type=int, default=0, help="same seed, same images (0)")
    add("--first", type=counted, default=0, help="number of the first image; image i is the same in any set (0)")
    text = "classes to draw, again and again, such as 0,1,2 (a conditional model: all of them)"
    add("--label", "--labels", dest="labels", type=labels, action="extend", metavar="K", help=text)
    add("--shard", type=count, default=1000, help="images of a file in a folder (1000)")
    _engine_options(parser)
    add_device(parser)
    add("--temperature", type=positive, default=1.0, help="below 1: likelier images (1.0)")


def inpaint_options(parser):
    _restoring_options(parser)
    text = f"what is unknown: {', '.join(PARTS)}, random:SHARE, or FILE.npz with an array mask, True where known"
    parser.add_argument("--mask", required=True, metavar="MASK", help=text)
    text = "exact: given all that is known; raster: given what comes before; pseudo-gibbs: of a VAE, cheaper (exact)"
    parser.add_argument("--order", choices=(*ORDERS, "pseudo-gibbs"), default="exact", help=text)
    parser.add_argument("--steps", type=counted, default=500, help="steps of the chain, but for order raster (500)")
    parser.add_argument("--results", type=count, default=3, help="results for each image (3)")


def denoise_options(parser):
    _restoring_options(parser)
    text = "bitflip:P (probability), or gaussian:SIGMA (of the whole range of levels)"
    parser.add_argument("--noise", required=True, type=_noise, metavar="NOISE", help=text)
    text = "mean (best PSNR), map (fewest wrong values) or sample, of the posterior (mean)"
    parser.add_argument("--method", choices=METHODS, default="mean", help=text)
    parser.add_argument("--steps", type=counted, default=200, help="steps of each chain (200)")
    text = "chains of each image (1 for the method sample, else 4)"
    parser.add_argument("--samples", type=count, help=text)


def _restoring_options(parser):
    held_out_options(parser, "FILE.png", "a row for each image: before and after")
    parser.add_argument("-n", type=count, default=16, help="images, the first of the held-out ones (16)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same results (0)")
    _engine_options(parser)


def _engine_options(parser):
    parser.add_argument("--batch-size", type=count, metavar="B", help="images at a time, which changes none of them")
    text = "auto (the first that can), cpp, triton, torch, or reference (auto)"
    parser.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help=text)


def run_sample(args):
    path = Path(args.out)
    is_folder = path.suffix.lower() not in (".png", ".npz") and (path.is_dir() or not path.suffix)
    write = None if is_folder else writer(path)  # a wrong ending or folder is found before the work
    check_count("sample", args.n, args.first, args.seed, args.temperature)
    model = open_model(args.target).to(pick_device(args.device))
    chosen = sample_labels(model, args.n, args.labels, args.first)
    options = {"seed": args.seed, "first": args.first, "temperature": args.temperature, "backend": args.backend}
    _ = engine_of(model, backend=args.backend).backend  # captures the model, which is no part of the rate
    start, drawn = time.perf_counter(), args.n
    if is_folder:
        with counter(args.n, "image") as progress:
            drawn = sample_shards(
                model, args.n, path, labels=chosen, shard=args.shard, batch_size=args.batch_size, progress=progress,
                **options,
            )  # fmt: skip
    else:
        write(draw(model, args.n, labels=chosen, batch=args.batch_size, **options), model.config.levels, chosen)
    rate = f"{drawn / (time.perf_counter() - start):.0f} images/s"
    there = f"{args.n - drawn} there already, {rate}" if drawn else "all there already"
    print(f"{path}: {args.n} images, {rate if drawn == args.n else there}")


def run_inpaint(args):
    path = picture_path(args.out)
    model, truth, given_labels, levels = _first_held_out(args, lambda model: check_order(model, args.order))
    known = mask_of(args.mask, truth, args.seed)
    repeats = args.results
    size = args.batch_size or _batch_size(model, args.backend)
    with _bar(0 if args.order == "raster" else args.steps, len(truth) * repeats, size) as progress:
        result = inpaint(
            model, truth.repeat_interleave(repeats, 0), known.repeat_interleave(repeats, 0), order=args.order,
            steps=args.steps, seed=args.seed, batch_size=size, backend=args.backend, progress=progress,
            labels=None if given_labels is None else given_labels.repeat_interleave(repeats),
        )  # fmt: skip
    true = brightness(truth, levels)
    filled = brightness(result.images, levels).unflatten(0, (-1, repeats)).unbind(1)
    means = () if result.mean is None else (result.mean.cpu().unflatten(0, (-1, repeats)).mean(1),)
    write_bytes(path, rows(true, torch.where(known, true, 128), *filled, *(brightness(mean, levels) for mean in means)))
    results = f"{repeats} results{', their mean' if means else ''}"
    how = {"raster": "drawn in raster order", "pseudo-gibbs": "approximate"}.get(args.order)
    how = how or _accepted(result.acceptance)
    print(f"{path}: {len(truth)} images, each: truth, input, {results}; {how}")
    if not known.all():
        print(
            f"unknown values: {_errors(result.images.cpu().unflatten(0, (-1, repeats)), means, truth, known, levels)}"
        )


def _errors(images, means, truth, known, levels):
    """What inpainting got wrong, of draws [n, R, C, H, W] and of the mean where there is one."""
    found = []
    for name, filled in (("a result", images.flatten(0, 1)), *(("the mean", mean) for mean in means)):
        repeats = len(filled) // len(truth)
        error = imputation_error(
            filled, truth.repeat_interleave(repeats, 0), known.repeat_interleave(repeats, 0), levels
        )  # fmt: skip
        wrong = f"{100 * error['wrong']:.2f} % of bits wrong, " if levels == 2 else ""
        found.append(f"{name} {wrong}PSNR {error['psnr']:.2f} dB")
    return "; ".join(found)


def run_denoise(args):
    path = picture_path(args.out)
    model, truth, given_labels, levels = _first_held_out(args, lambda model: refuse_codes("denoise", model))
    noisy = args.noise.corrupt(truth, levels, seed=args.seed)
    samples = args.samples or (1 if args.method == "sample" else 4)  # the default of denoise
    size = _batch_size(model, args.backend)
    size = args.batch_size or max(1, min(size, MOST_VALUES // (truth[0].numel() * levels)))
    with _bar(args.steps * samples, len(truth), size) as progress:
        result = denoise(
            model, noisy, args.noise, method=args.method, samples=samples, steps=args.steps, seed=args.seed,
            labels=given_labels, batch_size=size, backend=args.backend, progress=progress,
        )  # fmt: skip
    seen = args.noise.picture(noisy, levels)
    observed = (255 * seen.clamp(0, 1)).round().to(torch.uint8)
    clean = (brightness(images, levels) for images in (result.samples[0], result.images))
    write_bytes(path, rows(brightness(truth, levels), observed, *clean))
    before, after = metrics.psnr(seen * (levels - 1), truth, levels), metrics.psnr(result.images, truth, levels)
    print(f"{path}: {len(truth)} images, each: truth, noisy, a posterior sample, {args.method}")
    print(f"PSNR {before:.2f} dB noisy, {after:.2f} dB {args.method}; {_accepted(result.acceptance)}")


def mask_of(name, images, seed=0):
    """Where values are known, bool [n, 1 or C, H, W], of the names that the option --mask takes."""
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
        share = _float(share)
        if share is None or not 0 <= share <= 1:
            raise ValueError(f"mask: expected random:SHARE with a share in 0 to 1; got {name}")
        u = uniform(seed, torch.arange(n)[:, None], torch.arange(height * width), FIRST)
        return (u >= share).view(n, 1, height, width)
    if Path(name).suffix.lower() != ".npz":
        raise ValueError(f"mask: expected {', '.join(PARTS)}, random:SHARE or FILE.npz; got {name}")
    arrays = read_npz(name)
    if "mask" not in arrays or arrays["mask"].dtype != np.bool_:
        raise ValueError(f"{name}: expected an array 'mask' of bool; got {', '.join(sorted(arrays)) or 'none'}")
    mask = torch.from_numpy(arrays["mask"])
    mask = mask.view(*(1,) * (4 - mask.dim()), *mask.shape)
    if mask.shape[0] not in (1, n) or mask.shape[1] not in (1, images.shape[1]) or mask.shape[2:] != (height, width):
        raise ValueError(f"{name}: expected a mask for images {tuple(images.shape)}; got {tuple(mask.shape)}")
    return mask.expand(n, -1, -1, -1)


def _noise(text):
    kind, _, size = text.partition(":")
    kinds, size = {"bitflip": BitFlip, "gaussian": Gaussian}, _float(size)
    if kind not in kinds or size is None:
        raise argparse.ArgumentTypeError(f"expected bitflip:P or gaussian:SIGMA; got {text}")
    try:
        return kinds[kind](size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _float(text):
    """The number, or None where the text is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _batch_size(model, backend):
    return describe("", model).batch_size if is_latent(model) else Engine(model, backend=backend).batch_size


def _bar(steps, images, size):
    """A bar of the steps of all batches of `size` images, where there are any."""
    total = steps * -(-images // size)
    return counter(total, "step") if total else nullcontext()


def _first_held_out(args, check):
    """The model on its device, the first n held-out images, their labels or None, and their levels."""
    model, data, given_labels = held_out(args, check)
    data = first_images(data, args.n)
    return model, data.images, None if given_labels is None else given_labels[: len(data)].cpu(), data.levels


def _accepted(acceptance):
    shares = [f"{kind} {100 * rate:.0f} %" for kind, rate in acceptance.items()]
    return f"accepted: {', '.join(shares)}" if shares else "exact without a chain"
