"""What is known of a stranger's model: how it is built, called, trained and sampled by its author."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]


class Place(NamedTuple):
    """Channel, row and column of a value, the number of its pixel, and how many there are."""

    c: int
    i: int
    j: int
    pixel: int
    pixels: int


def unit(levels: Tensor, count: int) -> Tensor:
    """Levels as most authors feed them: floats in [0, 1]."""
    return levels / (count - 1)


def symmetric(levels: Tensor, count: int) -> Tensor:
    """Levels as floats in [-1, 1]."""
    return levels / (count - 1) * 2 - 1


def nothing(shape: Shape, rows: int) -> dict[str, Any]:
    """The further inputs of a model that has none."""
    return {}


@dataclass(frozen=True)
class Stranger:
    """A model of some author, and what its author does with it.

    Attributes:
        model: builds it: (shape, levels, width) -> module; its docstring names the habit.
        conventions: what genfast must be told, given (shape, levels), beside shape and levels.
        enter: (levels int64 [B, C, H, W], L) -> the input of forward.
        loss: (what forward returns, levels int64 [B, C, H, W], L) -> nats [B], as the author computes it.
        pick: (what forward returns, place) -> the probabilities [B, L] of that value, for the author's loop.
        draw: (what forward returns, L) -> levels [B, C, H, W]: an author who draws all values of all pixels from each
            forward, and keeps one pixel of them; instead of `pick`.
        loop: a sampling loop of the author's own kind, (model, n, shape, L) -> levels; instead of both.
        rows_so_far: whether the author's loop leaves out the rows below the present one.
        side: further inputs, given (shape, rows): "labels" int64 [rows] or "condition", tensors [rows, ...].
        order: where the author draws in another order than rows, columns, channels: shape -> positions.
        shape, levels: of the images that most tests use.
        tiny: shape and levels of images that are few enough to be listed.
        wrong: a convention that is wrong, and a pattern of the remedy that `check` must then name.
        gain: how strong the weights are; too strong ones make all but a few images impossible.
        reason: why no native program is expected; "" where one is.
        large: whether it is measured on images of 28x28.
    """

    model: Callable[..., nn.Module]
    conventions: Callable[[Shape, int], dict[str, Any]]
    enter: Callable[[Tensor, int], Tensor]
    loss: Callable[[Any, Tensor, int], Tensor]
    pick: Callable[[Any, Place], Tensor] | None
    wrong: tuple[dict[str, Any], str]
    draw: Callable[[Any, int], Tensor] | None = None
    loop: Callable[[nn.Module, int, Shape, int], Tensor] | None = None
    rows_so_far: bool = False
    side: Callable[[Shape, int], dict[str, Any]] = nothing
    order: Callable[[Shape], list[int]] | None = None
    shape: Shape = (1, 8, 8)
    levels: int = 4
    tiny: tuple[Shape, int] = field(default=((1, 2, 2), 3))
    gain: float = 1.8
    reason: str = ""
    large: bool = True

    @property
    def name(self) -> str:
        return self.model.__name__

    def build(self, shape: Shape | None = None, levels: int | None = None, width: int = 8) -> nn.Module:
        """The model in evaluation mode; the same bits at every call, and no conditional is flat."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Authors use what torch has deprecated since, such as the hook of weight_norm.
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            model = self.model(shape or self.shape, levels or self.levels, width)
            enliven(model, self.gain)
            return model.eval()

    def options(self, shape: Shape | None = None, levels: int | None = None) -> dict[str, Any]:
        """The conventions as keywords of genfast."""
        shape, levels = shape or self.shape, levels or self.levels
        return {"shape": shape, "levels": levels, **self.conventions(shape, levels)}

    def output(self, model: nn.Module, levels: Tensor, count: int, side: dict[str, Any]) -> Any:
        """What forward returns for levels int64 [B, C, H, W], called as its author calls it."""
        labels = () if "labels" not in side else (_rows(side["labels"], len(levels)),)
        condition = {key: _rows(value, len(levels)) for key, value in side.get("condition", {}).items()}
        return model(self.enter(levels, count), *labels, **condition)

    @torch.no_grad()
    def nll(self, model: nn.Module, levels: Tensor, count: int | None = None, **side: Any) -> Tensor:
        """The author's loss in nats, float64 [n], of levels [n, C, H, W]."""
        levels, count = levels.long(), count or self.levels
        return self.loss(self.output(model, levels, count, side), levels, count).double()

    @torch.no_grad()
    def sample(
        self, model: nn.Module, n: int, shape: Shape | None = None, count: int | None = None, places=None, **side: Any
    ) -> Tensor:
        """The author's loop: levels int64 [n, C, H, W]. `places`: draw only these positions, to measure a part."""
        (channels, height, width), count = shape or self.shape, count or self.levels
        if self.loop is not None:
            return self.loop(model, n, (channels, height, width), count)
        x = torch.zeros(n, channels, height, width, dtype=torch.int64)
        positions = self.order((channels, height, width)) if self.order else range(height * width * channels)
        for position in positions if places is None else places:
            pixel, c = divmod(position, channels)
            i, j = divmod(pixel, width)
            seen = x[:, :, : i + 1] if self.rows_so_far else x
            if self.draw is None:
                place = Place(c, i, j, pixel, height * width)
                probabilities = self.pick(self.output(model, seen, count, side), place)
                x[:, c, i, j] = torch.multinomial(probabilities, 1)[:, 0]
            elif c == 0:
                x[:, :, i, j] = self.draw(self.output(model, seen, count, side), count)[:, :, i, j]
        return x


def _rows(value: Tensor, rows: int) -> Tensor:
    return value if len(value) == rows else value.expand(rows, *value.shape[1:])


def enliven(model: nn.Module, gain: float) -> None:
    """Weights as if trained: far from the flat conditionals of an initialised model."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            last = name.rpartition(".")[2]
            if last in ("weight_g", "original0"):
                weight.uniform_(0.44 * gain, 0.88 * gain)
            elif weight.dim() > 1:
                weight.normal_(0, gain / math.sqrt(weight[0].numel()))
            elif last.endswith("weight"):
                weight.uniform_(0.7, 1.3)
            else:
                weight.normal_(0, 0.4)
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.3)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)


def cross_entropy(logits: Tensor, levels: Tensor) -> Tensor:
    """`F.cross_entropy` summed over an image: logits [B, L, ...], levels [B, ...] -> [B]."""
    return F.cross_entropy(logits.double(), levels, reduction="none").flatten(1).sum(1)


def every_image(shape: Shape, levels: int) -> Tensor:
    """All images, int64 [N, C, H, W]."""
    values = itertools.product(range(levels), repeat=math.prod(shape))
    return torch.tensor(list(values), dtype=torch.int64).view(-1, *shape)


def state(model: nn.Module) -> dict[str, Any]:
    """All that a module holds: bits of tensors, hooks, modes, and what it keeps in plain attributes."""
    found: dict[str, Any] = {"keys": list(model.state_dict())}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers"):
                found |= {f"{name}.{k}": None if v is None else v.detach().clone() for k, v in value.items()}
            elif key == "_modules":
                found[f"{name}.{key}"] = {k: id(v) for k, v in value.items()}
            elif isinstance(value, Tensor):
                found[f"{name}.{key}"] = value.detach().clone()
            else:
                found[f"{name}.{key}"] = repr(value) if key.startswith("_") else value
    found["rng"] = torch.get_rng_state()
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names under which two states differ."""
    names = [*before, *(key for key in after if key not in before)]
    return [key for key in names if not _same(before.get(key), after.get(key, "gone"))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)
    with contextlib.suppress(RuntimeError):
        return bool(a == b)
    return False
