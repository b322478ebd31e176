"""Training and evaluation from settings, as the command line asks for them."""

import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

from genfast import metrics, models
from genfast.data import PairData, load
from genfast.engine.arguments import check_count
from genfast.engine.latents import is_latent
from genfast.tasks.sample import stream
from genfast.train.adversarial import fit_adversarial
from genfast.train.checkpoint import checkpoint_path, copy_into, load_checkpoint
from genfast.train.codes import check_prior, code_data, is_codes, take_in
from genfast.train.config import config_type, is_adversarial
from genfast.train.inputs import batches, check, check_pairs, inputs, labels_in_shares
from genfast.train.presets import PRESETS
from genfast.train.presets import preset as recipe_of
from genfast.train.progress import counter, progress_bar, track
from genfast.train.quality import sample_quality
from genfast.train.run_folder import clear_run, load_run, machine, open_model, save_run, shipped
from genfast.train.trainer import fit, mean_nats, pick_device


def train(out, *, model, preset=None, model_options, train_options, data_options, conditional=None, resume=False,
          overwrite=False, init_from=None, minutes=None, threads=None):  # fmt: skip
    """Start the run `out` from a preset and the options beside it, or resume it from its own settings.

    `conditional` (of models whose config has `classes`): whether to train on the labels of the data; None: as
    the preset says.
    """
    if threads:
        torch.set_num_threads(threads)
    recipe = recipe_of(model, preset) if preset else {}
    if resume:
        settings = load_run(out)
        given = {"model": model, "preset": preset, "conditional": conditional}
        _unchanged(settings, {k: v for k, v in given.items() if v is not None} | model_options | train_options,
                   data_options)  # fmt: skip
        config = config_type(models.MODELS[model][0]).from_dict(settings["train"])
        source = settings["data"] | {k: v for k, v in data_options.items() if k == "data_root" and v}
    else:
        if checkpoint_path(out).exists() and not overwrite:
            raise FileExistsError(f"{out}: expected an empty folder, --resume or --overwrite; got a run")
        config = config_type(models.MODELS[model][0])(**(recipe.get("train", {}) | train_options))
        source = data_options | {"data": data_options["data"] or recipe.get("data")}
    training, validation = load_data(source, "train"), load_data(source, "valid")
    if resume:
        model_config = settings["model_config"]
    else:
        conditional = recipe.get("conditional", needs_labels(model)) if conditional is None else conditional
        model_config = recipe.get("model", {}) | model_options | _fixed_by(model, training, conditional)
    torch.manual_seed(config.seed)
    network = models.build(model, **model_config)
    if init_from:
        _start_from(network, init_from, training)
    for data in (training, validation):
        check(network, data)
    if is_codes(source):
        check_prior(source, network)
    device = pick_device(config.device)
    if not resume:
        if overwrite:
            clear_run(out)
        save_run(out, model, model_config, config, source, preset=preset, machine=machine(device))
    done = load_checkpoint(out)[1]["step"] if resume else 0
    steps = config.total_steps(len(training), getattr(network, "discriminator_steps", 1))
    with progress_bar(steps, done) as progress:
        run = fit_adversarial if is_adversarial(network) else fit
        result = run(network, training, validation, config, out, resume=resume, minutes=minutes, progress=progress)
    if is_codes(source):
        if result.reason == "finished":
            take_in(source, out)
        else:  # the prior that is there may be better
            print(f"{out}: becomes the prior of {source['data']} when its training is finished", file=sys.stderr)
    return result


def _fixed_by(model, data, conditional):
    """What the data decide of a model's config."""
    names = {field.name for field in fields(models.MODELS[model][1])}
    takes_pairs = "source_channels" in names
    check_pairs(model, takes_pairs, data)
    _, channels, height, width = data.images.shape
    fixed = {"channels": channels, "height": height, "width": width, "levels": data.levels}
    if "examples" in names:
        fixed["examples"] = len(data)
    if takes_pairs:
        fixed["source_channels"] = data.source.shape[1]
    if not conditional:
        return fixed | ({"classes": 0} if needs_labels(model) else {})  # which its config refuses
    if data.labels is None:
        expected = f"labels, which a {model} needs" if needs_labels(model) else "labels, or --no-conditional"
        raise ValueError(f"{data.name}: expected {expected}; got images without labels")
    return fixed | {"classes": data.classes}


def needs_labels(model):
    """Whether a model of that name is always conditional on labels."""
    config = models.MODELS[model][1]
    return any(field.name == "classes" and field.default for field in fields(config))


def _start_from(network, target, training):
    start = open_model(target)
    if not isinstance(network, type(start)):  # an IWAE may start as the VAE that it is
        raise ValueError(f"{target}: expected a {network.name} to start from; got a {start.name}")
    if isinstance(start, models.VQVAE):
        start.set_prior(None)  # of codes that training changes
    check(start, training)
    # What a model has beyond that of its kind that it starts from, such as a count, stays as it is.
    copy_into(network, network.state_dict() | start.state_dict(), str(target))


def load_data(source, split):
    """One split of the data that a run's settings name."""
    if not source.get("data"):
        raise ValueError("data: expected --data digits, photos, mnist, mnist-binary, FOLDER or another; got none")
    if is_codes(source):
        return code_data(source, split, load_data)
    options = {
        "strict": bool(source.get("strict")),
        "size": source.get("size"),
        "levels": source.get("levels"),
    }
    data = load(source["data"], root=source.get("data_root"), split=split, **options)
    if data.skipped:
        print(f"{data.name}: {data.skipped} broken files skipped", file=sys.stderr)
    return data


def evaluate(target, data_options, split, batch, device="cpu", *, samples=5000, seed=0, images=None, features=None):
    """Lines of a report: the model's NLL on held-out images, and what simpler models make of them.

    Of a model with Gaussian latents `samples` and `seed` are those of its `log_prob`. `images`: how many, the first
    of the held-out ones, but any of them where samples are compared with them; None: all. `features`: of the samples
    of a model without a likelihood, as `sample_quality`.
    """
    check_count("evaluate", 0, 0, seed)
    model = open_model(target).to(pick_device(device))
    source = data_of(target, data_options)
    held_out = held_out_data(source, split)
    if is_adversarial(model) and not isinstance(model, models.Pix2Pix):
        held_out = any_images(held_out, images, seed)
    else:
        held_out = first_images(held_out, images)
    check(model, held_out)
    training, dims = load_data(source, "train"), held_out.images[0].numel()
    yield f"{held_out.name}: {len(held_out)} images"
    if isinstance(model, models.Pix2Pix):
        yield f"{'':<20} {'mean error, %':>13} {'PSNR, dB':>9}"
        for name, (error, decibels) in metrics.translation_errors(model, training, held_out, seed=seed).items():
            yield f"{name:<20} {error:13.2f} {decibels:9.2f}"
        return
    if is_adversarial(model):
        yield from _sample_lines(model, training, held_out, features, seed, target)
        return
    yield f"{'':<20} {'nats/image':>10} {'bits/dim':>9}"
    for name, nats in nll_table(model, training, held_out, batch, samples=samples, seed=seed).items():
        yield f"{name:<20} {nats:10.3f} {metrics.bits_per_dim(nats, dims):9.4f}"
    if is_latent(model):
        parts = batches(inputs(model, held_out), batch)
        used = int(metrics.active_units(model, parts).sum())
        yield f"model: log-likelihood by {samples} importance samples; {used} of {model.config.latent} latents active"
    if isinstance(model, models.VQVAE):
        yield f"model: a lower bound, by each image's own codes; {_codes_in_use(model, held_out, batch)}"


def _sample_lines(model, training, held_out, features, seed, target):
    def asked(count):
        return labels_in_shares(model, training, count, seed)

    def drawn(count):
        return draw(model, count, seed=seed, labels=asked(count))

    conditional = getattr(model.config, "classes", 0)
    options = {"features": features, "asked": asked if conditional else None, "device": next(model.parameters()).device}
    folder = target if (Path(target) / "metrics.jsonl").is_file() else None
    return sample_quality(drawn, training, held_out, **options, seed=seed, folder=folder)


@torch.no_grad()
def _codes_in_use(model, data, batch):
    """How much of the codebook, of each if there are several, these images use."""
    codes = torch.cat([model.encode(images) for images, *_ in batches(inputs(model, data), batch)])
    several = codes.unflatten(2, (-1, model.config.codebooks)).unbind(3)
    uses = [metrics.codebook_use(part, model.config.codes) for part in several]
    return ", ".join(
        f"{100 * share:.0f} % of {model.config.codes} codes in use, perplexity {p:.1f}" for share, p in uses
    )


def first_images(data, count):
    """The first `count` images of data, or all for None."""
    if count is None or count >= len(data):
        return data
    if isinstance(data, PairData):
        parts = {"source": data.source[:count], "target": data.target[:count]}
        return replace(data, **parts, name=f"{data.name}, the first {count}")
    labels = None if data.labels is None else data.labels[:count]
    return replace(data, images=data.images[:count], labels=labels, name=f"{data.name}, the first {count}")


def any_images(data, count, seed):
    """`count` images of data by the seed, or all for None: of all classes, even of a file that is sorted by them."""
    if count is None or count >= len(data):
        return data
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count]
    labels = None if data.labels is None else data.labels[rows]
    return replace(data, images=data.images[rows], labels=labels, name=f"{data.name}, any {count}")


def nll_table(model, training, held_out, batch=250, *, samples=5000, seed=0):
    """Nats per image of the held-out images under the model, and under what knows less.

    Of a model with Gaussian latents: by importance samples, and its bounds.
    """
    images, levels, parts = held_out.images, held_out.levels, batches(inputs(model, held_out), batch)
    if is_latent(model):
        rows = metrics.latent_nll(model, track(parts, "batch"), samples=samples, seed=seed)
    else:
        rows = {"model": mean_nats(model, track(parts, "batch"))}
    return rows | {
        "independent pixels": metrics.independent_pixel_nll(training.images, images, levels),
        "gzip": metrics.gzip_nats(images, levels),
        "PNG": metrics.png_nats(images, levels),
    }


def sample_labels(model, count, labels=None, first=0):
    """The labels of `count` samples from number `first` on, [count]: those given, or all classes, again and again;
    None without classes."""
    classes = getattr(model.config, "classes", 0)
    if not classes:
        if labels:
            raise ValueError(f"labels: expected none, as this {model.name} is not conditional; got {labels}")
        return None
    labels = labels or range(classes)
    if wrong := [label for label in labels if not 0 <= label < classes]:
        raise ValueError(f"labels: expected 0 to {classes - 1}; got {wrong[0]}")
    return torch.tensor(labels)[(first % len(labels) + torch.arange(count)) % len(labels)]


def draw(model, count, *, seed, temperature=1.0, first=0, batch=None, labels=None, backend="auto"):
    """Samples `first` to `first` + `count` - 1, on the CPU, while a progress bar counts them.

    `labels` [count] of a conditional model; `batch`: images at a time, which does not change them.
    """
    options = {"seed": seed, "first": first, "temperature": temperature, "labels": labels, "backend": backend}
    parts = []
    with counter(count, "image") as progress:
        for part in stream(model, count, batch_size=batch, **options):
            parts.append(part.cpu())
            progress(len(part))
    return torch.cat(parts)


def data_of(target, options):
    """The data named on the command line, else that of the run or of the preset whose weights these are."""
    if options["data"]:
        return options
    given = {k: v for k, v in options.items() if v}
    model, name = shipped(target)
    if name in PRESETS.get(model, {}) and not Path(target).exists():
        return {"data": PRESETS[model][name]["data"]} | given
    try:
        return load_run(target)["data"] | given
    except (FileNotFoundError, ValueError):
        return options


def held_out_data(source, split):
    if split:
        return load_data(source, split)
    try:
        return load_data(source, "test")
    except LookupError as error:
        print(f"{error}; valid is used instead", file=sys.stderr)
        return load_data(source, "valid")


def _unchanged(settings, options, data_options):
    """Resuming continues what was started: an option that says otherwise is refused, not ignored."""
    saved = settings["model_config"] | settings["train"] | settings["data"]
    saved |= {"model": settings["model"], "conditional": bool(settings["model_config"].get("classes"))}
    # A run of an earlier version does not say from which preset it was started.
    saved["preset"] = settings.get("preset", options.get("preset"))
    given = options | {k: v for k, v in data_options.items() if v and k != "data_root"}
    for name, value in given.items():
        value = list(value) if isinstance(value, tuple) else value
        if saved.get(name) != value:
            raise ValueError(f"{name}: expected {saved.get(name)} as in the run to resume; got {value}")
