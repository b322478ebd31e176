"""Sampling by the whole network: one full forward for every draw of a pixel. Slow, and the judge of anything faster."""

import math
from contextlib import contextmanager

import torch

from genfast.engine import heads
from genfast.engine.program import Drawn
from genfast.models.autoregressive import Autoregressive

# How the output of a foreign model is read.
ORDERS = ("bernoulli", "categorical", "categorical-levels-first", "mixture")


class FullForward:
    """A model as the function from levels to the parameters of all conditionals.

    Attributes: channels, height, width, levels, head, classes, draws as of `program.Program`; `counts`, the number of
    parameters of each draw; `scale` and `shift`, by which levels enter; `device`, of the model.
    """

    def __init__(self, model, *, shape=None, levels=None, input_range=None, head=None):
        self.model = model
        weight = next(model.parameters(), torch.zeros(()))
        self.device, self.dtype = weight.device, weight.dtype
        self.known = isinstance(model, Autoregressive)
        if self.known:
            self._of_config(model.config, shape=shape, levels=levels, input_range=input_range, head=head)
        else:
            self._of_output(shape, levels, input_range, head)

    def _of_config(self, config, **options):
        if named := [name for name, value in options.items() if value is not None]:
            raise ValueError(
                f"sample: {named[0]} must be None for a {self.model.name}, whose config has it; got a value"
            )
        self.channels, self.height, self.width, self.levels = (
            config.channels,
            config.height,
            config.width,
            config.levels,
        )
        self.classes, self.draws = getattr(config, "classes", 0), self.model.draws
        self.scale, self.shift = 2 / (self.levels - 1), -1.0
        self.head = _head_of(self.model)
        if self.head == "mixture":
            self.counts = [self.model.head.out_features]
        else:
            self.counts = [1 if self.levels == 2 else self.levels] * self.draws

    def _of_output(self, shape, levels, input_range, head):
        if shape is None or len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
            kind = type(self.model).__name__
            raise ValueError(f"sample: shape must be (channels, height, width) for a {kind}; got {shape}")
        if type(levels) is not int or not 2 <= levels <= 256:
            raise ValueError(f"sample: levels must be an int, 2 to 256; got {levels!r}")
        low, high = (0.0, 1.0) if input_range is None else input_range
        if not math.isfinite(low) or not math.isfinite(high) or low == high:
            raise ValueError(f"sample: input_range must be two different numbers; got {input_range}")
        self.channels, self.height, self.width = shape
        self.levels, self.classes = levels, 0
        self.scale, self.shift = (high - low) / (levels - 1), low
        features = self._output_shape(shape)[1:-2]
        self.order = _head_by_shape(features, self.channels, levels, head)
        self.head = self.order.partition("-")[0]
        self.draws = 1 if self.head == "mixture" else self.channels
        self.counts = [features.numel() // self.draws] * self.draws

    def _output_shape(self, shape):
        """The shape of what the model returns for one image."""
        with torch.no_grad(), evaluating(self.model):
            output = self.model(torch.zeros(1, *shape, device=self.device, dtype=self.dtype))
        if not torch.is_tensor(output) or output.dim() not in (4, 5) or output.shape[-2:] != shape[1:]:
            expected = f"[B, P, H, W] or [B, C, L, H, W] for images {shape}"
            got = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
            raise ValueError(f"sample: the model must return {expected}; got {got}")
        return output.shape

    def rows(self, row):
        """How many rows of an image are needed to draw one of row `row`."""
        return self.model.rows(row) if self.known else self.height

    def parameters(self, images, labels):
        """[B, P, R, W] of levels [B, C, R, W]: the parameters of all draws, one after the other."""
        if self.known:
            x = images.to(self.dtype) * self.scale + self.shift
            return self.model.network(x, labels)
        x = images.float() * torch.tensor(self.scale, dtype=torch.float32) + self.shift
        output = self.model(x.to(self.dtype))
        output = output.flatten(1, -3)
        if self.order == "categorical-levels-first":
            output = output.unflatten(1, (self.levels, self.channels)).transpose(1, 2).flatten(1, 2)
        return output


def _head_of(model):
    """The head of a model of `genfast.models`; None for one whose class draws in a way of its own."""
    from genfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus

    for name, base in (("softmax", Autoregressive), ("mixture", PixelCNNPlusPlus)):
        methods = ("draw", "nll", "conditionals", "draws")
        if all(getattr(type(model), method) is getattr(base, method) for method in methods):
            return name if name == "mixture" else "bernoulli" if model.config.levels == 2 else "categorical"
    return None


def _head_by_shape(features, channels, levels, head):
    """How the output [B, *features, H, W] is read: `head`, or what its shape says; one of `ORDERS`."""
    if head not in (None, *ORDERS):
        raise ValueError(f"sample: head must be one of {', '.join(ORDERS)}; got {head!r}")
    count, sizes = features.numel(), [size for size in features if size > 1]
    if head is None and levels == 2 and count == channels:
        head = "bernoulli"
    elif head is None and count == channels * levels:
        orders = {"categorical": [channels, levels], "categorical-levels-first": [levels, channels]}
        fitting = [name for name, order in orders.items() if channels == 1 or sizes == order]
        if not fitting or len(fitting) == 2 and channels > 1:
            expected = "'categorical' for [C, L] or 'categorical-levels-first' for [L, C]"
            raise ValueError(f"sample: head must be {expected} for an output {tuple(features)} of a pixel; got None")
        head = fitting[0]
    if head == "mixture":
        per_component = {1: 3, 3: 10}.get(channels)
        expected, fits = "3K or 10K", per_component is not None and count % per_component == 0
    else:
        expected = channels if head == "bernoulli" else channels * levels
        fits = count == expected and (head != "bernoulli" or levels == 2)
    if not fits:
        named = f"{f'head {head}, ' if head else ''}C={channels}, L={levels}"
        raise ValueError(f"sample: the model must return {expected} values for each pixel ({named}); got {count}")
    return head


@contextmanager
def evaluating(model):
    """Inside, the model and all its modules are in evaluation mode; after it, each is in the mode that it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def run(
    network, n, *, seed, first=0, temperature=1.0, labels=None, given=None, known=None, evidence=None, draw=0,
    want=(), device=None,
):  # fmt: skip
    """Draw `n` images of a `FullForward`: `Drawn`, on the device of the model.

    The arguments are those of `genfast.Engine.run`. What is wanted beside the images comes from one more
    forward, over the finished images.
    """
    device, shape = network.device, (n, network.channels, network.height, network.width)
    given, known, evidence, labels = (t if t is None else t.to(device) for t in (given, known, evidence, labels))
    if given is None:
        images = torch.zeros(shape, dtype=torch.uint8, device=device)
    else:
        images = torch.where(known, given, 0)
    if n:
        with evaluating(network.model):
            _fill(network, images, known, labels, evidence, seed=seed, first=first, temperature=temperature, draw=draw)
            return _measure(network, images, labels, evidence, temperature, want)
    return _measure(network, images, labels, evidence, temperature, want)


def _fill(network, images, known, labels, evidence, *, seed, first, temperature, draw):
    """Draw, in place, the values that are not known."""
    mixture = network.head == "mixture"
    indices = range(first, first + len(images))
    for i in range(network.height):
        # Nothing is drawn where all images of the batch know all colours.
        open_columns = range(network.width)
        if known is not None:
            open_columns = (~known[:, :, i]).any(0).any(0).nonzero()[:, 0].tolist()
        if not open_columns:
            continue
        u = heads.row_uniforms(network, indices, i, seed, draw, images.device)
        for j in open_columns:
            for k in range(network.draws):
                channels = slice(None) if mixture or network.head is None else slice(k, k + 1)
                parameters = network.parameters(images[:, :, : network.rows(i)], labels)[..., i : i + 1, j : j + 1]
                if network.known and evidence is None and draw == 0:
                    settings = {"seed": seed, "first": first, "temperature": temperature}
                    settings["element"] = (i * network.width + j) * network.channels + k
                    drawn = network.model.draw(network.model.conditionals(parameters), k, **settings)
                    if not mixture:
                        channels = slice(k, k + drawn.shape[1])
                    drawn = drawn[..., 0, 0]
                else:
                    seen = None if evidence is None else evidence[:, k, i, j]
                    numbers = u[:, :, j] if mixture else u[0, :, j, k]
                    begin = sum(network.counts[:k])
                    part = parameters[:, begin : begin + network.counts[k], 0, 0]
                    drawn = heads.draw_levels(network, part, numbers, temperature, seen)
                place = images[:, channels, i, j]
                place.copy_(drawn if known is None else torch.where(known[:, channels, i, j], place, drawn))


def _measure(network, images, labels, evidence, temperature, want):
    """`Drawn` of finished images."""
    drawn = Drawn(images)
    if not want:
        return drawn
    n, places = len(images), (network.height, network.width)
    maps = torch.zeros(n, sum(network.counts), *places, device=images.device)
    if n:
        maps = network.parameters(images, labels)
    if "parameters" in want:
        drawn.parameters = maps.float()
    if "log_probs" in want:
        drawn.log_probs = torch.empty(n, network.draws, *places, dtype=torch.float64, device=images.device)
    if "log_evidence" in want:
        drawn.log_evidence = torch.empty(n, network.draws, *places, dtype=torch.float64, device=images.device)
    for k, part in enumerate(maps.split(network.counts, 1)):
        part = part.flatten(2).transpose(1, 2)
        if "log_probs" in want:
            values = images.flatten(2).transpose(1, 2)
            values = values if network.head == "mixture" else values[..., k : k + 1]
            drawn.log_probs[:, k] = heads.log_prob(network, part, values).view(n, *places)
        if "log_evidence" in want:
            seen = evidence[:, k].flatten(1, 2)
            drawn.log_evidence[:, k] = heads.log_evidence(part, temperature, seen).view(n, *places)
    return drawn
