"""What the presets reach: `python benchmarks/quality.py RUN...` adds runs to results/quality.json and .md.

Each RUN is the folder of a finished training, or results/NAME with its metrics.jsonl, whose weights come with
the package. Its metrics.jsonl and its curve are kept in results/<model>-<preset>.
"""

import argparse
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import genfast
from genfast import metrics, report
from genfast.io import write_bytes, write_json
from genfast.train.inputs import batches, inputs
from genfast.train.metrics_log import read_metrics
from genfast.train.presets import preset
from genfast.train.run_folder import load_run, open_model, shipped
from genfast.train.session import load_data
from genfast.train.trainer import mean_nats, pick_device

RESULTS = Path(__file__).resolve().parent / "results"
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--data-root", metavar="PATH", help="where mnist-binary is, if no longer where it was")
    parser.add_argument("--machine", help="what a run was trained on that has not recorded it")
    parser.add_argument("--name", help="name of the row of a RUN that was started by hand, such as pixelcnn-mnist")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables are kept")
    options = parser.parse_args()
    if options.name and len(options.runs) != 1:
        parser.error(f"--name: expected one RUN; got {len(options.runs)}")
    table = options.results / "quality.json"
    rows = {row["name"]: row for row in json.loads(table.read_text())} if table.is_file() else {}
    for run in options.runs:
        row = measure(run, options)
        rows[row["name"]] = row
        print(_line(*_cells(row)))
    write_json(table, [rows[name] for name in sorted(rows)])
    write_bytes(options.results / "quality.md", markdown(rows.values()).encode())


def measure(run, options):
    """One row of the table: what a run was, what it took, and what its kept weights reach."""
    settings = _settings(run)
    name = options.name or f"{settings['model']}-{settings.get('preset') or run.name}"
    model = open_model(run if (run / "model").is_dir() else name).to(pick_device("auto"))
    source = settings["data"] | ({"data_root": options.data_root} if options.data_root else {})
    records = read_metrics(run / "metrics.jsonl")
    dims = model.config.channels * model.config.height * model.config.width
    row = {
        "name": name,
        "model": settings["model"],
        "config": settings["model_config"],
        "train": settings["train"],
        "data": source["data"],
        "shape": [model.config.channels, model.config.height, model.config.width, model.config.levels],
        "classes": getattr(model.config, "classes", 0),
        "bound": hasattr(model, "bound"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "updates": records[-1]["step"],
        "images_seen": records[-1]["images"],
        "training_seconds": records[-1]["seconds"],
        "images_per_second": median(record["images_per_second"] for record in records),
        "trained_on": settings.get("machine") or options.machine,
        "evaluated": {
            "genfast": genfast.__version__,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        },
    }
    for split in ("valid", "test"):
        nats, count = _nll(model, source, split)
        row |= {f"{split}_images": count, f"{split}_nats": nats}
        row[f"{split}_bits_per_dim"] = metrics.bits_per_dim(nats, dims) if count else None
    _keep(run, options.results / name, records, row)
    return row


def _settings(run):
    if (run / "config.json").is_file():
        return load_run(run)
    model, name = shipped(run.name)
    recipe = preset(model, name)
    data = {"data": recipe["data"]}
    return {"model": model, "preset": name, "model_config": recipe["model"], "train": recipe["train"], "data": data}


def _nll(model, source, split):
    try:
        data = load_data(source, split)
    except LookupError:
        return None, 0
    return mean_nats(model, batches(inputs(model, data), 250)), len(data)


def _keep(run, folder, records, row):
    folder.mkdir(parents=True, exist_ok=True)
    if run.resolve() != folder.resolve():
        shutil.copyfile(run / "metrics.jsonl", folder / "metrics.jsonl")
    lines = {f"{label} ({nats:.2f}, published)": nats for _, label, nats, _ in _anchors(row)[:1]}
    write_bytes(folder / "curve.png", report.curves(records, lines))


def _anchors(row):
    if row["config"].get("kind", "diagonal") != "diagonal":
        return []  # the published PixelRNN is one of Diagonal BiLSTMs
    return [anchor for anchor in ANCHORS.get(row["data"], []) if anchor[0] == row["model"]]


def markdown(rows):
    """The whole table, data set by data set, the published figures below ours."""
    rows = sorted(rows, key=lambda row: (row["data"], row["valid_nats"]))
    lines = ["# What the presets reach", ""]
    lines += [
        "NLL of held-out images; the validation images also chose the step whose weights are kept. Published figures",
        "are of test images: where the data here have none, the last column holds the validation images against them.",
        "A bound is the ELBO of one draw, the IWAE's of its samples, or that of a VQ-VAE's own codes under its prior;",
        "importance-sampled likelihoods are beside the curves, as `genfast evaluate` printed them.",
        "",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        same = [row for row in rows if row["data"] == data]
        lines += [f"## {data}: {_shape(same[0])}", "", _line(*HEADER), "|---" * len(HEADER) + "|"]
        lines += [_line(*_cells(row)) for row in same]
        for _, label, nats, where in ANCHORS.get(data, []):
            lines.append(_line(f"{label} ({where})", *[""] * 6, f"{nats:.2f}", "", ""))
        lines.append("")
    lines += ["Training time is wall time with the evaluations; images/s is the median of training alone.", ""]
    lines += ["| run | trained on |", "|---|---|"]
    lines += [_line(row["name"], _machine(row["trained_on"])) for row in rows]
    return "\n".join(lines) + "\n"


HEADER = ("run", "parameters", "images seen", "training", "images/s", "valid nats", "bits/dim", "test nats", "bits/dim")
HEADER += ("above the published",)


def _cells(row):
    minutes, anchors = row["training_seconds"] / 60, _anchors(row)
    shown = [f"`{row['name']}`" + ", given the label" * bool(row["classes"]) + ", a bound" * row.get("bound", False)]
    shown += [f"{row['parameters']:,}", f"{row['images_seen']:,}", f"{minutes:.0f} min"]
    shown.append(f"{row['images_per_second']:.0f}")
    for split in ("valid", "test"):
        nats, bits = row[f"{split}_nats"], row[f"{split}_bits_per_dim"]
        shown += ["", ""] if nats is None else [f"{nats:.2f}", f"{bits:.3f}"]
    if row.get("bound"):
        anchors = []
    best = row["valid_nats"] if row["test_nats"] is None else row["test_nats"]
    return [*shown, f"{best - anchors[0][2]:+.2f}" if anchors else ""]


def _shape(row):
    channels, height, width, levels = row["shape"]
    return f"{height} x {width}, {'grey' if channels == 1 else 'colour'}, {levels} levels"


def _machine(about):
    if not isinstance(about, dict):
        return about or "not recorded"
    return (
        f"{about['device']}, {about['threads']} threads; genfast {about['genfast']}, torch {about['torch']}, "
        f"Python {about['python']}; {about['date']}"
    )


def _line(*cells):
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
