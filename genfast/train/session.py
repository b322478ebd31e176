"""Training and evaluation from settings, as the command line asks for them."""

import sys
from pathlib import Path

import torch

from genfast import metrics, models
from genfast.data import load
from genfast.train.checkpoint import checkpoint_path, copy_into, load_checkpoint
from genfast.train.config import TrainConfig
from genfast.train.presets import PRESETS
from genfast.train.progress import progress_bar, track
from genfast.train.runs import clear_run, load_run, open_model, save_run
from genfast.train.trainer import fit, mean_nats


def train(out, *, model, preset, model_options, train_options, data_options, resume=False, overwrite=False,
          init_from=None, minutes=None, threads=None):  # fmt: skip
    """Start the run `out` from a preset and the options beside it, or resume it from its own settings."""
    if threads:
        torch.set_num_threads(threads)
    if resume:
        settings = load_run(out)
        _unchanged(settings, model, model_options, train_options, data_options)
        config = TrainConfig.from_dict(settings["train"])
        source = settings["data"] | {k: v for k, v in data_options.items() if k == "data_root" and v}
    else:
        if checkpoint_path(out).exists() and not overwrite:
            raise FileExistsError(f"{out}: expected an empty folder, --resume or --overwrite; got a run")
        config = TrainConfig(**(preset.get("train", {}) | train_options))
        source = data_options | {"data": data_options["data"] or preset.get("data")}
    training, validation = load_data(source, "train"), load_data(source, "valid")
    if resume:
        model_config = settings["model_config"]
    else:
        _, channels, height, width = training.images.shape
        shape = {"channels": channels, "height": height, "width": width, "levels": training.levels}
        model_config = preset.get("model", {}) | model_options | shape
    torch.manual_seed(config.seed)
    network = models.build(model, **model_config)
    if init_from:
        copy_into(network, open_model(init_from).state_dict(), str(init_from))
    if not resume:
        if overwrite:
            clear_run(out)
        save_run(out, model, model_config, config, source)
    done = load_checkpoint(out)[1]["step"] if resume else 0
    with progress_bar(config.total_steps(len(training)), done) as progress:
        return fit(network, training, validation, config, out, resume=resume, minutes=minutes, progress=progress)


def load_data(source, split):
    """One split of the data that a run's settings name."""
    if not source.get("data"):
        raise ValueError("data: expected --data digits, mnist-binary, FOLDER or FILE.npz; got none")
    options = {
        "strict": bool(source.get("strict")),
        "size": source.get("size"),
        "levels": source.get("levels"),
    }
    data = load(source["data"], root=source.get("data_root"), split=split, **options)
    if data.skipped:
        print(f"{data.name}: {data.skipped} broken files skipped", file=sys.stderr)
    return data


def evaluate(target, data_options, split, batch):
    """Lines of a report: the model's NLL on held-out images, and what simpler models make of them."""
    model = open_model(target)
    source = _data_of(target, data_options)
    held_out = _held_out(source, split)
    expected = (model.config.channels, model.config.height, model.config.width, model.config.levels)
    got = (*held_out.images.shape[1:], held_out.levels)
    if got != expected:
        raise ValueError(f"{held_out.name}: expected (channels, height, width, levels) {expected}; got {got}")
    training, dims = load_data(source, "train"), held_out.images[0].numel()
    yield f"{held_out.name}: {len(held_out)} images"
    yield f"{'':<20} {'nats/image':>10} {'bits/dim':>9}"
    for name, nats in nll_table(model, training, held_out, batch).items():
        yield f"{name:<20} {nats:10.3f} {metrics.bits_per_dim(nats, dims):9.4f}"


def nll_table(model, training, held_out, batch=250):
    """Nats per image of the held-out images under the model, and under what knows less."""
    images, levels = held_out.images, held_out.levels
    return {
        "model": mean_nats(model, track(images.split(batch), "batch")),
        "independent pixels": metrics.independent_pixel_nll(training.images, images, levels),
        "gzip": metrics.gzip_nats(images, levels),
        "PNG": metrics.png_nats(images, levels),
    }


def draw(model, count, *, seed, temperature=1.0, batch=16):
    """Samples 0 to `count` - 1, in batches that a progress bar counts; the split does not change them."""
    starts = track(range(0, count, batch), "batch")
    parts = [model.sample(min(batch, count - i), seed=seed, temperature=temperature, first=i) for i in starts]
    return torch.cat(parts)


def _data_of(target, options):
    """The data named on the command line, else that of the run or of the preset whose weights these are."""
    if options["data"]:
        return options
    given = {k: v for k, v in options.items() if v}
    if target in PRESETS and not Path(target).exists():
        return {"data": PRESETS[target]["data"]} | given
    try:
        return load_run(target)["data"] | given
    except (FileNotFoundError, ValueError):
        return options


def _held_out(source, split):
    if split:
        return load_data(source, split)
    try:
        return load_data(source, "test")
    except LookupError as error:
        print(f"{error}; valid is used instead", file=sys.stderr)
        return load_data(source, "valid")


def _unchanged(settings, model, model_options, train_options, data_options):
    """Resuming continues what was started: an option that says otherwise is refused, not ignored."""
    saved = {"model": settings["model"]} | settings["model_config"] | settings["train"] | settings["data"]
    given = {"model": model} | model_options | train_options
    given |= {k: v for k, v in data_options.items() if v and k != "data_root"}
    for name, value in given.items():
        value = list(value) if isinstance(value, tuple) else value
        if saved.get(name) != value:
            raise ValueError(f"{name}: expected {saved.get(name)} as in the run to resume; got {value}")
