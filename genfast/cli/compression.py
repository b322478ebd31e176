"""The commands of lossy compression: `genfast compress | decompress`."""

from pathlib import Path

import numpy as np

from genfast.cli.options import DATA_OPTIONS, add_data, add_device, add_split, add_target, count
from genfast.data.folder import read_images
from genfast.data.grid import brightness, png, writer
from genfast.io import writable_folder, write_bytes
from genfast.models import VQVAE
from genfast.tasks.compress import compress, decompress, rate_distortion, table
from genfast.train.inputs import check
from genfast.train.run_folder import open_model
from genfast.train.session import data_of, held_out_data
from genfast.train.trainer import pick_device


def compress_options(parser):
    add_target(parser)
    text = "image files of one size, any size; without them, held-out images of the data"
    parser.add_argument("images", nargs="*", metavar="IMAGES", help=text)
    parser.add_argument("--out", required=True, metavar="FILE", help="the compressed file, of all images")
    add_data(parser)
    add_split(parser)
    parser.add_argument("-n", type=count, help="held-out images, the first ones (all)")
    add_device(parser)


def decompress_options(parser):
    add_target(parser)
    parser.add_argument("file", metavar="FILE", help="what genfast compress wrote, by the same model")
    text = "FILE.png (a grid, or the image as it is if there is one), FILE.npz (the levels), or a folder of .png files"
    parser.add_argument("--out", required=True, metavar="OUT", help=text)
    add_device(parser)


def run_compress(args):
    path = Path(args.out)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write; got a folder")
    writable_folder(path.parent)
    model = _open(args)
    levels, images = model.config.levels, _images(args, model)
    data = compress(model, images)
    write_bytes(path, data)
    print(f"{path}: {len(images)} images of {images.shape[3]}x{images.shape[2]}, {levels} levels, {len(data)} bytes")
    for line in table(rate_distortion(model, images)):
        print(line)


def run_decompress(args):
    path = Path(args.out)
    is_folder = path.suffix.lower() not in (".png", ".npz") and (path.is_dir() or not path.suffix)
    write = None if is_folder else writer(path)
    model = _open(args)
    try:
        images = decompress(model, Path(args.file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{args.file}: {error}") from None
    levels = model.config.levels
    if is_folder:
        writable_folder(path)
        for index, image in enumerate(_pictures(images, levels)):
            write_bytes(path / f"image-{index:05d}.png", png(image))
    elif len(images) == 1 and path.suffix.lower() == ".png":
        write_bytes(path, png(_pictures(images, levels)[0]))
    else:
        write(images, levels)
    print(f"{path}: {len(images)} images of {images.shape[3]}x{images.shape[2]}")


def _open(args):
    model = open_model(args.target)
    if not isinstance(model, VQVAE):
        raise ValueError(f"{args.target}: expected a vq-vae; got a {model.name}")
    return model.to(pick_device(args.device))


def _images(args, model):
    """The images of the files, or the first held-out ones: uint8 [N, C, H, W]."""
    if args.images:
        if args.data or args.split or args.n:
            raise ValueError("compress: expected image files, or options of held-out images; got both")
        return read_images(args.images, model.config.channels, model.config.levels)
    data = held_out_data(data_of(args.target, {name: getattr(args, name) for name in DATA_OPTIONS}), args.split)
    check(model, data)
    return data.images[: args.n]


def _pictures(images, levels):
    """Arrays [H, W, C] of 0..255."""
    return [np.ascontiguousarray(image) for image in brightness(images, levels).numpy().transpose(0, 2, 3, 1)]
