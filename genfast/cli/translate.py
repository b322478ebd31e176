"""`genfast translate`: a folder of images to another domain."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from genfast.cli._command import command
from genfast.cli.options import add_device, add_out, add_target, warn
from genfast.cli.progress import counter
from genfast.data.folder import image_files
from genfast.engine.arguments import check_count
from genfast.tasks.translate import check_translator, translate_folder
from genfast.train.loop import pick_device
from genfast.train.run_folder import open_model


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="images of the source domain, grey or colour, of any sizes")
    add_out(parser, "FOLDER2", "folder for the PNG files, of the same names")
    add("--seed", type=int, default=0, help="of the noise; same seed, same images (0)")
    add("--no-noise", dest="noise", action="store_false", help="translate without the model's noise")
    add_device(parser)


@command("translate", "a folder of images to another domain, by a pix2pix", options)
def run(args: argparse.Namespace) -> None:
    check_count("translate", 0, 0, args.seed)
    model = open_model(args.target).to(pick_device(args.device))
    check_translator(model)
    start = time.perf_counter()
    with counter(len(image_files(Path(args.folder))), "image") as progress:
        written, wrong = translate_folder(
            model,
            args.folder,
            args.out,
            seed=args.seed,
            noise=args.noise,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(f"{args.out}: {written} images, {written / (time.perf_counter() - start):.0f} images/s")
    for path, reason in wrong.items():
        warn(f"{path}: {reason}")
    if wrong:
        total = f"{len(wrong)} of {len(wrong) + written} that could not be translated"
        raise ValueError(f"{args.folder}: expected readable images of at least the model's stride; got {total}")
