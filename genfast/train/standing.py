"""Where the game between the two networks of a GAN stands, from the records of its training and its samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genfast import metrics
from genfast._text import shown
from genfast.data import ImageData
from genfast.random import permutation
from genfast.train.metrics_log import read_metrics

NEEDED = ("accuracy_real", "accuracy_fake", "accuracy", "accuracy_count")
# Shares, and the slope.
DRAWN = ("accuracy_low", "accuracy_high", "d_real", "d_fake", "calibration_slope")
LAST = 0.1  # share of the records that the verdict is on; a single record may be far off


def monitored(run: str) -> list[dict[str, Any]]:
    """The records of RUN/metrics.jsonl that have the fields of an `EquilibriumMonitor`."""
    path = monitored_path(run)
    records = [record for record in read_metrics(path) if _is_monitored(record)]
    if not records:
        expected = f"records of an adversarial training, with {', '.join(NEEDED)}"
        raise ValueError(f"{shown(path)}: expected {expected}; got none")
    return records


def _is_monitored(record: dict[str, Any]) -> bool:
    """Whether a record has the fields of an `EquilibriumMonitor`, in their bounds."""
    if not all(name in record for name in (*NEEDED, *DRAWN)) or record["accuracy_count"] < 1:
        return False
    covered = "classes_hit" not in record or 0 <= record["classes_hit"] <= record.get("classes", 0) != 0
    return covered and all(0 <= record[name] <= 1 for name in (*NEEDED[:3], *DRAWN[:-1]))


def monitored_path(run: str) -> Path:
    """RUN/metrics.jsonl; FileNotFoundError if it is missing."""
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{shown(run)}: expected a run folder with a file metrics.jsonl; got none")
    return path


def pooled(records: list[dict[str, Any]]) -> metrics.Accuracy:
    """The discriminator's accuracy over the last tenth of the records, at least one."""
    last = records[-max(1, round(LAST * len(records))) :]
    total = sum(record["accuracy_count"] for record in last)
    real, fake, both = (sum(r[name] * r["accuracy_count"] for r in last) / total for name in NEEDED[:3])
    both = min(max(both, 0.0), 1.0)
    return metrics.Accuracy(real, fake, both, *metrics.wilson_interval(both, total), total)


def samples_state(
    samples: Tensor, training: ImageData, classifier: metrics.Classifier | None, seed: int
) -> tuple[metrics.Coverage | None, float]:
    """(coverage of the classes, None without a classifier; variance over that of the data) of samples."""
    variance = float(_total_variance(samples) / _total_variance(training.images))
    if classifier is None or training.labels is None:
        return None, variance
    order = permutation(len(training), seed)  # a random subset
    real = classifier.features(training.images[order[: max(len(samples), 1000)]])
    inside = metrics.looks_real(real, classifier.features(samples)).cpu()
    predicted = torch.where(inside, classifier.predict(samples).cpu(), -1)
    return metrics.mode_coverage(predicted, training.labels, training.classes), variance


def _total_variance(images: Tensor) -> Tensor:
    return images.double().flatten(1).var(0).sum().clamp(min=1e-12)
