"""The settings of one training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from torch import nn

from genfast._config import check_options, documented, from_json, option
from genfast.engine.protocols import Adversarial

C = TypeVar("C", bound="RunConfig")


@documented
@dataclass
class RunConfig:
    """Settings of every training."""

    steps: int = option(10_000, "updates; the learning rate reaches zero at the last", ge=1, le=10**9)
    epochs: float = option(0.0, "passes over the training images, instead of steps (0: use steps)", ge=0, le=1e6)
    budget: float = option(
        0.0, "minutes, at most; the learning rate reaches 0 when they end (0: no limit)", ge=0, le=1e7, from_data=True
    )
    batch: int = option(16, "images per update", ge=1, le=2**20)
    lr: float = option(4e-3, "peak learning rate of AdamW", gt=0)
    betas: tuple[float, float] = option((0.9, 0.99), "AdamW's decay rates", ge=0, lt=1)
    warmup: int = option(300, "updates over which the learning rate rises", ge=0, le=10**9)
    clip: float = option(1.0, "largest gradient norm of the loss in nats per dimension (0: no clipping)", ge=0)
    ema: float = option(0.999, "decay of the moving average of the weights, which is what is kept", ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = option(
        "float32", "float32, or bfloat16: matrix products and convolutions by torch.autocast"
    )
    seed: int = option(0, "seed of the weights, the data order and dropout", ge=0, le=2**32 - 1)
    log_every: int = option(50, "updates between lines of metrics.jsonl", ge=1, le=10**9)
    save_every: int = option(1000, "updates between checkpoints", ge=1, le=10**9)
    device: str = option("auto", "auto (a GPU if there is one), cpu or cuda")

    def __post_init__(self) -> None:
        check_options(self)
        self.betas = (float(self.betas[0]), float(self.betas[1]))

    def total_steps(self, images: int, rounds: int = 1) -> int:
        """The number of steps, of `rounds` batches each, for so many training images."""
        per_epoch = steps_per_epoch(images, self.batch)
        return max(1, round(self.epochs * per_epoch / rounds)) if self.epochs else self.steps

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self) | {"betas": list(self.betas)}

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """The settings of `to_dict`. ValueError for an unknown one, another type, or a number out of bounds."""
        return from_json(cls, values, cls.__name__)


@documented
@dataclass
class TrainConfig(RunConfig):
    """Settings of `fit`."""

    weight_decay: float = option(0.0, "AdamW's decay, of weight matrices only", ge=0)
    eval_every: int = option(1000, "updates between evaluations on the validation images", ge=1, le=10**9)
    eval_batch: int = option(250, "images per batch of an evaluation", ge=1, le=2**20)


@documented
@dataclass
class AdversarialConfig(RunConfig):
    """Settings of `fit_adversarial`."""

    steps: int = option(10_000, "updates of the generator", ge=1, le=10**9)
    batch: int = option(64, "images per update of either network", ge=1, le=2**20)
    lr: float = option(2e-4, "learning rate of Adam", gt=0)
    discriminator_lr: float = option(0.0, "that of the discriminator (0: the same)", ge=0)
    betas: tuple[float, float] = option((0.5, 0.99), "Adam's decay rates", ge=0, lt=1)
    warmup: int = option(0, "updates over which the learning rates rise", ge=0, le=10**9)
    decay: float = option(
        0.5, "share of the updates, the last ones, over which the learning rates fall to zero", ge=0, le=1
    )
    clip: float = option(0.0, "largest gradient norm of either network (0: no clipping)", ge=0)
    ema: float = option(0.999, "decay of the moving average of the generator, which is what is kept", ge=0, lt=1)
    historical: float = option(0.0, "weight of the distance from the mean of all earlier weights (0: none)", ge=0)
    grid_every: float = option(1.0, "epochs between sample grids in samples/", gt=0)
    coverage_every: int = option(
        1000, "updates between looks at which classes are generated, where there are labels (0: never)", ge=0, le=10**9
    )


def is_adversarial(model: nn.Module | type[nn.Module]) -> bool:
    """Whether a model, or a class of models, is trained by `fit_adversarial`."""
    return issubclass(model if isinstance(model, type) else type(model), Adversarial)


def config_type(model: nn.Module | type[nn.Module]) -> type[RunConfig]:
    """The class of settings for the training of a model, or of a class of models."""
    return AdversarialConfig if is_adversarial(model) else TrainConfig


def rounds_of(model: Any) -> int:
    """Batches per step: more than one for a GAN with several updates of the discriminator in a step."""
    return model.discriminator_steps if is_adversarial(model) else 1


def steps_per_epoch(images: int, batch: int) -> int:
    """Batches in a pass over the images; a last partial batch is left out."""
    return max(1, images // batch)
