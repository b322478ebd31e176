"""The trainer: it resumes to the bit, keeps the best weights, and no moment of a kill or a full disk loses the run."""

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genfast import models
from genfast.data import ImageData
from genfast.train import PRESETS, TrainConfig, fit, learning_rate, mean_nats
from genfast.train.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from genfast.train.config import config_type
from genfast.train.metrics_log import read_metrics
from genfast.train.optim import make_optimizer
from genfast.train.trainer import Run

SHAPE = {"channels": 1, "height": 4, "width": 3, "levels": 3}


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ImageData(torch.randint(0, 3, (count, 1, 4, 3), dtype=torch.uint8, generator=generator), 3, f"noise {seed}")


TRAIN, VALID = images(22), images(9, seed=1)


def pixelrnn(seed=0):
    torch.manual_seed(seed)
    return models.build("pixelrnn", hidden=2, layers=1, head=4, dropout=0.3, virtual_column=True, **SHAPE)


def config(**changes):
    base = {"steps": 20, "batch": 4, "log_every": 3, "eval_every": 6, "save_every": 5, "ema": 0.9, "weight_decay": 0.1}
    return TrainConfig(**(base | {"device": "cpu"} | changes))


class Killed(Exception):
    pass


def killed_after(model, steps):
    """The model, dying without a word in its training step number `steps` + 1."""
    calls = iter(range(10**9))

    def count(module, inputs):
        if module.training and next(calls) == steps:
            raise Killed

    model.input.register_forward_pre_hook(count)
    return model


def same_state(one, other):
    (a, state_a), (b, state_b) = load_checkpoint(one), load_checkpoint(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert state_a | {"seconds": 0} == state_b | {"seconds": 0}


def same_run(one, other):
    same_state(one, other)
    assert (one / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()
    kept = ("step", "images", "train_nats", "valid_nats", "lr", "grad_norm", "best")
    lines = [[{k: r.get(k) for k in kept} for r in read_metrics(run / "metrics.jsonl")] for run in (one, other)]
    assert lines[0] == lines[1] and len(lines[0]) > 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    result = fit(pixelrnn(), TRAIN, VALID, config(), out)
    assert (result.step, result.reason) == (20, "finished")
    return out


@pytest.mark.parametrize("step", [0, 3, 7, 10, 19])
def test_resume_after_a_kill_is_exact(tmp_path, whole, step):
    model = pixelrnn()
    with pytest.raises(Killed):
        fit(killed_after(model, step), TRAIN, VALID, config(), tmp_path)
    assert load_checkpoint(tmp_path)[1]["step"] == step // 5 * 5
    result = fit(pixelrnn(seed=99), TRAIN, VALID, config(), tmp_path, resume=True)
    assert (result.step, result.reason) == (20, "finished")
    same_run(tmp_path, whole)


def test_resume_again_and_again_is_exact(tmp_path, whole):
    for step, resume in ((6, False), (6, True), (6, True)):
        with pytest.raises(Killed):
            fit(killed_after(pixelrnn(), step), TRAIN, VALID, config(), tmp_path, resume=resume)
    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, resume=True)
    same_run(tmp_path, whole)
    result = fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, resume=True)
    assert (result.step, result.reason) == (20, "finished")
    same_run(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resuming_is_exact(tmp_path, whole, number):
    def interrupt(record):
        if record["step"] == 9:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, progress=interrupt)
    assert (result.step, result.reason) == (10, "interrupted") and signal.getsignal(number) is before
    assert load_checkpoint(tmp_path)[1]["step"] == 10
    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, resume=True)
    same_run(tmp_path, whole)


def test_an_interrupted_run_has_a_model_before_its_first_evaluation(tmp_path):
    stop = lambda record: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    result = fit(pixelrnn(), TRAIN, VALID, config(eval_every=1000), tmp_path, progress=stop)
    assert result.reason == "interrupted" and result.best_step == 0
    assert models.load(tmp_path / "model").sample(1).shape == (1, 1, 4, 3)


def test_minutes_stop_the_call_but_not_the_run(tmp_path, whole):
    """A stop after every step: neither the weights that are kept nor the records show it."""
    for step in range(1, 20):
        result = fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, minutes=1e-9, resume=step > 1)
        assert (result.step, result.reason, result.best_step % 6) == (step, "minutes", 0)
        assert models.load(tmp_path / "model").sample(1).shape == (1, 1, 4, 3)
    assert fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, minutes=1e-9, resume=True).reason == "finished"
    same_run(tmp_path, whole)


def test_dropout_and_order_do_matter(whole, tmp_path):
    """The exact comparisons above would see a lost random state."""
    fit(pixelrnn(), TRAIN, VALID, config(seed=1), tmp_path)
    one, other = (load_checkpoint(run)[0] for run in (tmp_path, whole))
    assert not torch.equal(one["model.input.weight"], other["model.input.weight"])


def test_an_unconditional_run_ignores_labels(tmp_path, whole):
    train, valid = (replace(d, labels=torch.zeros(len(d), dtype=torch.int64), classes=1) for d in (TRAIN, VALID))
    fit(pixelrnn(), train, valid, config(), tmp_path)
    same_run(tmp_path, whole)


# disks that fail


def failing(monkeypatch, name, on_call, error=errno.ENOSPC):
    original, calls = getattr(os, name), iter(range(1, 10**9))

    def fail(*args, **kwargs):
        if next(calls) == on_call:
            raise OSError(error, os.strerror(error))
        return original(*args, **kwargs)

    monkeypatch.setattr(os, name, fail)


FULL = [("rename", 1), *(("replace", i) for i in (1, 2, 4)), *(("fsync", i) for i in (1, 2, 4, 7, 11))]


@pytest.mark.parametrize(("name", "on_call"), FULL)
def test_a_disk_that_fills_up_loses_nothing(tmp_path, whole, monkeypatch, name, on_call):
    with monkeypatch.context() as patch:
        failing(patch, name, on_call)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/run"):
            fit(pixelrnn(), TRAIN, VALID, config(), tmp_path / "run")
    begun = (tmp_path / "run").exists()
    assert begun or (name, on_call) in (("rename", 1), ("fsync", 1), ("fsync", 2)), "before it had begun"
    assert not list(tmp_path.rglob("*.tmp"))
    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path / "run", resume=begun)
    same_run(tmp_path / "run", whole)


def test_a_write_cut_short_leaves_the_last_checkpoint(tmp_path, whole):
    """A real partial write: the kernel refuses to let any file grow past half a checkpoint."""
    with pytest.raises(Killed):
        fit(killed_after(pixelrnn(), 6), TRAIN, VALID, config(), tmp_path)
    before = checkpoint_path(tmp_path).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint_path(tmp_path).read_bytes() == before and not list(tmp_path.rglob(".*.tmp"))
    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, resume=True)
    same_run(tmp_path, whole)


def test_half_a_line_of_metrics_is_dropped(tmp_path, whole):
    with pytest.raises(Killed):
        fit(killed_after(pixelrnn(), 8), TRAIN, VALID, config(), tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "trai')
    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, resume=True)
    same_run(tmp_path, whole)


LOOP = """
import sys
sys.path.insert(0, {tests!r})
from test_train import *
torch.set_num_threads(1)
fit(pixelrnn(), TRAIN, VALID, config(steps=10**6, save_every=1), {out!r}, resume=len(sys.argv) > 1)
"""


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    code, steps = LOOP.format(tests=os.path.dirname(__file__), out=str(tmp_path)), [-1]
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, *["resume"] * attempt], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 300
        while not checkpoint_path(tmp_path).exists() or load_checkpoint(tmp_path)[1]["step"] <= steps[-1] + 20:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
        process.stderr.close()
        steps.append(load_checkpoint(tmp_path)[1]["step"])
    assert steps == sorted(set(steps)) and models.load(tmp_path / "model").config.layers == 1


# checkpoints that are not what they should be


def resumed(out, **changes):
    options = {"model": pixelrnn(), "train": TRAIN, "valid": VALID, "config": config(), "out": out, "resume": True}
    return fit(**(options | changes))


def test_missing_truncated_and_foreign_checkpoints(tmp_path, whole):
    with pytest.raises(FileNotFoundError, match="state.safetensors.*got none"):
        resumed(tmp_path)
    path, content = checkpoint_path(tmp_path), checkpoint_path(whole).read_bytes()
    path.parent.mkdir()
    for broken in (b"", content[:7], content[: len(content) // 2], content[:-1], b"{}" * 500, content[::-1]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="state.safetensors: expected a whole safetensors file"):
            resumed(tmp_path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="expected a checkpoint of format genfast-checkpoint-1; got None"):
        resumed(tmp_path)


def test_resuming_something_else_is_refused(whole):
    with pytest.raises(ValueError, match="same settings.*lr 0.1 instead of 0.004"):
        resumed(whole, config=config(lr=0.1))
    with pytest.raises(ValueError, match="same training and validation images"):
        resumed(whole, train=images(22, seed=5))
    torch.manual_seed(0)
    other = models.build("pixelrnn", hidden=3, layers=1, head=4, virtual_column=True, **SHAPE)
    with pytest.raises(ValueError, match=r"expected \S+ of float32 .*; got float32 "):
        resumed(whole, model=other)
    other = models.build("pixelrnn", hidden=2, layers=2, head=4, virtual_column=True, **SHAPE)
    with pytest.raises(ValueError, match=r"expected a tensor averaged\.blocks\.1\.\S+ and \d+ more; got none"):
        resumed(whole, model=other)


def test_a_checkpoint_older_than_a_setting_resumes(tmp_path, whole):
    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, minutes=1e-9)
    tensors, state = load_checkpoint(tmp_path)
    del state["train"]["precision"]
    save_checkpoint(tmp_path, tensors, state)
    assert resumed(tmp_path).reason == "finished"
    with pytest.raises(ValueError, match="same settings.*precision bfloat16 instead of float32"):
        resumed(tmp_path, config=config(precision="bfloat16"))


def test_a_new_run_never_overwrites_one(whole):
    before = checkpoint_path(whole).read_bytes()
    with pytest.raises(FileExistsError, match="--resume or --overwrite; got a run"):
        fit(pixelrnn(), TRAIN, VALID, config(), whole)
    assert checkpoint_path(whole).read_bytes() == before


def test_unwritable_folder_is_found_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match="expected a folder that can be written; got"):
            fit(killed_after(pixelrnn(), 0), TRAIN, VALID, config(), out)


# what one step does


class Table(nn.Module):
    """Independent pixels, and a record of the batches: small enough to follow by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(12, 3))
        self.bias = nn.Parameter(torch.zeros(3))
        self.seen, self.scale, self.eval_scale = [], 1.0, 1.0

    def log_prob(self, x):
        if self.training:
            self.seen.append(x)
        logits = torch.log_softmax(self.weight + self.bias, dim=1) * (self.scale if self.training else self.eval_scale)
        return logits.expand(len(x), -1, -1).gather(2, x.flatten(1).long()[..., None]).sum((1, 2))

    def save_pretrained(self, folder):
        folder.mkdir(exist_ok=True)
        save_file(self.state_dict(), folder / "model.safetensors")


def test_every_epoch_sees_each_image_once_in_its_own_order(tmp_path):
    data = ImageData(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 4, 3) % 3, 3, "x")
    table = Table()
    run = Run(table, data, VALID, config(batch=5), tmp_path, None)
    run.train = (torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 4, 3),)
    epochs = []
    for epoch in range(2):
        epochs.append(torch.cat([run_batch(run, epoch * 4 + i) for i in range(4)]).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20)) and epochs[0] != epochs[1]
    assert epochs[1][:5] == np.random.RandomState([0, 1]).permutation(20)[:5].tolist()


def run_batch(run, step):
    run.step = step
    return run.next_batch()[0][:, 0, 0, 0]


def test_more_images_per_batch_than_there_are(tmp_path):
    table = Table()
    result = fit(table, images(3), VALID, config(batch=16, steps=4), tmp_path)
    assert result.step == 4 and [len(x) for x in table.seen] == [3] * 4
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["images"] == 12


def test_learning_rate_rises_then_falls_to_zero():
    c = TrainConfig(lr=2.0, warmup=10)
    rates = [learning_rate(step, 110, c) for step in range(110)]
    assert rates[:11] == pytest.approx([0.2 * (i + 1) for i in range(10)] + [2.0])
    assert rates[60] == pytest.approx(1.0) and rates[85] == pytest.approx(1 + math.cos(0.75 * math.pi))
    assert 0 < rates[-1] < 0.001 and rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0, 1, c) == 2.0


def test_averages_follow_their_recursion(tmp_path):
    table = Table()
    run = Run(table, TRAIN, VALID, config(ema=0.5, lr=0.1), tmp_path, None)
    expected = table.weight.detach().clone().double()
    for step in range(1, 15):
        run.update()
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * table.weight.detach().double()
    torch.testing.assert_close(run.averaged.weight.double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(run.averaged.weight, table.weight)
    assert not run.averaged.weight.requires_grad and run.averaged.weight.grad_fn is None


def test_only_weight_matrices_decay():
    optimizer = make_optimizer(Table(), config(weight_decay=0.25))
    assert [(g["weight_decay"], [p.shape for p in g["params"]]) for g in optimizer.param_groups] == [
        (0.25, [(12, 3)]),
        (0.0, [(3,)]),
    ]
    model = pixelrnn()
    free = {id(p) for p in make_optimizer(model, config()).param_groups[1]["params"]}
    names = {name.split(".")[-1] for name, p in model.named_parameters() if id(p) in free}
    assert names == {"bias", "input_bias", "output_bias", "h0", "c0"}


def test_gradients_are_clipped(tmp_path):
    norms = []
    for clip in (0.0, 1e-3):
        table = Table()
        run = Run(table, TRAIN, VALID, config(clip=clip), tmp_path, None)
        run.update()
        norms.append(float(torch.cat([p.grad.flatten() for p in table.parameters()]).norm()))
    assert norms[0] > 2e-3 and norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_kept_model_is_the_best_on_the_validation_images(tmp_path):
    result = fit(pixelrnn(), images(4), VALID, config(lr=0.05, steps=60, eval_every=5, weight_decay=0.0), tmp_path)
    evaluated = {r["step"]: r["valid_nats"] for r in read_metrics(tmp_path / "metrics.jsonl") if "valid_nats" in r}
    assert result.best_step == min(evaluated, key=evaluated.get) < 60, "four images must be overfitted"
    assert result.best_nats == evaluated[result.best_step] < evaluated[60]
    kept = models.load(tmp_path / "model")
    assert mean_nats(kept, VALID.images.split(4)) == pytest.approx(result.best_nats, rel=1e-6)


def test_training_learns_and_counts(tmp_path):
    data = ImageData(torch.ones(64, 1, 4, 3, dtype=torch.uint8), 3, "ones")
    result = fit(Table(), data, data, config(lr=0.3, steps=80, weight_decay=0.0, epochs=0), tmp_path)
    assert result.best_nats < 0.2 * 12 * math.log(3)
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert last["step"] == 80 and last["images"] == 320 and last["seconds"] > 0
    assert {"train_nats", "valid_nats", "lr", "grad_norm", "images_per_second"} <= last.keys()
    assert config(epochs=2.5, batch=4).total_steps(64) == 40


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    table = Table()

    def poison(record):
        table.scale = math.nan

    with pytest.raises(FloatingPointError, match="finite loss; got nan .* by step 7"):
        fit(table, TRAIN, VALID, config(log_every=6), tmp_path, progress=poison)
    tensors, state = load_checkpoint(tmp_path)
    assert state["step"] == 5 and all(torch.isfinite(t).all() for t in tensors.values())


def test_validation_that_is_not_finite_stops(tmp_path):
    table = Table()
    table.eval_scale = math.inf
    with pytest.raises(FloatingPointError, match="finite validation loss; got (inf|nan) at step 6"):
        fit(table, TRAIN, VALID, config(), tmp_path)
    assert load_checkpoint(tmp_path)[1]["step"] == 5 and not (tmp_path / "model").exists()


def test_training_leaves_the_callers_random_numbers_alone(tmp_path):
    model = pixelrnn()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, TRAIN, VALID, config(steps=3), tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "TrainConfig: steps must be at least 1; got 0"),
        ({"lr": 0.0}, "TrainConfig: lr must be a finite number above 0; got 0.0"),
        ({"lr": math.nan}, "TrainConfig: lr must be a finite number above 0; got nan"),
        ({"ema": 1.0}, r"TrainConfig: ema must be a number in \[0, 1\); got 1.0"),
        ({"betas": (0.9,)}, "TrainConfig: betas must be 2 numbers; got"),
        ({"betas": (0.9, 1.5)}, r"TrainConfig: betas must be a number in \[0, 1\); got 1.5"),
        ({"seed": -1}, "TrainConfig: seed must be at least 0; got -1"),
        ({"clip": -1.0}, "TrainConfig: clip must be a finite number of at least 0; got -1.0"),
        ({"batch": -3}, "TrainConfig: batch must be at least 1; got -3"),
    ],
)
def test_wrong_settings_name_both(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_settings_survive_json():
    c = config(betas=(0.5, 0.75))
    assert TrainConfig.from_dict(json.loads(json.dumps(c.to_dict()))) == c
    with pytest.raises(ValueError, match="TrainConfig: expected fields of TrainConfig; got momentum"):
        TrainConfig.from_dict({"momentum": 1})


def test_images_that_do_not_match_are_refused(tmp_path):
    other = ImageData(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), 3, "wide")
    with pytest.raises(ValueError, match=r"same shape and levels; got \(\(1, 4, 3\), 3\) and \(\(1, 4, 4\), 3\)"):
        fit(pixelrnn(), TRAIN, other, config(), tmp_path)
    floats = ImageData(torch.zeros(5, 1, 4, 3), 3, "floats")
    with pytest.raises(ValueError, match="floats: expected uint8 images .* got torch.float32"):
        fit(pixelrnn(), floats, VALID, config(), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_a_missing_device_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="device: expected .*; got cuda"):
        fit(pixelrnn(), TRAIN, VALID, config(device="cuda"), tmp_path)


@pytest.mark.parametrize(("model", "name"), [(model, name) for model in PRESETS for name in PRESETS[model]])
def test_presets_are_valid(model, name):
    recipe = PRESETS[model][name]
    config_type(models.MODELS[model][0])(**recipe.train)
    sizes = {"digits": (1, 8, 16), "mnist-binary": (1, 28, 2), "photos": (3, 32, 256)}
    sizes |= {"mnist": (1, 28, 256), "digit-outlines": (1, 32, 256), "photo-edges": (3, 64, 256)}
    channels, side, levels = sizes.get(recipe.data, (1, 4, 64))  # those of a vq-vae's codes
    assert recipe.data in (*sizes, None)
    rows = 1 if issubclass(models.MODELS[model][0], models.SequenceModel) else side
    shape = {"channels": channels, "height": rows, "width": side, "levels": levels}
    classes = {"classes": 10} if recipe.conditional else {}
    models.MODELS[model][1](**recipe.model, **shape, **classes)
