"""Images drawn from a model: all at once, or as a stream of batches; and the likelihood of images."""

import operator
from itertools import count

import torch

from genfast.engine.arguments import check_count, check_known, check_labels, check_whole
from genfast.engine.decoder import engine_of


def sample(
    model, n, *, seed=0, first=0, batch_size=None, temperature=1.0, labels=None, given=None, mask=None,
    backend="auto", shape=None, levels=None, input_range=None, head=None,
):  # fmt: skip
    """Draw images from a model: every pixel of an autoregressive one once, of a `VAE` by decoding draws of the prior.

    Sample number i depends on (seed, i) alone: `sample(model, 2, first=5)` is `sample(model, 7)[5:]`, whatever the
    batches. On a CPU with the C++ core that holds bit for bit; elsewhere but for a draw within rounding of a boundary
    between two levels.

    Args:
        model: of `genfast.models`, or another autoregressive `torch.nn.Module`: see `Engine`, also for the last four
            arguments.
        n: number of images, at least 0.
        seed: int in [0, 2**64).
        first: index of the first image; first + n is at most 2**63.
        batch_size: images in one call of the engine; chosen by the backend if not given.
        temperature: divides the logits, or multiplies the prior's standard deviation; below 1 the samples keep to
            likelier values.
        labels: for a conditional model: one int for all, or integers [n].
        given, mask: uint8 [n or 1, C, H, W] and bool [n or 1, C or 1, H, W]: where the mask is True the value is known
            and taken from `given`; the others are drawn in raster order, from what comes before them, and `given` may
            hold any byte there. For what comes after them as well, and for a VAE: `genfast.inpaint`.
        backend: "auto", "cpp", "triton", "torch" or "reference"; `genfast.explain(genfast.sample, model)` tells.
            A VAE draws by "torch".
    Returns: uint8 [n, C, H, W], levels, on the device of the model.
    Raises: TypeError or ValueError for an argument that does not fit, before any work; RuntimeError for a backend
        that cannot serve the model.
    Example: `genfast.sample(genfast.models.PixelRNN.pretrained("mnist"), 16)`
    """
    options = {"shape": shape, "levels": levels, "input_range": input_range, "head": head}
    engine = engine_of(model, backend=backend, **options)
    parts = _batches(
        "sample", engine, n, batch_size, seed=seed, first=first, temperature=temperature, labels=labels, given=given,
        mask=mask,
    )  # fmt: skip
    network, n = engine.network, operator.index(n)
    images = torch.empty(n, network.channels, network.height, network.width, dtype=torch.uint8, device=network.device)
    done = 0
    for part in parts:
        images[done : done + len(part)] = part
        done += len(part)
    return images


def stream(
    model, n=None, *, batch_size=None, seed=0, first=0, temperature=1.0, labels=None, given=None, mask=None,
    backend="auto", shape=None, levels=None, input_range=None, head=None,
):  # fmt: skip
    """The images of `sample` as an iterator of batches, uint8 [up to batch_size, C, H, W], in constant memory.

    Args: as `sample`; n None: without end, where labels is one int, and given and mask are for all images.
    Raises: as `sample`, at once.
    Example: `for images in genfast.stream(model, 100_000): ...`
    """
    options = {"shape": shape, "levels": levels, "input_range": input_range, "head": head}
    engine = engine_of(model, backend=backend, **options)
    return _batches(
        "stream", engine, n, batch_size, seed=seed, first=first, temperature=temperature, labels=labels, given=given,
        mask=mask,
    )  # fmt: skip


def log_prob(model, images, labels=None, *, backend="auto", shape=None, levels=None, input_range=None, head=None):
    """Log-probability of each image in nats, by the engine that samples: uint8 [n, C, H, W] -> float64 [n].

    That of a `VAE` is an estimate by 5000 importance samples.

    Args: as `sample`; labels one int or integers [n].
    Raises: as `sample`.
    """
    engine = engine_of(model, backend=backend, shape=shape, levels=levels, input_range=input_range, head=head)
    return engine.log_prob(images, labels)


def _batches(call, engine, n, batch_size, *, seed, first, temperature, labels, given, mask):
    """An iterator of batches; the arguments are checked before it is made."""
    network, endless = engine.network, n is None
    each, first, seed = check_count(call, 1 if endless else n, first, seed, temperature)
    n = None if endless else each
    if batch_size is not None:
        check_whole(call, "batch_size", batch_size, 1)
    if endless and isinstance(labels, torch.Tensor):
        raise TypeError(f"{call}: labels must be one int for a stream without end; got {labels.dtype}")
    labels = check_labels(call, labels, network, each, network.device)
    given, known = check_known(call, given, mask, network, each)
    size = batch_size or engine.batch_size

    def part(tensor, start, end):
        if tensor is None:
            return None
        return tensor.expand(end - start, *tensor.shape[1:]) if endless else tensor[start:end]

    def iterator():
        for start in count(0, size) if endless else range(0, n, size):
            end = start + size if endless else min(start + size, n)
            end = min(end, 2**63 - first)
            if start >= end:
                return
            yield engine._run(
                end - start, seed=seed, first=first + start, temperature=temperature,
                labels=part(labels, start, end), given=part(given, start, end), known=part(known, start, end),
            ).images  # fmt: skip

    return iterator()
