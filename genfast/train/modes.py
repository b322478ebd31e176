"""Which classes a generator makes while it trains: `--coverage-every`."""

from genfast.engine.protocols import Generator
from genfast.train.inputs import labels_in_shares
from genfast.train.quality import run_classifier

SAMPLES = 512  # of each look, always of the same latents
STEPS = 600  # updates of the classifier, at most
SHARE = 40  # and no more than one to so many of the networks' own: it must stay cheap beside them
FEWEST = 100  # below so many the classifier would not know the classes


class ModeCoverage:
    """Tells an `EquilibriumMonitor` now and then which classes generated images are of.

    The classifier is trained once, when the run begins, and is kept in RUN/classifier; the random state of torch stays.

    Args:
        train, valid: ImageData.
        updates: of either network, over the whole run.
        out: its folder.
        device: of the classifier.
    """

    def __init__(self, train, valid, updates, out, device):
        self.train = train
        steps = min(STEPS, updates // SHARE)
        self.classifier, self.accuracy = run_classifier(train, valid, device=device, steps=steps, folder=out)

    @staticmethod
    def possible(model, train, valid, updates):
        """Whether there are labels and samples to count, and a run long enough for a classifier beside it."""
        if not isinstance(model, Generator) or updates // SHARE < FEWEST:
            return False
        return train.labels is not None and valid.labels is not None and train.classes > 1

    def look(self, model, monitor):
        """Count the classes of samples of a model as it is."""
        labels = labels_in_shares(model, self.train, SAMPLES)
        if labels is not None:
            labels = labels.to(next(model.parameters()).device)
        samples = model.sample_images(SAMPLES, seed=0, first=0, temperature=1.0, labels=labels)
        monitor.cover(self.classifier.predict(samples), self.train.labels, self.train.classes)
