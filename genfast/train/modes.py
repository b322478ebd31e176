"""Mode coverage during training: `--coverage-every`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genfast.data import ImageData
from genfast.engine.protocols import Generator
from genfast.metrics.equilibrium import EquilibriumMonitor
from genfast.train.inputs import labels_in_shares
from genfast.train.loop import Data
from genfast.train.quality import run_classifier

SAMPLES = 512  # for each measurement, always from the same latents
STEPS = 600  # updates of the classifier, at most
SHARE = 40  # and at most one for so many updates of the networks, so that it stays cheap
FEWEST = 100  # with fewer updates the classifier would not recognise the classes


class ModeCoverage:
    """Reports the classes of generated images to an `EquilibriumMonitor`.

    The classifier is trained once, when the run begins, and stored in RUN/classifier. The random state of torch does
    not change.

    Args:
        train, valid: the images and labels of the run.
        updates: of both networks, over the whole run.
        out: the folder of the run.
        device: of the classifier.
    """

    def __init__(self, train: ImageData, valid: ImageData, updates: int, out: Path, device: torch.device) -> None:
        self.train = train
        steps = min(STEPS, updates // SHARE)
        self.classifier, self.accuracy = run_classifier(train, valid, device=device, steps=steps, folder=out)

    @staticmethod
    def possible(model: Any, train: Data, valid: Data, updates: int) -> bool:
        """Whether there are labels, and whether the run is long enough to afford a classifier."""
        if not isinstance(model, Generator) or updates // SHARE < FEWEST:
            return False
        return train.labels is not None and valid.labels is not None and train.classes > 1

    def look(self, model: Any, monitor: EquilibriumMonitor) -> None:
        """Report the classes of samples of the model."""
        labels = labels_in_shares(model, self.train, SAMPLES)
        if labels is not None:
            labels = labels.to(next(model.parameters()).device)
        samples = model.sample_images(SAMPLES, seed=0, first=0, temperature=1.0, labels=labels)
        assert self.train.labels is not None  # or the classifier could not be trained
        monitor.cover(self.classifier.predict(samples), self.train.labels, self.train.classes)
