"""What all models share: the registry, their config, the checks of images and labels, and `sample`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from genfast._config import check_options, documented, option
from genfast.engine.arguments import check_batch, check_labels
from genfast.engine.protocols import ImageSpec
from genfast.models._pretrained import Pretrained
from genfast.tasks.sample import sample

# name -> (class, class of its config); filled by `register_model`.
MODELS: dict[str, tuple[type[ImageModel], type[ImageConfig]]] = {}
M = TypeVar("M", bound="type[ImageModel]")


def register_model(cls: M) -> M:
    """Class decorator: `build(cls.name, ...)` makes the model, `load` reads it, and `genfast train NAME` trains it."""
    MODELS[cls.name] = cls, documented(cls.config_type)
    return cls


@dataclass
class ImageConfig:
    """Sizes of the images of an `ImageModel`."""

    channels: int = option(1, "1 for grey, 3 for R, G, B", ge=1, from_data=True)
    height: int = option(28, "of the images, in pixels", ge=1, from_data=True)
    width: int = option(28, "of the images, in pixels", ge=1, from_data=True)
    levels: int = option(2, "values of a channel, 2 to 256", ge=2, le=256, from_data=True)

    # No field, so that only configs of models that can be conditional have it in their files: labels, 0 for none.
    classes = 0

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def spec(self) -> ImageSpec:
        """The images of a model with this config."""
        return ImageSpec(self.channels, self.height, self.width, self.levels, self.classes)

    @classmethod
    def may_be_conditional(cls) -> bool:
        """Whether such a model can take labels."""
        return any(field.name == "classes" for field in fields(cls))

    @classmethod
    def is_always_conditional(cls) -> bool:
        """Whether such a model must have labels."""
        return bool(cls.may_be_conditional() and cls.classes)

    @classmethod
    def fixed_by(cls, data: Any) -> dict[str, Any]:
        """The fields that training data (`genfast.data.ImageData` or `PairData`) decide, but for the labels."""
        _, channels, height, width = data.images.shape
        return {"channels": channels, "height": height, "width": width, "levels": data.levels}


class ImageModel(Pretrained, nn.Module):
    """A model of images of the sizes in its `config`; with `config.classes` above 0, of images given labels.

    A subclass sets `name` and `config_type`, and defines what training and evaluation use, each [B] nats per image:
    `loss(x, labels)`, what training minimises, and `bound(x, labels, seed=0, first=0)`, the log-likelihood, or a lower
    bound on it that is the same for the same seed and `first`, the number of the first image of the batch.

    Attributes:
        takes_pairs: whether it is trained on pairs of images, see `genfast.data.PairData`.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[ImageConfig]]
    takes_pairs: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def spec(self) -> ImageSpec:
        """The images that the model is of."""
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
        """Images drawn from the model, uint8 [n, C, H, W]: `genfast.sample(self, n, ...)`, with its arguments."""
        settings = {"seed": seed, "first": first, "temperature": temperature, "labels": labels}
        return sample(self, n, batch_size=batch_size, backend=backend, **settings)

    @property
    def _weight(self) -> Tensor:
        """A parameter, for its device and dtype."""
        return next(self.parameters())

    def _check_images(self, x: Tensor, size: tuple[int, int] | None = None) -> None:
        """`size`: the height and width that x must have, those of the config if not given."""
        check_batch(type(self).__name__, "x", x, self.spec, self._weight.device, size)

    def _check_labels(self, labels: Tensor | None, n: int) -> Tensor | None:
        """The labels as int64 [n]; None for an unconditional model."""
        return check_labels(type(self).__name__, labels, self.spec, n, self._weight.device, may_move=False)

    def extra_repr(self) -> str:
        return f"{self.config}"


def build(name: str, **config: Any) -> ImageModel:
    """A new model of the registry `MODELS` from the fields of its config."""
    if name not in MODELS:
        raise ValueError(f"build: expected one of {sorted(MODELS)}; got {name!r}")
    model, config_type = MODELS[name]
    return model(config_type(**config))
