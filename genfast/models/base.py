"""The base class of all models and of their configs, and the registry of models."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from genfast import _registry
from genfast._config import check_options, documented, option
from genfast._text import shown
from genfast.engine import shipped
from genfast.engine.arguments import check_batch, check_labels
from genfast.engine.protocols import ImageSpec
from genfast.folders import read_whole
from genfast.models._pretrained import SHIPPED, Pretrained, local_folder, read_config
from genfast.tasks.sample import sample

# name -> (class, class of its config); filled by `register_model`.
MODELS: dict[str, tuple[type[ImageModel], type[ImageConfig]]] = {}
MOST_VALUES = 2**26  # of an image: 8192 x 8192, far more than any model here can learn
M = TypeVar("M", bound="type[ImageModel]")


def register_model(cls: M) -> M:
    """Class decorator that adds a model to `MODELS`: `build`, `load` and `genfast train` then know it by its `name`."""
    _registry.add(MODELS, "model", cls.name, (cls, documented(cls.config_type)), cls.__module__)
    return cls


@dataclass
class ImageConfig:
    """The image format of an `ImageModel`."""

    channels: int = option(1, "channels of an image: 1 for grey, 3 for R, G, B", ge=1, le=256, from_data=True)
    height: int = option(28, "height of an image, in pixels", ge=1, le=65535, from_data=True)
    width: int = option(28, "width of an image, in pixels", ge=1, le=65535, from_data=True)
    levels: int = option(2, "number of levels of a channel, 2 to 256", ge=2, le=256, from_data=True)

    # Number of labels. It is a field only in the configs of models that can be conditional, so others do not store it.
    classes = 0

    def __post_init__(self) -> None:
        check_options(self)
        if (values := self.channels * self.height * self.width) > MOST_VALUES:
            raise ValueError(f"{type(self).__name__}: an image must be at most {MOST_VALUES} values; got {values}")

    @property
    def spec(self) -> ImageSpec:
        """The image format."""
        return ImageSpec(self.channels, self.height, self.width, self.levels, self.classes)

    def check_multiples(self, stride: int, why: str) -> None:
        """ValueError for a height or width that is no multiple of a stride; it names sizes that are."""
        if self.height % stride or self.width % stride:
            sides = [(max(stride, n - n % stride), n + -n % stride) for n in (self.height, self.width)]
            nearest = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in zip(*sides)))
            expected = f"multiples of {stride}, {why}, such as {nearest}"
            got = f"{self.height} and {self.width}"
            raise ValueError(f"{type(self).__name__}: height and width must be {expected}; got {got}")

    @classmethod
    def may_be_conditional(cls) -> bool:
        """Whether a model with such a config can be conditional on labels."""
        return any(field.name == "classes" for field in fields(cls))

    @classmethod
    def is_always_conditional(cls) -> bool:
        """Whether a model with such a config is conditional on labels by default."""
        return bool(cls.may_be_conditional() and cls.classes)

    @classmethod
    def fixed_by(cls, data: Any) -> dict[str, Any]:
        """The fields that follow from training data, `genfast.data.ImageData` or `PairData`, except `classes`."""
        _, channels, height, width = data.images.shape
        return {"channels": channels, "height": height, "width": width, "levels": data.levels}


class ImageModel(Pretrained):
    """Base class of the models of images. The model is conditional on labels if `config.classes` is above 0.

    A subclass sets `name` and `config_type`. What it can do is defined by the protocols of `genfast.engine.protocols`:
    for instance `loss`, which training minimises (`Trainable`), and `bound`, which evaluation reports (`Bounded`).

    Attributes:
        name: name in the registry and on the command line.
        config_type: class of `config`.
        config: the settings.
        takes_pairs: whether the model is trained on pairs of images, `genfast.data.PairData`.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[ImageConfig]]
    takes_pairs: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _checked(cls.__init__)  # type: ignore[method-assign]

    @property
    def spec(self) -> ImageSpec:
        """The format of the images."""
        return self.config.spec

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        first: int = 0,
        temperature: float = 1.0,
        labels: int | Tensor | None = None,
        batch_size: int | None = None,
        backend: str = "auto",
    ) -> Tensor:
        """Draw images, uint8 [n, C, H, W]: `genfast.sample(self, n, ...)`, which see for the arguments and errors."""
        return sample(
            self,
            n,
            seed=seed,
            first=first,
            temperature=temperature,
            labels=labels,
            batch_size=batch_size,
            backend=backend,
        )

    def scaled(self, x: Tensor) -> Tensor:
        """Levels 0 to L - 1 as numbers in [-1, 1], in the dtype of the parameters."""
        return x.to(self._weight.dtype) * (2 / (self.config.levels - 1)) - 1

    def quantised(self, y: Tensor) -> Tensor:
        """Float numbers in [-1, 1] as the nearest levels, uint8; numbers outside of it as the first or last level."""
        top = self.config.levels - 1
        return ((y.float() + 1) * (top / 2)).round_().clamp_(0, top).to(torch.uint8)

    @property
    def _weight(self) -> Tensor:
        """One of the parameters: it has the device and dtype of the model."""
        return next(self.parameters())

    def _check_images(self, x: Tensor, size: tuple[int, int] | None = None) -> None:
        """`size`: the height and width that x must have; by default those of the config."""
        check_batch(type(self).__name__, "x", x, self.spec, self._weight.device, size)

    def _check_labels(self, labels: Tensor | None, n: int) -> Tensor | None:
        """The labels as int64 [n]; None for an unconditional model."""
        return check_labels(type(self).__name__, labels, self.spec, n, self._weight.device, may_move=False)

    def extra_repr(self) -> str:
        return f"{self.config}"


def _checked(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that says what a model is made from, where it is given something else."""
    signature = inspect.signature(init)
    if "config" not in signature.parameters or signature.parameters["config"].kind == inspect.Parameter.VAR_KEYWORD:
        return init

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            given = signature.bind(self, *args, **kwargs).arguments.get("config", Ellipsis)
        except TypeError:
            given = None
        config_type = type(self).config_type
        if given is not Ellipsis and not isinstance(given, config_type):
            kind, name, known = (
                type(self).__name__,
                config_type.__name__,
                ", ".join(f.name for f in fields(config_type)),
            )
            got = ", ".join([*(type(value).__name__ for value in args), *(f"{key}=" for key in kwargs)]) or "nothing"
            raise TypeError(f"{kind}: config must be a {name}, as in {kind}({name}()), with {known}; got {got}")
        init(self, *args, **kwargs)

    return checked


def build(name: str, **config: Any) -> ImageModel:
    """A new model by its name in `MODELS`, with the given fields of its config.

    Raises: ValueError for an unknown name, or a field out of range; TypeError for an unknown field, or one of another
        type.
    Example: `build("pixelrnn", hidden=32)`
    """
    if name not in MODELS:
        raise ValueError(f"build: expected one of {sorted(MODELS)}; got {name!r}")
    model, config_type = MODELS[name]
    return model(config_type(**config))


def load(folder: str | Path) -> ImageModel:
    """Load a model of any class in `MODELS` from a folder, or by its Hub model id.

    Raises: as the `from_pretrained` of a model; ValueError for a model that is not in `MODELS`.
    """
    there = local_folder(folder)
    return read_whole(there, lambda: _load(there))


def _load(folder: Path) -> ImageModel:
    name = read_config(folder)["model"]
    if name not in MODELS:
        raise ValueError(f"{shown(folder)}/config.json: expected a model of {sorted(MODELS)}; got {shown(repr(name))}")
    return MODELS[name][0].from_pretrained(folder)


def _shipped() -> Iterator[ImageModel]:
    for folder in sorted(SHIPPED.iterdir()):
        yield load(folder)


shipped.SOURCES.append(_shipped)
