"""What adversarial recipes reach: `python benchmarks/gan_quality.py RUN...` adds runs to results/gan_quality.json, .md.

Each RUN is the folder of a finished training. A classifier is trained on its training images; precision, recall,
density and coverage are of the classifier's features, of held-out images against as many generated ones, beside those
of as many training images in their place: what a generator without a flaw would reach. Its metrics.jsonl, its curves
and its last samples are kept in results/gan_<model>-<preset>.
"""

import argparse
import io
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import torch

import genfast
from genfast import metrics
from genfast.data.grid import grid, png
from genfast.io import write_bytes, write_json
from genfast.metrics.classifier import train_classifier
from genfast.metrics.coverage import mode_coverage
from genfast.train.metrics_log import read_metrics
from genfast.train.run_folder import load_run, open_model
from genfast.train.session import load_data, sample_labels

RESULTS = Path(__file__).resolve().parent / "results"
ASKED = 1000  # images that a conditional model is asked for


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data-root", metavar="PATH", help="where the data are, if no longer where they were")
    parser.add_argument("--note", default="", help="what else was true of the training, such as its priority")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables are kept")
    parser.add_argument("--dry", action="store_true", help="print, and keep nothing")
    options = parser.parse_args()
    table = options.results / "gan_quality.json"
    rows = {row["name"]: row for row in json.loads(table.read_text())} if table.is_file() else {}
    judges = {}
    for run in options.runs:
        row = measure(run, options, judges)
        print(json.dumps({key: row[key] for key in ("name", *MEASURED) if key in row}, indent=1), flush=True)
        rows[row["name"]] = row
    if not options.dry:
        write_json(table, [rows[name] for name in sorted(rows)])
        write_bytes(options.results / "gan_quality.md", markdown(rows.values()).encode())


def measure(run, options, judges):
    """One row: what a run was, what it took, and what its averaged generator reaches."""
    settings, records = load_run(run), read_metrics(run / "metrics.jsonl")
    source = settings["data"] | ({"data_root": options.data_root} if options.data_root else {})
    model = open_model(run)
    training, held_out = load_data(source, "train"), load_data(source, "test")
    if source["data"] not in judges:
        judges[source["data"]] = train_classifier(
            training.images, training.labels, training.classes, levels=training.levels,
            held_out=(held_out.images, held_out.labels),
        )  # fmt: skip
    classifier, accuracy = judges[source["data"]]
    name = f"{settings['model']}-{settings.get('preset') or run.name}"
    row = {
        "name": name,
        "model": settings["model"],
        "config": settings["model_config"],
        "train": settings["train"],
        "data": source["data"],
        "parameters": {side: _parameters(getattr(model, side)) for side in ("generator", "discriminator")},
        "updates": records[-1]["step"],
        "images_seen": records[-1]["images"],
        "training_seconds": records[-1]["seconds"],
        "images_per_second": median(record["images_per_second"] for record in records),
        "trained_on": settings.get("machine"),
        "note": options.note,
        "evaluated": {"genfast": genfast.__version__, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d")},
        "classifier_accuracy": accuracy,
    }
    row |= quality(model, classifier, training, held_out)
    if not options.dry:
        _keep(run, options.results / f"gan_{name}", model, records, row)
    return row


def quality(model, classifier, training, held_out, seed=0):
    """The measures of a generator: {name: number}."""
    n = len(held_out)
    labels = sample_labels(model, n)
    drawn = genfast.sample(model, n, seed=seed, labels=labels)
    real, made = (classifier.features(images) for images in (held_out.images, drawn))
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:n]
    known = classifier.features(training.images[chosen])
    precision, recall = metrics.precision_recall(real, made)
    density, coverage = metrics.density_coverage(real, made)
    ceiling = metrics.precision_recall(real, known)
    found = {
        "held_out": n,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "frechet_distance": metrics.frechet_distance(real, made),
        "precision_of_training_images": ceiling[0],
        "recall_of_training_images": ceiling[1],
        "frechet_distance_of_training_images": metrics.frechet_distance(real, known),
    }
    labels = sample_labels(model, ASKED)
    asked = genfast.sample(model, ASKED, seed=seed + 1, labels=labels)
    read = classifier.predict(asked)
    modes = mode_coverage(read, training.labels, training.classes)
    found |= {"classes_hit": modes.hit, "classes": modes.classes, "class_kl": modes.kl}
    if labels is not None:
        found["read_as_asked"] = float((read == labels).double().mean())
    return found


MEASURED = ("classifier_accuracy", "held_out", "precision", "recall", "precision_of_training_images")
MEASURED += ("recall_of_training_images", "density", "coverage", "frechet_distance")
MEASURED += ("frechet_distance_of_training_images", "classes_hit", "class_kl", "read_as_asked", "training_seconds")


def _parameters(network):
    return sum(p.numel() for p in network.parameters())


def _keep(run, folder, model, records, row):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "metrics.jsonl", folder / "metrics.jsonl")
    write_bytes(folder / "curve.png", curve(records))
    labels = sample_labels(model, 100)
    images = genfast.sample(model, 100, seed=2, labels=labels)
    write_bytes(folder / "samples.png", png(grid(images, model.config.levels, columns=10)))


def curve(records):
    """A PNG: the losses, and how often the discriminator is right, over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    losses, right = figure.subplots(1, 2)
    steps = [record["step"] for record in records]
    for side, colour in (("discriminator", "#1d2733"), ("generator", "#d9582b")):
        losses.plot(steps, [record[f"{side}_loss"] for record in records], color=colour, lw=1, label=side)
    losses.set(xlabel="step", ylabel="loss")
    losses.legend(frameon=False)
    known = [record for record in records if "accuracy" in record]
    x = [record["step"] for record in known]
    low, high = ([record[f"accuracy_{end}"] for record in known] for end in ("low", "high"))
    right.fill_between(x, low, high, color="#8a94a0", alpha=0.4, lw=0)
    right.plot(x, [record["accuracy"] for record in known], color="#1d2733", lw=1)
    right.axhline(0.5, color="#d9582b", lw=1, ls="--")
    right.set(xlabel="step", ylabel="accuracy of the discriminator", ylim=(0, 1))
    for axis in (losses, right):
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def markdown(rows):
    """The whole table, data set by data set."""
    rows = sorted(rows, key=lambda row: (row["data"], -min(row["precision"], row["recall"])))
    lines = ["# What the adversarial recipes reach", ""]
    lines += [
        "Precision, recall, density and coverage of the features of a classifier that was trained on the training",
        "images: held-out images against as many generated ones (k = 3, and 5 for density and coverage). In brackets:",
        "what as many training images reach in their place. Read as asked: the share of 1000 images of which that",
        "classifier reads the label that the generator was given; of classes: how many it finds in 1000 images.",
        "",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        same = [row for row in rows if row["data"] == data]
        told = (
            f"{same[0]['held_out']} held-out images; the classifier reads {100 * same[0]['classifier_accuracy']:.1f} %"
        )
        lines += [f"## {data}", "", f"{told} of them.", "", _line(*HEADER), "|---" * len(HEADER) + "|"]
        lines += [_line(*_cells(row)) for row in same] + [""]
    lines += ["| run | trained on |", "|---|---|"]
    lines += [_line(f"`{row['name']}`", _machine(row)) for row in rows]
    return "\n".join(lines) + "\n"


HEADER = ("run", "parameters G + D", "images seen", "training", "precision", "recall", "density", "coverage")
HEADER += ("Frechet", "classes", "read as asked")


def _cells(row):
    sizes = row["parameters"]
    beside = {key: row[f"{key}_of_training_images"] for key in ("precision", "recall", "frechet_distance")}
    return (
        f"`{row['name']}`",
        f"{sizes['generator']:,} + {sizes['discriminator']:,}",
        f"{row['images_seen']:,}",
        f"{row['training_seconds'] / 60:.0f} min",
        f"{row['precision']:.2f} ({beside['precision']:.2f})",
        f"{row['recall']:.2f} ({beside['recall']:.2f})",
        f"{row['density']:.2f}",
        f"{row['coverage']:.2f}",
        f"{row['frechet_distance']:.1f} ({beside['frechet_distance']:.1f})",
        f"{row['classes_hit']} of {row['classes']}",
        f"{100 * row['read_as_asked']:.1f} %" if "read_as_asked" in row else "",
    )


def _machine(row):
    about = row["trained_on"] or {}
    told = f"{about.get('device')}, {about.get('threads')} threads; genfast {about.get('genfast')}, "
    told += f"torch {about.get('torch')}; {about.get('date')}"
    return f"{told}; {row['note']}" if row["note"] else told


def _line(*cells):
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
