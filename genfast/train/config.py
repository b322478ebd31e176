"""The settings of one training run."""

from dataclasses import asdict, dataclass, field, fields


def option(default, help):
    return field(default=default, metadata={"help": help})


@dataclass
class RunConfig:
    """What every training is told."""

    steps: int = option(10_000, "updates; the learning rate reaches zero at the last")
    epochs: float = option(0.0, "passes over the training images, instead of steps (0: use steps)")
    batch: int = option(16, "images per update")
    lr: float = option(4e-3, "peak learning rate of AdamW")
    betas: tuple[float, float] = option((0.9, 0.99), "AdamW's decay rates")
    warmup: int = option(300, "updates over which the learning rate rises")
    clip: float = option(1.0, "largest gradient norm of the loss in nats per dimension (0: no clipping)")
    ema: float = option(0.999, "decay of the moving average of the weights, which is what is kept")
    precision: str = option("float32", "float32, or bfloat16: matrix products and convolutions by torch.autocast")
    seed: int = option(0, "seed of the weights, the data order and dropout")
    log_every: int = option(50, "updates between lines of metrics.jsonl")
    save_every: int = option(1000, "updates between checkpoints")
    device: str = option("auto", "auto (a GPU if there is one), cpu or cuda")

    def __post_init__(self):
        self.betas = tuple(self.betas)
        for name in self.counts():
            _require(name, getattr(self, name), "a whole number of at least 1", lambda v: v >= 1)
        for name in self.sizes():
            _require(name, getattr(self, name), "a number of at least 0", lambda v: v >= 0)
        _require("lr", self.lr, "a number above 0", lambda v: v > 0)
        _require("ema", self.ema, "a number from 0 to below 1", lambda v: 0 <= v < 1)
        _require("seed", self.seed, "a whole number from 0 to 2**32 - 1", lambda v: 0 <= v < 2**32)
        _require("precision", self.precision, "float32 or bfloat16", lambda v: v in ("float32", "bfloat16"))
        _require("betas", len(self.betas), "two numbers", lambda v: v == 2)
        for beta in self.betas:
            _require("betas", beta, "numbers from 0 to below 1", lambda v: 0 <= v < 1)

    def counts(self):
        """Fields that are at least 1."""
        return ("steps", "batch", "log_every", "save_every")

    def sizes(self):
        """Fields that are at least 0."""
        return ("epochs", "warmup", "clip")

    def total_steps(self, images, rounds=1):
        """How many steps, of `rounds` batches each, the run takes on so many training images."""
        per_epoch = steps_per_epoch(images, self.batch)
        return max(1, round(self.epochs * per_epoch / rounds)) if self.epochs else self.steps

    def to_dict(self):
        return asdict(self) | {"betas": list(self.betas)}

    @classmethod
    def from_dict(cls, values):
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"{cls.__name__}: expected known settings; got {', '.join(unknown)}")
        return cls(**values)


@dataclass
class TrainConfig(RunConfig):
    """Settings of `fit`."""

    weight_decay: float = option(0.0, "AdamW's decay, of weight matrices only")
    eval_every: int = option(1000, "updates between evaluations on the validation images")
    eval_batch: int = option(250, "images per batch of an evaluation")

    def counts(self):
        return (*super().counts(), "eval_every", "eval_batch")

    def sizes(self):
        return (*super().sizes(), "weight_decay")


@dataclass
class AdversarialConfig(RunConfig):
    """Settings of `fit_adversarial`."""

    steps: int = option(10_000, "updates of the generator")
    batch: int = option(64, "images per update of either network")
    lr: float = option(2e-4, "learning rate of Adam")
    discriminator_lr: float = option(0.0, "that of the discriminator (0: the same)")
    betas: tuple[float, float] = option((0.5, 0.99), "Adam's decay rates")
    warmup: int = option(0, "updates over which the learning rates rise")
    decay: float = option(0.5, "share of the updates, the last ones, over which the learning rates fall to zero")
    clip: float = option(0.0, "largest gradient norm of either network (0: no clipping)")
    ema: float = option(0.999, "decay of the moving average of the generator, which is what is kept")
    historical: float = option(0.0, "weight of the distance from the mean of all earlier weights (0: none)")
    grid_every: float = option(1.0, "epochs between sample grids in samples/")
    coverage_every: int = option(
        1000, "updates between looks at which classes are generated, where there are labels (0: never)"
    )

    def __post_init__(self):
        super().__post_init__()
        _require("decay", self.decay, "a number from 0 to 1", lambda v: 0 <= v <= 1)
        _require("grid_every", self.grid_every, "a number above 0", lambda v: v > 0)

    def sizes(self):
        return (*super().sizes(), "discriminator_lr", "historical", "coverage_every")


def is_adversarial(model):
    """Whether a model, or a class of models, is trained by `fit_adversarial`."""
    return hasattr(model, "discriminator_loss")


def config_type(model):
    """The settings that the training of a model, or of a class of models, takes."""
    return AdversarialConfig if is_adversarial(model) else TrainConfig


def steps_per_epoch(images, batch):
    return max(1, images // batch)


def _require(name, value, expected, holds):
    if not holds(value):
        raise ValueError(f"{name}: expected {expected}; got {value!r}")
