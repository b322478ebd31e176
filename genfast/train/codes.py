"""The data set `codes:RUN`: the codes of a VQ-VAE as images, to train its prior on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genfast._text import shown
from genfast.data import ImageData
from genfast.io import check_writable
from genfast.models.vqvae import PRIORS, VQVAE
from genfast.train.inputs import batches, check
from genfast.train.run_folder import load_run, open_model, run_writer

PREFIX = "codes:"


def code_data(source: dict[str, Any], split: str, load: Callable[[dict[str, Any], str], Any]) -> ImageData:
    """The codes of a VQ-VAE's images, as `ImageData` [N, 1, h, w] of K levels, with the labels of the images.

    Args: source (settings of the data, with `data` = `codes:RUN`); split; load (a function (source, split) -> images).
    Raises: ValueError for a run of another model, or with more than 256 codes.
    """
    run = _run(source)
    model, about = _vqvae(run), load_run(run)["data"]
    given = {key: value for key, value in source.items() if key == "data_root" and value}
    data = load(about | given, split)
    check(model, data)
    if model.config.codes > 256:
        raise ValueError(f"{shown(run)}: expected at most 256 codes for a prior; got {model.config.codes}")
    with torch.no_grad():
        codes = [model.encode(images) for (images,) in batches((data.images,), 250)]
    images = torch.cat(codes)[:, None].to(torch.uint8)
    return replace(data, images=images, levels=model.config.codes, name=f"{PREFIX}{data.name}", skipped=0)


def is_codes(source: dict[str, Any]) -> bool:
    """Whether settings of data name the codes of a run."""
    return str(source.get("data") or "").startswith(PREFIX)


def check_prior(source: dict[str, Any], network: nn.Module, attach: bool = True) -> None:
    """Before a prior is trained: ValueError for a model that cannot be one; OSError if it cannot be attached."""
    if network.name not in PRIORS:
        raise ValueError(f"codes: expected a model of {', '.join(PRIORS)}; got {network.name}")
    run = _run(source)
    if attach:
        check_writable(run)
    _vqvae(run)


def attach_prior(source: dict[str, Any], prior_run: str | Path) -> None:
    """Store the model of `prior_run` as the prior of the VQ-VAE that its data name, in the folder of the VQ-VAE.

    Raises: RuntimeError if another process writes there.
    """
    run = _run(source)
    with run_writer(run, resume=True):
        model = _vqvae(run)
        model.set_prior(open_model(prior_run))
        model.save_pretrained(Path(run) / "model")


def _run(source: dict[str, Any]) -> str:
    return source["data"].removeprefix(PREFIX)


def _vqvae(run: str) -> VQVAE:
    model = open_model(run)
    if not isinstance(model, VQVAE):
        raise ValueError(f"{shown(run)}: expected the run of a vq-vae; got a {model.name}")
    return model
