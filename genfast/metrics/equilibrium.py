"""How far the two sides of a GAN are from equilibrium, while it trains.

Where generator and data agree no discriminator does better than guessing: it is right half of the time, on real and
generated images together, whatever its threshold. `EquilibriumMonitor` says how far a training is from that::

    monitor = EquilibriumMonitor(loss=model.adversarial_loss)  # a name of LOSSES
    # after each discriminator step, which nothing waits for:
    monitor.observe(report["real_logits"], report["fake_logits"], images=len(batch[0]))
    # where a classifier is at hand, now and then; in all records from then on:
    monitor.cover(classifier.predict(samples), data.labels, data.classes)
    # when a line of metrics.jsonl is due: a dict of floats; the next window begins
    log.append({"step": step, ...} | monitor.record())
    # with the checkpoint, so that a resumed run writes the same lines:
    tensors |= prefixed("monitor", monitor.state_dict())
    monitor.load_state_dict(unprefixed("monitor", tensors))

`verdict` says it in words. What a logit means depends on the loss: see `genfast.metrics.discriminator`.
"""

import math
from collections import deque

import torch

from genfast.metrics.coverage import mode_coverage
from genfast.metrics.discriminator import LOSSES, above_middle, accuracy_of_steps, calibration, check_loss

MOST_LOGITS = 2**18
COVERED = ("classes_hit", "classes", "class_outside", "class_kl")
SHARES = COVERED[2:]  # floats; the others count


class EquilibriumMonitor:
    """Collects the logits of the discriminator's steps, and says at the end of each window how the game stands.

    Args:
        loss: a name of `LOSSES`.
        limit: logits of either kind that are held; where a window has more, the latest count.

    `record` gives these floats: accuracy, accuracy_low, accuracy_high, accuracy_count, accuracy_real, accuracy_fake
    (see `Accuracy`); d_real, d_fake: mean calibrated D(x), D(G(z)); calibration_slope; for losses whose logits state a
    probability also stated_real, stated_fake, calibration_error (see `Calibration`); after `cover` also classes_hit,
    classes, class_kl, class_outside (see `genfast.metrics.Coverage`). Nothing if nothing was observed.

    Raises: ValueError for another loss; FloatingPointError in `record` for logits that are not finite.
    """

    def __init__(self, loss="non-saturating", *, limit=MOST_LOGITS):
        check_loss("EquilibriumMonitor", loss)
        self.loss, self.limit = loss, limit
        self.window, self.held, self.coverage = deque(), 0, {}

    def observe(self, real_logits, fake_logits, images=None):
        """Keep the logits of one step, [B] or [B * patches] of either kind; they stay on their device, and nothing
        waits for them. `images`: B, where an image has several logits."""
        pair = [logits.detach().to(torch.float32, copy=True).flatten() for logits in (real_logits, fake_logits)]
        self._keep(*pair, images or pair[0].numel())

    def _keep(self, real, fake, images):
        self.window.append((real, fake, images))
        self.held += real.numel()
        while self.held > self.limit and len(self.window) > 1:
            self.held -= self.window.popleft()[0].numel()

    def cover(self, predicted, labels, classes):
        """Keep which classes generated samples are of, for this and the following records: as `mode_coverage`."""
        found = mode_coverage(predicted, labels, classes)
        self.coverage = {"classes_hit": found.hit, "classes": found.classes, "class_outside": found.outside}
        if math.isfinite(found.kl):
            self.coverage["class_kl"] = found.kl

    def record(self):
        """What was observed since the last call, a dict of floats; starts the next window."""
        if not self.window:
            return dict(self.coverage)
        steps, images = self._steps(), sum(images for *_, images in self.window)
        self.window, self.held = deque(), 0
        real, fake = (torch.cat(part) for part in zip(*steps))
        if not (real.isfinite().all() and fake.isfinite().all()):
            raise FloatingPointError("EquilibriumMonitor: logits must be finite; got a NaN or an infinity")
        right = accuracy_of_steps(steps, self.loss, images)
        if LOSSES[self.loss][0] is None:  # the constant that is free may drift from step to step
            real, fake = above_middle(steps)
        fitted = calibration(real, fake, self.loss)
        found = {
            "accuracy": right.both,
            "accuracy_low": right.low,
            "accuracy_high": right.high,
            "accuracy_count": right.count,
            "accuracy_real": right.real,
            "accuracy_fake": right.fake,
            "d_real": fitted.real,
            "d_fake": fitted.fake,
            "calibration_slope": fitted.slope,
        }
        if fitted.error is not None:
            stated = {"stated_real": fitted.stated_real, "stated_fake": fitted.stated_fake}
            found |= stated | {"calibration_error": fitted.error}
        return found | self.coverage

    def state_dict(self):
        """The open window as tensors: real, fake [n] and sizes int64 [steps, 3]; coverage float64 [4], as `cover` found
        it, NaN for what it did not, or [0] before it was called."""
        sizes = [(len(real), len(fake), images) for real, fake, images in self.window]
        real, fake, _ = zip(*self.window) if self.window else ((torch.zeros(0),), (torch.zeros(0),), ())
        sizes = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3)
        coverage = [float(self.coverage.get(name, math.nan)) for name in COVERED] if self.coverage else []
        coverage = torch.tensor(coverage, dtype=torch.float64)
        return {"real": torch.cat(real), "fake": torch.cat(fake), "sizes": sizes, "coverage": coverage}

    def load_state_dict(self, state, device=None):
        """Open the window of `state_dict` again, on `device` if given."""
        sizes = state["sizes"].tolist()
        parts = [
            state[name].to(device, copy=True).split([size[i] for size in sizes]) if sizes else ()
            for i, name in enumerate(("real", "fake"))
        ]
        self.window, self.held = deque(), 0
        for real, fake, (*_, images) in zip(*parts, sizes, strict=True):
            self._keep(real, fake, images)
        values = state["coverage"].tolist() if "coverage" in state else []
        known = {name: value for name, value in zip(COVERED, values, strict=False) if not math.isnan(value)}
        self.coverage = {name: value if name in SHARES else int(value) for name, value in known.items()}

    def _steps(self):
        """The (real, fake) of each step, float64 on the host, by one transfer."""
        sizes = [len(part) for real, fake, _ in self.window for part in (real, fake)]
        everything = torch.cat([part for real, fake, _ in self.window for part in (real, fake)])
        parts = everything.cpu().double().split(sizes)
        return list(zip(parts[::2], parts[1::2], strict=True))
