"""`genfast translate`: a folder of images to another domain."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from genfast._text import shown
from genfast.cli._command import command
from genfast.cli.options import add_device, add_files, add_out, add_target, warn
from genfast.cli.progress import counter
from genfast.data.folder import Tree
from genfast.data.splits import ALL, CHOICES
from genfast.engine.arguments import check_count
from genfast.tasks.translate import check_translator, translate_folder
from genfast.train.loop import pick_device
from genfast.train.run_folder import open_model


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="images of the source domain, grey or colour, of any sizes")
    add_out(parser, "FOLDER2", "folder for the PNG files, of the same names")
    add("--split", choices=CHOICES, default=ALL, help="which images: those of a split, or all (all)")
    add("--seed", type=int, default=0, help="of the noise; same seed, same images (0)")
    add("--no-noise", dest="noise", action="store_false", help="translate without the model's noise")
    add_files(parser)
    add_device(parser)


@command("translate", "a folder of images to another domain, by a pix2pix", options)
def run(args: argparse.Namespace) -> None:
    check_count("translate", 0, 0, args.seed)
    model = open_model(args.target).to(pick_device(args.device))
    check_translator(model)
    start = time.perf_counter()
    folder = Path(args.folder)
    files = Tree.of(folder).files(args.split)
    settings: Any = {name: getattr(args, name) for name in ("seed", "noise", "split", "bits", "overwrite")}
    with counter(len(files), "image") as progress:
        written, wrong = translate_folder(
            model, folder, args.out, **settings, progress=progress, tell=warn, say=partial(print, flush=True)
        )
    print(f"{shown(args.out)}: {written} images, {written / (time.perf_counter() - start):.0f} images/s")
    for path, reason in wrong.items():
        warn(f"{path}: {reason}")
    total = f"{len(wrong)} of {len(wrong) + written} that could not be translated"
    if wrong and (args.strict or not written):
        raise ValueError(f"{args.folder}: expected readable images of at least the model's stride; got {total}")
    if wrong:
        warn(f"{args.folder}: {total}, the others are written; --strict makes it an error")
