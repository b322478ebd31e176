"""What the presets reach: `python benchmarks/quality.py RUN...` adds runs to the tables of results/.

They are quality.json and .md of models with a likelihood, gan_quality.json and .md of adversarial ones.
Each RUN is the folder of a finished training, or results/NAME with its metrics.jsonl, whose weights come with the
package. Its metrics.jsonl and its curve are kept in results/<model>-<preset>.

A model with a likelihood is held to its NLL. Of an adversarial one a classifier is trained on the run's training
images; precision, recall, density and coverage are of the classifier's features, of held-out images against as many
generated ones, beside those of as many training images in their place: what a generator without a flaw would reach.
Its last samples are kept as well, in results/gan_<model>-<preset>.
"""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from statistics import median

import torch

import genfast
from genfast import metrics, models
from genfast.benchmarks import quality_report
from genfast.cli.sample import sample_labels
from genfast.data import ImageData
from genfast.data.grid import grid, png
from genfast.engine.protocols import Bounded
from genfast.io import write_bytes, write_json
from genfast.metrics.classifier import Classifier, train_classifier
from genfast.metrics.coverage import mode_coverage
from genfast.models.gan import GAN
from genfast.train.config import is_adversarial
from genfast.train.inputs import batches, inputs
from genfast.train.loop import pick_device
from genfast.train.metrics_log import read_metrics
from genfast.train.presets import preset
from genfast.train.run_data import load_data
from genfast.train.run_folder import load_run, open_model, shipped
from genfast.train.trainer import mean_nats

RESULTS = Path(__file__).resolve().parent / "results"
TABLES = {"quality": quality_report.likelihoods, "gan_quality": quality_report.adversarial}
ASKED = 1000  # images that a conditional model is asked for


def main() -> None:
    options = _options()
    rows = {table: _read(options.results / f"{table}.json") for table in TABLES}
    for run in options.runs:
        settings = _settings(run)
        adversarial = is_adversarial(models.MODELS[settings["model"]][0])
        row = measure_generator(run, settings, options) if adversarial else measure(run, settings, options)
        print(quality_report.shown(row), flush=True)
        rows["gan_quality" if adversarial else "quality"][row["name"]] = row
    for table, markdown in TABLES.items() if not options.dry else ():
        if rows[table]:
            write_json(options.results / f"{table}.json", [rows[table][name] for name in sorted(rows[table])])
            write_bytes(options.results / f"{table}.md", markdown(rows[table].values()).encode())


def measure(run: Path, settings: dict, options: argparse.Namespace) -> dict:
    """One row of the table: what a run was, what it took, and what its kept weights reach."""
    name = options.name or f"{settings['model']}-{settings.get('preset') or run.name}"
    model = open_model(run if (run / "model").is_dir() else name).to(pick_device("auto"))
    source, records, spec = _source(settings, options), read_metrics(run / "metrics.jsonl"), model.spec
    row = _about(name, settings, source) | {
        "shape": [*spec.shape, spec.levels],
        "classes": spec.classes,
        "bound": isinstance(model, Bounded),
        "parameters": _parameters(model),
    }
    row |= _took(records) | {"trained_on": settings.get("machine") or options.machine, "evaluated": _evaluated()}
    if options.note:
        row["note"] = options.note
    for split in ("valid", "test"):
        nats, count = _nll(model, source, split)
        row |= {f"{split}_images": count, f"{split}_nats": nats}
        row[f"{split}_bits_per_dim"] = metrics.bits_per_dim(nats, spec.values) if count else None
    if not options.dry:
        folder = _keep(run, options.results / name)
        lines = {f"{label} ({nats:.2f}, published)": nats for _, label, nats, _ in quality_report.anchors(row)[:1]}
        write_bytes(folder / "curve.png", quality_report.curves(records, lines))
    return row


def measure_generator(run: Path, settings: dict, options: argparse.Namespace) -> dict:
    """One row: what a run was, what it took, and what its averaged generator reaches."""
    name = options.name or f"{settings['model']}-{settings.get('preset') or run.name}"
    source, records, model = _source(settings, options), read_metrics(run / "metrics.jsonl"), open_model(run)
    classifier, accuracy = _judge(json.dumps(source))
    row = _about(name, settings, source)
    row["parameters"] = {side: _parameters(getattr(model, side)) for side in ("generator", "discriminator")}
    row |= _took(records) | {
        "trained_on": settings.get("machine") or options.machine,
        "note": options.note,
        "evaluated": _evaluated(),
        "classifier_accuracy": accuracy,
    }
    row |= quality(model, classifier, load_data(source, "train"), load_data(source, "test"))
    if not options.dry:
        folder = _keep(run, options.results / f"gan_{name}")
        write_bytes(folder / "curve.png", quality_report.game(records))
        images = genfast.sample(model, 100, seed=2, labels=sample_labels(model, 100))
        write_bytes(folder / "samples.png", png(grid(images, model.spec.levels, columns=10)))
    return row


def quality(
    model: GAN, classifier: Classifier, training: ImageData, held_out: ImageData, seed: int = 0
) -> dict[str, float]:
    """The measures of a generator by name."""
    n = len(held_out)
    drawn = genfast.sample(model, n, seed=seed, labels=sample_labels(model, n))
    real, fake = (classifier.features(images) for images in (held_out.images, drawn))
    some = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:n]
    known = classifier.features(training.images[some])
    precision, recall = metrics.precision_recall(real, fake)
    density, coverage = metrics.density_coverage(real, fake)
    ceiling = metrics.precision_recall(real, known)
    measures = {
        "held_out": n,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "frechet_distance": metrics.frechet_distance(real, fake),
        "precision_of_training_images": ceiling[0],
        "recall_of_training_images": ceiling[1],
        "frechet_distance_of_training_images": metrics.frechet_distance(real, known),
    }
    labels = sample_labels(model, ASKED)
    read = classifier.predict(genfast.sample(model, ASKED, seed=seed + 1, labels=labels))
    modes = mode_coverage(read, training.labels, training.classes)
    measures |= {"classes_hit": modes.hit, "classes": modes.classes, "class_kl": modes.kl}
    if labels is not None:
        measures["read_as_asked"] = float((read == labels).double().mean())
    return measures


@cache
def _judge(source):
    """A classifier trained on the data of a run, and its accuracy: one for all runs of the same data."""
    training, held_out = (load_data(json.loads(source), split) for split in ("train", "test"))
    labelled = held_out.images, held_out.labels
    sizes = {"levels": training.levels, "held_out": labelled}
    return train_classifier(training.images, training.labels, training.classes, **sizes)


def _settings(run):
    if (run / "config.json").is_file():
        return load_run(run)
    model, name = shipped(run.name)
    recipe = preset(model, name)
    settings = {"model_config": recipe.model, "train": recipe.train, "data": {"data": recipe.data}}
    return {"model": model, "preset": name, **settings}


def _source(settings, options):
    return settings["data"] | ({"data_root": options.data_root} if options.data_root else {})


def _about(name, settings, source):
    row = {"name": name, "model": settings["model"], "config": settings["model_config"]}
    return row | {"train": settings["train"], "data": source["data"]}


def _took(records):
    return {
        "updates": records[-1]["step"],
        "images_seen": records[-1]["images"],
        "training_seconds": records[-1]["seconds"],
        "images_per_second": median(record["images_per_second"] for record in records),
    }


def _evaluated():
    return {"genfast": genfast.__version__, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d")}


def _parameters(network):
    return sum(p.numel() for p in network.parameters())


def _nll(model, source, split):
    try:
        data = load_data(source, split)
    except LookupError:
        return None, 0
    return mean_nats(model, batches(inputs(model, data), 250)), len(data)


def _keep(run, folder):
    folder.mkdir(parents=True, exist_ok=True)
    if run.resolve() != folder.resolve():
        shutil.copyfile(run / "metrics.jsonl", folder / "metrics.jsonl")
    return folder


def _read(table):
    return {row["name"]: row for row in json.loads(table.read_text())} if table.is_file() else {}


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--data-root", metavar="PATH", help="where the data are, if no longer where they were")
    parser.add_argument("--machine", help="what a run was trained on that has not recorded it")
    parser.add_argument("--note", default="", help="what else was true of the training, such as its priority")
    parser.add_argument("--name", help="name of the row of a RUN that was started by hand, such as pixelcnn-mnist")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables are kept")
    parser.add_argument("--dry", action="store_true", help="print, and keep nothing")
    options = parser.parse_args()
    if options.name and len(options.runs) != 1:
        parser.error(f"--name: expected one RUN; got {len(options.runs)}")
    return options


if __name__ == "__main__":
    main()
