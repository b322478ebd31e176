"""`genfast train MODEL`: train a model on images."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from genfast._text import shown
from genfast.cli._command import Parser, add_common, command
from genfast.cli._settings import check_out, merged, printed, read_settings
from genfast.cli.options import add_data, data_options, positive, positive_int, warn
from genfast.cli.progress import progress_bar, with_tensorboard
from genfast.models import MODELS
from genfast.train.codes import is_codes
from genfast.train.config import config_type
from genfast.train.presets import PRESETS
from genfast.train.start import start


def options(parser: argparse.ArgumentParser) -> None:
    choices = parser.add_subparsers(metavar="MODEL", required=True, parser_class=Parser)
    for name, (model, config) in MODELS.items():
        subparser = choices.add_parser(name, help=f"train a {name}", description=f"Train a {name} on images.")
        add_common(subparser, run)
        subparser.set_defaults(model=name, preset=None, conditional=None)
        add = subparser.add_argument
        add("--out", metavar="RUN", help="folder of the run; it is made if missing")
        text = "settings, as --print-config prints them or a run's config.json has them; other options override them"
        add("--config", metavar="FILE", help=f"YAML or JSON file of {text}")
        add("--print-config", action="store_true", help="print all settings, those of the other options too, and end")
        add("--tensorboard", metavar="PATH", help="a folder for what TensorBoard shows, beside metrics.jsonl in RUN")
        presets = PRESETS.get(name, {})
        if presets:
            text = f"a recipe: {', '.join(presets)}; other options override it"
            add("--preset", choices=presets, metavar="NAME", help=text)
        add_data(subparser)
        if config.may_be_conditional():
            default = config.is_always_conditional()
            on = [recipe.name for recipe in presets.values() if _or(recipe.conditional, default)]
            text = "train on the labels of the data as well" + (f" (on for {', '.join(on)})" if on else "")
            add("--conditional", action=argparse.BooleanOptionalAction, help=text)
        add("--resume", action="store_true", help="continue the run in --out exactly where its checkpoint is")
        add("--overwrite", action="store_true", help="replace the run in --out")
        add("--init-from", metavar="RUN", help="start from the weights of this run or model")
        text = "train for so long at most: the learning rate is zero by then; with --steps, --epochs or --resume: only "
        add("--minutes", type=positive, help=f"{text}stop this call after so long, ready for --resume")
        add("--threads", type=positive_int, help="threads of the CPU (default: torch's choice)")
        _config_options(subparser.add_argument_group("training"), config_type(model))
        _config_options(subparser.add_argument_group("model"), config)


@command("train", "train a model on images", options)
def run(args: argparse.Namespace) -> int:
    if args.config and args.resume:
        raise ValueError("--config: expected no --resume, which has the settings of its run; got both")
    settings = merged(read_settings(args.config, args.model) if args.config else {}, _options(args))
    if args.print_config:
        print(printed(args.model, settings), end="")
        return 0
    check_out(args)
    out = Path(args.out)
    result = start(
        out,
        model=args.model,
        preset=settings["preset"],
        conditional=settings["conditional"],
        model_options=settings["model_config"],
        train_options=settings["train"],
        data_options=settings["data"],
        resume=args.resume,
        overwrite=args.overwrite,
        init_from=args.init_from,
        minutes=args.minutes,
        threads=args.threads,
        bar=progress_bar if args.tensorboard is None else with_tensorboard(progress_bar, args.tensorboard),
        tell=warn,
        say=partial(print, flush=True),
    )
    if result.reason == "finished":
        print(f"{shown(out)}: {result.steps} steps; {result}")
        return 0
    codes = f" --data {shlex.quote(args.data)}" if is_codes({"data": args.data}) else ""
    again = f"continue with: genfast train {args.model} --out {shlex.quote(str(out))} --resume{codes}"
    print(f"stopped at step {result.step} of {result.steps}, checkpoint saved; {again}", file=sys.stderr)
    return 130 if result.reason == "interrupted" else 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, in the sections of a file of settings."""
    model, config = MODELS[args.model]
    return {
        "preset": args.preset,
        "conditional": args.conditional,
        "model_config": _given(args, config),
        "train": _given(args, config_type(model)),
        "data": data_options(args),
    }


def _or(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def _given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields of a config that were given as options."""
    names = [field.name for field in fields(config) if not field.metadata["from_data"]]
    return {name: getattr(args, name) for name in names if name in args}


def _config_options(group: argparse._ArgumentGroup, config: type) -> None:
    """An option for each field of a config, with its help and choices."""
    hints = get_type_hints(config)
    for field in fields(config):
        if field.metadata["from_data"]:
            continue
        kind, choices = hints[field.name], field.metadata["choices"]
        how: dict[str, Any] = {"type": kind, "metavar": kind.__name__.upper() if isinstance(kind, type) else "X"}
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif choices or get_origin(kind) is Literal:
            how = {"choices": choices or get_args(kind)}
        elif get_args(kind):
            how = {"type": get_args(kind)[0], "nargs": len(get_args(kind)), "metavar": "X"}
        default = field.default if field.default is not MISSING else ""
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{field.metadata['help']} ({shown})".replace("%", "%%")
        group.add_argument("--" + field.name.replace("_", "-"), default=argparse.SUPPRESS, help=text, **how)
