"""`genfast embed`: images as vectors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from genfast import metrics
from genfast.cli._command import command
from genfast.cli._held_out import held_out, held_out_options, labels_for
from genfast.cli.options import data_options, picture_path, positive_int, warn
from genfast.cli.progress import counter
from genfast.data import ImageData
from genfast.data.grid import brightness, rows
from genfast.io import write_bytes
from genfast.tasks import embed, neighbours, save_embedding
from genfast.tasks._latent import check_latent_model
from genfast.tasks.embed import embedding_writer
from genfast.train.run_data import data_of, first_images, load_data

VOTERS = 5  # nearest neighbours that vote on a label


def options(parser: argparse.ArgumentParser) -> None:
    held_out_options(parser, "FILE", "FILE.npz or FILE.parquet: the mean of each image's latents, and its label")
    parser.add_argument("--log-variance", action="store_true", help="write the log-variances as well")
    parser.add_argument("--neighbours", metavar="FILE.png", help="a row for each image: the image, its nearest ones")
    parser.add_argument("-n", type=positive_int, default=10, help="images in the picture of neighbours (10)")
    parser.add_argument("-k", type=positive_int, default=8, help="neighbours of each of them (8)")
    text = "training images that neighbours and labels are learned from, at most (10000)"
    parser.add_argument("--train", type=positive_int, default=10_000, metavar="M", help=text)


@command("embed", "images as vectors: a file, nearest neighbours, accuracy of labels", options)
def run(args: argparse.Namespace) -> None:
    embedding_writer(args.out)  # a wrong suffix or a missing package raises before the work
    path = None if args.neighbours is None else picture_path(args.neighbours)
    model, data, labels = held_out(args)
    check_latent_model("embed", model)
    z, log_variance = _vectors(model, data, labels, log_variance=True)
    save_embedding(args.out, z, labels=data.labels, log_variances=log_variance if args.log_variance else None)
    print(f"{args.out}: {z.shape[0]} vectors of {z.shape[1]} latents, {data.name}")
    if path is None and data.labels is None:
        return
    training: Any = first_images(load_data(data_of(args.target, data_options(args)), "train", warn), args.train)
    points = _vectors(model, training, labels_for(model, training))
    if path is not None:
        nearest = neighbours(z[: args.n], points, min(args.k, len(points)))[1]
        columns = (training.images[indices] for indices in nearest.unbind(1))
        write_bytes(path, rows(*(brightness(images, data.levels) for images in (data.images[: args.n], *columns))))
        print(
            f"{path}: {len(nearest)} images, each beside its "
            f"{nearest.shape[1]} nearest of {len(points)} training images"
        )
    if data.labels is not None and training.labels is not None:
        for line in _accuracies(training, data, points, z):
            print(line)


def _accuracies(training: Any, data: Any, points: Tensor, z: Tensor) -> Iterator[str]:
    """The lines of a table: accuracies of labels from latents, and from pixels."""
    yield f"{'labels from':<20} {'linear probe':>12} {f'{VOTERS} neighbours':>12}"
    k = min(VOTERS, len(points))
    pixels = (images.images.flatten(1).float() / (data.levels - 1) for images in (training, data))
    for name, (known, asked) in {"latents": (points, z), "pixels": tuple(pixels)}.items():
        probe = metrics.linear_probe(known, training.labels, asked, data.labels)
        votes = metrics.neighbour_accuracy(known, training.labels, asked, data.labels, k)
        yield f"{f'{known.shape[1]} {name}':<20} {100 * probe:>10.2f} % {100 * votes:>10.2f} %"


def _vectors(model: Any, data: ImageData, labels: Tensor | None, **options: Any) -> Any:
    with counter(len(data), "image") as progress:
        return embed(model, data.images, labels, progress=progress, **options)
