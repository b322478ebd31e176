"""Progress bars: on a terminal, and nothing elsewhere."""

import sys
from contextlib import contextmanager

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

# What a bar shows of a record, by its name there.
SHOWN = {"train": "train_nats", "valid": "valid_nats", "D": "discriminator_loss", "G": "generator_loss"}


def track(parts, unit):
    """The same parts, one by one, with a bar that counts them."""
    if tqdm is None or len(parts) < 2:
        return parts
    return tqdm(parts, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False)


@contextmanager
def counter(total, unit):
    """A function that moves a bar of `total` units by how many it is given."""
    if tqdm is None:
        yield lambda count: None
        return
    with tqdm(total=total, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False) as bar:
        yield bar.update


@contextmanager
def progress_bar(total, done=0):
    """A function of a run's records that moves a bar of its steps."""
    if tqdm is None:
        yield None
        return
    with tqdm(total=total, initial=done, disable=not sys.stderr.isatty(), unit="step", dynamic_ncols=True) as bar:
        shown = {}

        def progress(record):
            for name, field in SHOWN.items():
                if field in record:
                    shown[name] = f"{record[field]:.2f}"
            bar.update(record["step"] - bar.n)
            bar.set_postfix(shown)

        yield progress
