"""The commands of models with latents: `genfast reconstruct | interpolate | traverse | embed`."""

import torch

from genfast import metrics
from genfast.cli.held_out import data_options, held_out, held_out_options, labels_for
from genfast.cli.options import count, counted, picture_path, positive, several
from genfast.data.grid import brightness, grid, png, rows
from genfast.engine.latents import describe
from genfast.io import write_bytes
from genfast.tasks import embed, interpolate, linear_probe, neighbour_accuracy, neighbours, save_embedding, traverse
from genfast.tasks.embed import embedding_writer
from genfast.tasks.interpolate import KINDS
from genfast.train.inputs import batches, inputs
from genfast.train.progress import counter, track
from genfast.train.session import data_of, first_images, load_data

ACROSS = 10  # images in a row of a picture
CARRIED = 0.01  # nats that a latent named in a traversal carries at least
VOTERS = 5  # nearest neighbours that vote on a label


def reconstruct_options(parser):
    held_out_options(parser, "FILE.png", "the images, and below them what the model makes of them")
    parser.add_argument("-n", type=count, default=20, help="images, the first of the held-out ones (20)")
    parser.add_argument("--batch", type=count, default=250, help="images per batch (250)")


def interpolate_options(parser):
    held_out_options(parser, "FILE.png", "a row for each pair: an image, the path, the other image")
    parser.add_argument("-n", type=count, default=8, help="pairs of held-out images, the first ones (8)")
    parser.add_argument("--steps", type=several, default=9, help="images on the path, both ends among them (9)")
    parser.add_argument("--kind", choices=KINDS, default="spherical", help="along an arc or straight (spherical)")


def traverse_options(parser):
    held_out_options(parser, "FILE.png", "a row for each latent, the most active first")
    parser.add_argument("--image", type=counted, default=0, help="which held-out image to begin with (0)")
    parser.add_argument("--steps", type=several, default=9, help="values of a latent (9)")
    text = "how far a latent moves to either side, in standard deviations of the prior (3)"
    parser.add_argument("--span", type=positive, default=3.0, help=text)
    parser.add_argument("--latents", type=count, default=10, help="rows, at most (10)")


def embed_options(parser):
    held_out_options(parser, "FILE", "FILE.npz or FILE.parquet: the mean of each image's latents, and its label")
    parser.add_argument("--log-variance", action="store_true", help="write the log-variances as well")
    parser.add_argument("--neighbours", metavar="FILE.png", help="a row for each image: the image, its nearest ones")
    parser.add_argument("-n", type=count, default=10, help="images in the picture of neighbours (10)")
    parser.add_argument("-k", type=count, default=8, help="neighbours of each of them (8)")
    text = "training images that neighbours and labels are learned from, at most (10000)"
    parser.add_argument("--train", type=count, default=10_000, metavar="M", help=text)


def run_reconstruct(args):
    path = picture_path(args.out)
    model, data, _ = held_out(args)
    if not hasattr(model, "reconstruct"):
        raise TypeError(f"reconstruct: model must have latents or codes; got {model.name}")
    parts = track(batches(inputs(model, data), args.batch), "batch")
    found = torch.cat([model.eval().reconstruct(*part).cpu() for part in parts])
    shown = [brightness(images[: args.n], data.levels) for images in (data.images, found)]
    write_bytes(path, png(grid(_stacked(*shown), 256, columns=min(ACROSS, len(shown[0])))))
    wrong = f", {100 * float((found != data.images).double().mean()):.2f} % of bits wrong" if data.levels == 2 else ""
    print(f"{path}: {len(shown[0])} images, truth above, reconstruction below")
    psnr = metrics.psnr(found, data.images, data.levels)
    print(f"{data.name}: {len(found)} images, PSNR {psnr:.2f} dB{wrong}")


def run_interpolate(args):
    path = picture_path(args.out)
    model, data, labels = held_out(args)
    describe("interpolate", model)
    pairs = min(args.n, len(data) // 2)
    if not pairs:
        raise ValueError(f"{data.name}: expected two images or more; got {len(data)}")
    ends = [slice(side, 2 * pairs, 2) for side in (0, 1)]
    a, b = (data.images[end] for end in ends)
    chosen = [None if labels is None else labels[end] for end in ends]
    latents = [embed(model, images, given) for images, given in zip((a, b), chosen)]
    between = interpolate(model, *latents, args.steps, kind=args.kind, labels=chosen[0])
    columns = (brightness(images, data.levels) for images in (a, *between.unbind(1), b))
    write_bytes(path, rows(*columns))
    print(f"{path}: {pairs} pairs, each: an image, {args.steps} steps of a {args.kind} path, the other image")


def run_traverse(args):
    path = picture_path(args.out)
    model, data, labels = held_out(args)
    if args.image >= len(data):
        raise ValueError(f"image: expected 0 to {len(data) - 1} of {data.name}; got {args.image}")
    one = slice(args.image, args.image + 1)
    network = describe("traverse", model)
    found = traverse(
        model, data.images[one], steps=args.steps, span=args.span, labels=None if labels is None else labels[one],
        reference=data.images if labels is None else None,
    )  # fmt: skip
    shown = found.images[0, : args.latents]
    write_bytes(path, rows(*(brightness(images, data.levels) for images in shown.unbind(1))))
    active = int((found.kl >= CARRIED).sum())
    print(
        f"{path}: {len(shown)} of {network.latents} latents, {args.steps} values from -{args.span:g} to {args.span:g}"
    )
    print(f"{active} latents carry {CARRIED} nats or more: {', '.join(_named(found))}")


def run_embed(args):
    embedding_writer(args.out)  # a wrong ending or a missing package is found before the work
    path = None if args.neighbours is None else picture_path(args.neighbours)
    model, data, labels = held_out(args)
    describe("embed", model)
    z, log_variance = _vectors(model, data, labels, log_variance=True)
    save_embedding(args.out, z, labels=data.labels, log_variances=log_variance if args.log_variance else None)
    print(f"{args.out}: {z.shape[0]} vectors of {z.shape[1]} latents, {data.name}")
    if path is None and data.labels is None:
        return
    training = first_images(load_data(data_of(args.target, data_options(args)), "train"), args.train)
    points = _vectors(model, training, labels_for(model, training))
    if path is not None:
        chosen = neighbours(z[: args.n], points, min(args.k, len(points)))[1]
        columns = (training.images[indices] for indices in chosen.unbind(1))
        write_bytes(path, rows(*(brightness(images, data.levels) for images in (data.images[: args.n], *columns))))
        print(
            f"{path}: {len(chosen)} images, each beside its {chosen.shape[1]} nearest of {len(points)} training images"
        )
    if data.labels is not None and training.labels is not None:
        for line in _accuracies(training, data, points, z):
            print(line)


def _accuracies(training, data, points, z):
    """Lines of a table: what latents, and the pixels themselves, tell of the labels."""
    yield f"{'labels from':<20} {'linear probe':>12} {f'{VOTERS} neighbours':>12}"
    k = min(VOTERS, len(points))
    pixels = (images.images.flatten(1).float() / (data.levels - 1) for images in (training, data))
    for name, (known, asked) in {"latents": (points, z), "pixels": tuple(pixels)}.items():
        probe = linear_probe(known, training.labels, asked, data.labels)
        votes = neighbour_accuracy(known, training.labels, asked, data.labels, k)
        yield f"{f'{known.shape[1]} {name}':<20} {100 * probe:>10.2f} % {100 * votes:>10.2f} %"


def _vectors(model, data, labels, **options):
    with counter(len(data), "image") as progress:
        return embed(model, data.images, labels, progress=progress, **options)


def _named(found):
    return [f"{latent} ({kl:.2f})" for latent, kl in zip(found.latents.tolist(), found.kl.tolist()) if kl >= CARRIED]


def _stacked(*sets):
    """The images of several sets, a row of each under one another: [rows * sets * ACROSS, C, H, W]."""
    across = min(ACROSS, len(sets[0]))
    filled = [torch.cat((s, s.new_full((-len(s) % across, *s.shape[1:]), 96))) for s in sets]
    return torch.stack([s.unflatten(0, (-1, across)) for s in filled], 1).flatten(0, 2)
