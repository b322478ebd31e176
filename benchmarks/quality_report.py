"""The results of quality.py as tables and pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

PAPER = "Pixel Recurrent Neural Networks, table 4"
REPEATED = "pytorch-generative, which draws the binary pixels anew in every epoch"
# (model, label, nats of the test images, where): the first of a model is what its presets are held against.
ANCHORS = {
    "mnist-binary": [
        ("pixelrnn", "PixelRNN, 7 layers of Diagonal BiLSTM", 79.20, PAPER),
        ("pixelcnn", "PixelCNN", 81.30, PAPER),
        ("pixelcnn", "PixelCNN", 81.45, REPEATED),
        ("gated-pixelcnn", "Gated PixelCNN", 81.50, REPEATED),
    ]
}
HEADER = (
    *("run", "parameters", "images seen", "training", "images/s", "valid nats", "bits/dim", "test nats", "bits/dim"),
    "above the published",
)
GAN_HEADER = (
    *("run", "parameters G + D", "images seen", "training", "precision", "recall", "density", "coverage"),
    *("Frechet", "classes", "read as asked"),
)
MEASURED = (
    *("classifier_accuracy", "held_out", "precision", "recall", "precision_of_training_images"),
    *("recall_of_training_images", "density", "coverage", "frechet_distance"),
    *("frechet_distance_of_training_images", "classes_hit", "class_kl", "read_as_asked", "training_seconds"),
)


def likelihoods(rows: Iterable[dict]) -> str:
    """The whole table as a page, data set by data set, the published figures below ours."""
    rows = sorted(rows, key=lambda row: (row["data"], row["valid_nats"]))
    lines = ["# What the presets reach", ""]
    lines += [
        "NLL of held-out images; the validation images also chose the step whose weights are kept. Published figures",
        "are of test images: where the data here have none, the last column holds the validation images against them.",
        "A bound is the ELBO of one draw, the IWAE's of its samples, or that of a VQ-VAE's own codes under its prior;",
        "importance-sampled likelihoods are beside the curves, as `genfast evaluate` printed them.",
        "",
    ]
    for data, same in _by_data(rows):
        lines += [f"## {data}: {_shape(same[0])}", "", _line(*HEADER), "|---" * len(HEADER) + "|"]
        lines += [_line(*_cells(row)) for row in same]
        for _, label, nats, where in ANCHORS.get(data, []):
            lines.append(_line(f"{label} ({where})", *[""] * 6, f"{nats:.2f}", "", ""))
        lines.append("")
    lines += ["Training time is wall time with the evaluations; images/s is the median of training alone.", ""]
    lines += ["| run | trained on |", "|---|---|"]
    lines += [_line(row["name"], _trained_on(row, "Python")) for row in rows]
    return "\n".join(lines) + "\n"


def adversarial(rows: Iterable[dict]) -> str:
    """The whole table of the adversarial recipes as a page, data set by data set."""
    rows = sorted(rows, key=lambda row: (row["data"], -min(row["precision"], row["recall"])))
    lines = ["# What the adversarial recipes reach", ""]
    lines += [
        "Precision, recall, density and coverage of the features of a classifier that was trained on the training",
        "images: held-out images against as many generated ones (k = 3, and 5 for density and coverage). In brackets:",
        "what as many training images reach in their place. Read as asked: the share of 1000 images of which that",
        "classifier reads the label that the generator was given; of classes: how many it finds in 1000 images.",
        "",
    ]
    for data, same in _by_data(rows):
        reads = f"the classifier reads {100 * same[0]['classifier_accuracy']:.1f} % of them."
        lines += [f"## {data}", "", f"{same[0]['held_out']} held-out images; {reads}", ""]
        lines += [_line(*GAN_HEADER), "|---" * len(GAN_HEADER) + "|"]
        lines += [*(_line(*_gan_cells(row)) for row in same), ""]
    lines += ["| run | trained on |", "|---|---|"]
    lines += [_line(f"`{row['name']}`", _trained_on(row)) for row in rows]
    return "\n".join(lines) + "\n"


def shown(row: dict) -> str:
    """What is printed of a row that was just measured."""
    if "precision" not in row:
        return _line(*_cells(row))
    return json.dumps({key: row[key] for key in ("name", *MEASURED) if key in row}, indent=1)


def anchors(row: dict) -> list[tuple]:
    """The published figures that a run is held against."""
    if row["config"].get("kind", "diagonal") != "diagonal":
        return []  # the published PixelRNN is one of Diagonal BiLSTMs
    return [anchor for anchor in ANCHORS.get(row["data"], []) if anchor[0] == row["model"]]


def game(records: list[dict]) -> bytes:
    """A PNG: the losses of both networks, and how often the discriminator is right, over the steps."""
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


def _by_data(rows):
    for data in dict.fromkeys(row["data"] for row in rows):
        yield data, [row for row in rows if row["data"] == data]


def _cells(row):
    minutes, published = row["training_seconds"] / 60, anchors(row)
    cells = [f"`{row['name']}`" + ", given the label" * bool(row["classes"]) + ", a bound" * row.get("bound", False)]
    cells += [f"{row['parameters']:,}", f"{row['images_seen']:,}", f"{minutes:.0f} min"]
    cells.append(f"{row['images_per_second']:.0f}")
    for split in ("valid", "test"):
        nats, bits = row[f"{split}_nats"], row[f"{split}_bits_per_dim"]
        cells += ["", ""] if nats is None else [f"{nats:.2f}", f"{bits:.3f}"]
    if row.get("bound"):
        published = []
    best = row["valid_nats"] if row["test_nats"] is None else row["test_nats"]
    return [*cells, f"{best - published[0][2]:+.2f}" if published else ""]


def _gan_cells(row):
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


def _shape(row):
    channels, height, width, levels = row["shape"]
    return f"{height} x {width}, {'grey' if channels == 1 else 'colour'}, {levels} levels"


def _trained_on(row, *more):
    about = row["trained_on"]
    if not isinstance(about, dict):
        return about or "not recorded"
    versions = [f"genfast {about['genfast']}", f"torch {about['torch']}", *(f"{it} {about[it.lower()]}" for it in more)]
    text = f"{about['device']}, {about['threads']} threads; {', '.join(versions)}; {about['date']}"
    return f"{text}; {row['note']}" if row.get("note") else text


def _line(*cells):
    return f"| {' | '.join(cells)} |"


def curves(records: list[dict], lines: dict[str, float]) -> bytes:
    """A PNG: training and validation NLL over the steps, and published results as `lines`, {label: nats}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    valid = [r for r in records if "valid_nats" in r]
    axis.plot([r["step"] for r in records], [r["train_nats"] for r in records], color="0.6", lw=1, label="training")
    axis.plot([r["step"] for r in valid], [r["valid_nats"] for r in valid], color="C1", lw=2, label="validation")
    for label, nats in lines.items():
        axis.axhline(nats, color="0.1", lw=1, ls="--", label=label)
    best = min(valid, key=lambda r: r["valid_nats"])
    axis.plot(best["step"], best["valid_nats"], "o", color="C1", label="kept weights")
    shown = [best["valid_nats"], valid[0]["valid_nats"], *lines.values()]
    axis.set_ylim(0.97 * min(shown), 1.03 * max(shown))
    axis.set(xlabel="step", ylabel="nats per image")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
