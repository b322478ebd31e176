"""The command line: `genfast train | sample | evaluate ...`; `COMMANDS` lists them all."""

import argparse
import os
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import genfast
from genfast.cli.compression import compress_options, decompress_options, run_compress, run_decompress
from genfast.cli.demo import demo
from genfast.cli.equilibrium import equilibrium_options, run_equilibrium
from genfast.cli.latent import (
    embed_options,
    interpolate_options,
    reconstruct_options,
    run_embed,
    run_interpolate,
    run_reconstruct,
    run_traverse,
    traverse_options,
)
from genfast.cli.options import DATA_OPTIONS, add_data, add_device, add_split, add_target, count, positive
from genfast.cli.sampling import (
    denoise_options,
    inpaint_options,
    run_denoise,
    run_inpaint,
    run_sample,
    sample_options,
)
from genfast.cli.translate import run_translate, translate_options
from genfast.io import writable_folder
from genfast.models import MODELS
from genfast.train import PRESETS
from genfast.train.config import config_type
from genfast.train.session import evaluate, needs_labels, train

# Fields of a config that no option sets: the data decide, or a second training.
FROM_DATA = ("channels", "source_channels", "height", "width", "levels", "classes", "examples", "prior")


def main(argv=None):
    """Run one command and return its exit code: 0, 2 for an error in what was asked, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    try:
        args = make_parser().parse_args(argv)
        return args.run(args) or 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of a pipe went away, as `head` does
        return 1
    except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if debug:
            raise
        return _fail(_one_line(error), 2)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def make_parser():
    parser = Parser(prog="genfast", description="Train, sample and evaluate deep generative models.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (add_options, run, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        _common(command, run)
        add_options(command)
    return parser


def _common(parser, run):
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)


def _train_options(parser):
    choices = parser.add_subparsers(metavar="MODEL", required=True, parser_class=Parser)
    for name, (model, config) in MODELS.items():
        command = choices.add_parser(name, help=f"train a {name}", description=f"Train a {name} on images.")
        _common(command, run_train)
        command.set_defaults(model=name)
        add = command.add_argument
        add("--out", required=True, metavar="RUN", help="folder of the run; made if it is not there")
        presets = PRESETS.get(name, {})
        if presets:
            text = f"a recipe: {', '.join(presets)}; options given beside it win"
            add("--preset", choices=presets, metavar="NAME", help=text)
        add_data(command)
        if _is_conditional(config):
            default = needs_labels(name)
            on = ", ".join(preset for preset, recipe in presets.items() if recipe.get("conditional", default))
            text = "train on the labels of the data as well" + (f" (on for {on})" if on else "")
            add("--conditional", action=argparse.BooleanOptionalAction, help=text)
        add("--resume", action="store_true", help="continue the run in --out exactly where its checkpoint is")
        add("--overwrite", action="store_true", help="replace the run that is in --out")
        add("--init-from", metavar="RUN", help="start from the weights of this run or model")
        add("--minutes", type=positive, help="stop after so long, ready for --resume")
        add("--threads", type=count, help="threads of the CPU (default: torch's choice)")
        _config_options(command.add_argument_group("training"), config_type(model))
        _config_options(command.add_argument_group("model"), config, skip=FROM_DATA)


def _evaluate_options(parser):
    add_target(parser)
    add_data(parser)
    add_split(parser)
    parser.add_argument("--batch", type=count, default=250, help="images per batch (250)")
    add_device(parser)
    parser.add_argument("--images", type=count, help="only so many images: the first, of a GAN any (all)", metavar="N")
    text = "importance samples of each image, for models with latents (5000)"
    parser.add_argument("--samples", type=count, default=5000, help=text)
    parser.add_argument("--seed", type=int, default=0, help="of those samples; other likelihoods are exact (0)")
    text = "of a GAN's samples: classifier, pixels, or REAL.npz GENERATED.npz (a classifier, where there are labels)"
    parser.add_argument("--features", nargs="+", metavar="FEATURES", help=text)


def _demo_options(parser):
    parser.add_argument("--out", default="runs/demo", metavar="FOLDER", help="where the report goes (runs/demo)")
    parser.add_argument("--seconds", type=positive, default=110.0, help="longest time to train (110)")
    parser.add_argument("--seed", type=int, default=0, help="seed of training and samples (0)")


def _config_options(group, config, skip=()):
    hints, texts = get_type_hints(config), _attribute_texts(config.__doc__ or "")
    for field in fields(config):
        if field.name in skip:
            continue
        kind, text = hints[field.name], field.metadata.get("help") or texts.get(field.name, "")
        how = {"type": kind, "metavar": kind.__name__.upper()}
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif get_origin(kind) is Literal:
            how = {"choices": get_args(kind)}
        elif get_args(kind):
            how = {"type": get_args(kind)[0], "nargs": len(get_args(kind)), "metavar": "X"}
        shown = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        option = "--" + field.name.replace("_", "-")
        group.add_argument(option, default=argparse.SUPPRESS, help=f"{text} ({shown})".replace("%", "%%"), **how)


def _attribute_texts(doc):
    return dict(re.findall(r"^\s+(\w+): (.+)$", doc, re.MULTILINE))


def run_train(args):
    out = writable_folder(args.out)
    settings = config_type(MODELS[args.model][0])
    given = {f.name: getattr(args, f.name) for f in fields(settings) if hasattr(args, f.name)}
    result = train(
        out,
        model=args.model,
        preset=getattr(args, "preset", None),
        conditional=getattr(args, "conditional", None),
        model_options={k: v for k, v in vars(args).items() if k in _model_fields(args.model)},
        train_options=given,
        data_options={k: getattr(args, k) for k in DATA_OPTIONS},
        resume=args.resume,
        overwrite=args.overwrite,
        init_from=args.init_from,
        minutes=args.minutes,
        threads=args.threads,
    )
    if result.reason == "finished":
        print(f"{out}: {result.steps} steps; {result}")
        return 0
    again = f"continue with: genfast train {args.model} --out {shlex.quote(str(out))} --resume"
    print(f"stopped at step {result.step} of {result.steps}, checkpoint saved; {again}", file=sys.stderr)
    return 130 if result.reason == "interrupted" else 0


def _is_conditional(config):
    return any(field.name == "classes" for field in fields(config))


def _model_fields(name):
    return {f.name for f in fields(MODELS[name][1])} - set(FROM_DATA)


def run_evaluate(args):
    data = {k: getattr(args, k) for k in DATA_OPTIONS}
    options = {"samples": args.samples, "seed": args.seed, "images": args.images, "features": args.features}
    for line in evaluate(args.target, data, args.split, args.batch, args.device, **options):
        print(line)


def run_backends(args):
    for backend in genfast.backends().values():
        print(backend)


def run_demo(args):
    demo(Path(args.out), seconds=args.seconds, seed=args.seed)


def _one_line(error):
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _fail(message, code):
    print(f"genfast: error: {message}", file=sys.stderr)
    return code


COMMANDS = {
    "train": (_train_options, run_train, "train a model on images"),
    "sample": (sample_options, run_sample, "draw images from a model"),
    "inpaint": (inpaint_options, run_inpaint, "fill in unknown parts of images"),
    "denoise": (denoise_options, run_denoise, "clean images of noise, and measure it"),
    "reconstruct": (reconstruct_options, run_reconstruct, "images after encoding and decoding, beside the images"),
    "interpolate": (interpolate_options, run_interpolate, "images on the way from one to another"),
    "traverse": (traverse_options, run_traverse, "what each latent of a VAE does"),
    "embed": (embed_options, run_embed, "images as vectors: to a file, their neighbours, what they tell of labels"),
    "compress": (compress_options, run_compress, "images to a small file by a vq-vae's codes, beside JPEG"),
    "decompress": (decompress_options, run_decompress, "images from such a file"),
    "translate": (translate_options, run_translate, "a folder of images to another domain, by a pix2pix"),
    "evaluate": (_evaluate_options, run_evaluate, "likelihood of held-out images, beside yardsticks"),
    "equilibrium": (equilibrium_options, run_equilibrium, "how the two sides of a GAN stand, in words and as a plot"),
    "backends": (lambda parser: None, run_backends, "what runs the kernels on this machine, and why"),
    "demo": (_demo_options, run_demo, "train on digits, two minutes at most, and write a report"),
}
