"""The settings of one training run."""

from dataclasses import asdict, dataclass, field, fields


def option(default, help):
    return field(default=default, metadata={"help": help})


@dataclass
class TrainConfig:
    steps: int = option(10_000, "updates; the learning rate reaches zero at the last")
    epochs: float = option(0.0, "passes over the training images, instead of steps (0: use steps)")
    batch: int = option(16, "images per update")
    lr: float = option(4e-3, "peak learning rate of AdamW")
    betas: tuple[float, float] = option((0.9, 0.99), "AdamW's decay rates")
    weight_decay: float = option(0.0, "AdamW's decay, of weight matrices only")
    warmup: int = option(300, "updates over which the learning rate rises")
    clip: float = option(1.0, "largest gradient norm of the loss in nats per dimension (0: no clipping)")
    ema: float = option(0.999, "decay of the moving average of the weights, which is what is kept")
    precision: str = option("float32", "float32, or bfloat16: matrix products and convolutions by torch.autocast")
    seed: int = option(0, "seed of the weights, the data order and dropout")
    log_every: int = option(50, "updates between lines of metrics.jsonl")
    eval_every: int = option(1000, "updates between evaluations on the validation images")
    eval_batch: int = option(250, "images per batch of an evaluation")
    save_every: int = option(1000, "updates between checkpoints")
    device: str = option("auto", "auto (a GPU if there is one), cpu or cuda")

    def __post_init__(self):
        self.betas = tuple(self.betas)
        for name in ("steps", "batch", "log_every", "eval_every", "eval_batch", "save_every"):
            _require(name, getattr(self, name), "a whole number of at least 1", lambda v: v >= 1)
        for name in ("epochs", "weight_decay", "warmup", "clip"):
            _require(name, getattr(self, name), "a number of at least 0", lambda v: v >= 0)
        _require("lr", self.lr, "a number above 0", lambda v: v > 0)
        _require("ema", self.ema, "a number from 0 to below 1", lambda v: 0 <= v < 1)
        _require("seed", self.seed, "a whole number from 0 to 2**32 - 1", lambda v: 0 <= v < 2**32)
        _require("precision", self.precision, "float32 or bfloat16", lambda v: v in ("float32", "bfloat16"))
        _require("betas", len(self.betas), "two numbers", lambda v: v == 2)
        for beta in self.betas:
            _require("betas", beta, "numbers from 0 to below 1", lambda v: 0 <= v < 1)

    def total_steps(self, images):
        """How many updates the run takes on so many training images."""
        return max(1, round(self.epochs * steps_per_epoch(images, self.batch))) if self.epochs else self.steps

    def to_dict(self):
        return asdict(self) | {"betas": list(self.betas)}

    @classmethod
    def from_dict(cls, values):
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"TrainConfig: expected known settings; got {', '.join(unknown)}")
        return cls(**values)


def steps_per_epoch(images, batch):
    return max(1, images // batch)


def _require(name, value, expected, holds):
    if not holds(value):
        raise ValueError(f"{name}: expected {expected}; got {value!r}")
