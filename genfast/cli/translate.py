"""The command that translates a folder of images: `genfast translate`."""

import sys
import time
from pathlib import Path

from genfast.cli.options import add_device, add_target
from genfast.data.folder import image_files
from genfast.engine.arguments import check_count
from genfast.tasks.translate import check_translator, translate_folder
from genfast.train.progress import counter
from genfast.train.run_folder import open_model
from genfast.train.trainer import pick_device


def translate_options(parser):
    add_target(parser)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="images of the source domain, grey or colour, of any sizes")
    add("--out", required=True, metavar="FOLDER2", help="folder for a PNG of the same name for each")
    add("--seed", type=int, default=0, help="of the noise; same seed, same images (0)")
    add("--no-noise", dest="noise", action="store_false", help="translate without the model's noise")
    add_device(parser)


def run_translate(args):
    check_count("translate", 0, 0, args.seed)
    model = open_model(args.target).to(pick_device(args.device))
    check_translator(model)
    start = time.perf_counter()
    with counter(len(image_files(Path(args.folder))), "image") as progress:
        written, wrong = translate_folder(
            model, args.folder, args.out, seed=args.seed, noise=args.noise, progress=progress
        )  # fmt: skip
    print(f"{args.out}: {written} images, {written / (time.perf_counter() - start):.0f} images/s")
    for path, reason in wrong.items():
        print(f"{path}: {reason}", file=sys.stderr)
    if wrong:
        total = f"{len(wrong)} of {len(wrong) + written} that could not be translated"
        raise ValueError(f"{args.folder}: expected readable images of at least the model's stride; got {total}")
