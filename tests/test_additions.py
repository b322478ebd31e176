"""What an addition costs: its own file. A copy of the package gets one file, and all that should know of it does.

An op's files are compared in test_codebase; its native half needs a compiler.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genfast

MODEL = {
    "models/toy.py": '''
"""A model of independent pixels."""
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import Tensor, nn
from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig
from genfast.models.base import register_model

@dataclass
class ToyConfig(AutoregressiveConfig):
    """Sizes of a `Toy`."""
    width_of_nothing: int = option(3, "a number that does nothing", ge=1)

@register_model
class Toy(Autoregressive):
    """Independent pixels."""
    name = "toy"
    config_type = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        parameters = self.likelihood.parameters
        self.logits = nn.Parameter(torch.zeros(parameters, config.height, config.width))

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self.logits[None, :, : x.shape[2]] + 0 * x.sum(1, keepdim=True)
''',
    "train/presets/toy.py": '''
"""Recipes of toy."""
from genfast.train.presets._registry import Recipe, register_recipes

register_recipes("toy", Recipe("digits", data="digits", model={}, train={"steps": 30, "batch": 32, "lr": 1e-2}))
''',
}
USE_MODEL = """
import torch, genfast
from genfast.cli import main
assert genfast.models.Toy is genfast.models.MODELS["toy"][0]
model = genfast.models.build("toy", height=3, width=4, levels=3)
assert genfast.sample(model, 5, backend="full_forward").shape == (5, 1, 3, 4)
assert main(["train", "toy", "--preset", "digits", "--out", "run", "--eval-every", "30"]) == 0
assert isinstance(genfast.models.load("run/model"), genfast.models.Toy)
assert main(["evaluate", "run", "--images", "20"]) == 0
assert main(["sample", "run", "-n", "4", "--out", "a.npz", "--backend", "full_forward"]) == 0
"""

DATASET = {
    "data/toy.py": '''
"""Stripes."""
from __future__ import annotations
import numpy as np
from genfast.data._images import ImageData, image_data
from genfast.data._registry import DataRequest, register_dataset

@register_dataset("stripes", "stripes of 4x4 pixels")
def load_stripes(request: DataRequest) -> ImageData:
    return image_data(np.tile(np.eye(4, dtype=np.uint8), (8, 1, 1)), 2, f"stripes[{request.split}]")
''',
}
USE_DATASET = """
import genfast
from genfast.cli import main
assert genfast.data.load("stripes", split="valid").images.shape == (8, 1, 4, 4)
try:
    genfast.data.load("stripe")
except FileNotFoundError as error:
    assert "stripes" in str(error)
train = ["train", "pixelcnn", "--data", "stripes", "--out", "run", "--steps", "2", "--layers", "0", "--hidden", "2"]
assert main([*train, "--head", "2"]) == 0
"""

COMMAND = {
    "cli/toy.py": '''
"""`genfast toy`."""
from __future__ import annotations
import argparse
from genfast.cli._command import command

def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word")

@command("toy", "says a word", options)
def run(args: argparse.Namespace) -> None:
    print("the word is", args.word)
''',
}
USE_COMMAND = """
import io, contextlib
from genfast.cli import main
out = io.StringIO()
with contextlib.redirect_stdout(out):
    assert main(["toy", "hello"]) == 0
assert out.getvalue() == "the word is hello\\n"
"""

LIKELIHOOD = {
    "likelihoods/toy.py": '''
"""A softmax whose logits are halved, as another likelihood of decoders and of autoregressive models."""
from __future__ import annotations
from dataclasses import dataclass
from torch import Tensor
from genfast.likelihoods.base import register_likelihood
from genfast.likelihoods.categorical import Categorical

@register_likelihood
@dataclass(frozen=True)
class Halved(Categorical):
    name = "halved"
    case = None
    decodes = True
    output_orders = {"halved": None}

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        return super().nll(x, parameters / 2, weight)

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        return super().draw(parameters / 2, seed, first, temperature)

    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        return super().draw_levels(parameters / 2, u, temperature, evidence)

    def log_probabilities(self, parameters: Tensor, temperature: float = 1.0) -> Tensor:
        return super().log_probabilities(parameters / 2, temperature)
''',
}
USE_LIKELIHOOD = """
import warnings
import torch, genfast
from genfast.cli import main
from genfast.nn import MaskedConv2d
vae = genfast.models.build("vae", likelihood="halved", levels=3, height=4, width=4, hidden=2, latent=2)
images = vae.sample(6)
assert images.shape == (6, 1, 4, 4) and genfast.log_prob(vae, images[:2]).isfinite().all()
model = MaskedConv2d(1, 3, 3, "A").eval()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    options = {"shape": (1, 3, 3), "levels": 3, "input_range": (0, 1), "head": "halved"}
    drawn = genfast.sample(model, 4, **options)
    got = genfast.log_prob(model, drawn, **options)
with torch.no_grad():
    logits = model(drawn.float() / 2) / 2
expected = -genfast.categorical_nll(drawn, logits[:, None])
torch.testing.assert_close(got.float(), expected)
arguments = ["--out", "run", "--steps", "1", "--hidden", "2", "--likelihood", "halved"]
assert main(["train", "vae", "--data", "digits", *arguments]) == 0
"""

ADDITIONS = {
    "model": (MODEL, USE_MODEL),
    "data set": (DATASET, USE_DATASET),
    "command": (COMMAND, USE_COMMAND),
    "likelihood": (LIKELIHOOD, USE_LIKELIHOOD),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_addition_is_its_file(kind, tmp_path):
    files, use = ADDITIONS[kind]
    package = tmp_path / "package" / "genfast"
    shutil.copytree(Path(genfast.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files.items():
        (package / name).write_text(text.lstrip())
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run([sys.executable, "-c", use], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
