"""`genfast models`: what can be trained, and the weights that come with the package."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from genfast.cli._command import command
from genfast.cli.options import add_json, check_json, write_result
from genfast.models import MODELS, load
from genfast.models._pretrained import SHIPPED
from genfast.train.presets import PRESETS


@dataclass(frozen=True)
class Entry:
    """An architecture: its presets with their data (None: the user's own), its weights with their number."""

    name: str
    text: str
    presets: dict[str, str | None]
    weights: dict[str, int]


def options(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


@command("models", "what can be trained, its presets, and the weights that come with the package", options)
def run(args: argparse.Namespace) -> None:
    check_json(args)
    entries = [_entry(name) for name in sorted(MODELS)]
    if write_result(args, entries):
        return
    for entry in entries:
        print(f"{entry.name}: {entry.text}")
        for preset, data in entry.presets.items():
            print(f"  genfast train {entry.name} --preset {preset} --out RUN{'' if data else ' --data DATA'}")
        for weights, parameters in entry.weights.items():
            print(f"  genfast sample {weights} --out samples.png: weights of {parameters:,} parameters, in the package")


def _entry(name: str) -> Entry:
    text = (MODELS[name][0].__doc__ or "").splitlines()[0].replace("`", "")
    presets = {recipe.name: recipe.data for recipe in PRESETS.get(name, {}).values()}
    weights = {}
    for folder in sorted(SHIPPED.glob(f"{name}-*/")):
        model = load(folder)
        if model.name == name:  # not that of a longer name
            weights[folder.name] = sum(p.numel() for p in model.parameters())
    return Entry(name, text, presets, weights)
