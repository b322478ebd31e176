"""The trainer of two networks: exact resuming, averaged weights, grids, and how it stops when something diverges."""

import errno
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import genfast
from genfast import cli, models
from genfast.data import ImageData
from genfast.train import AdversarialConfig, fit_adversarial
from genfast.train.adversarial import AdversarialRun, rate_share
from genfast.train.checkpoint import load_checkpoint
from genfast.train.metrics_log import read_metrics

SHAPE = {"height": 4, "width": 4, "levels": 4, "features": 4, "latent": 3, "stages": 1}


def images(count, seed=0, classes=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 4, (count, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % classes if classes else None
    return ImageData(x, 4, f"noise {seed}", labels=labels, classes=classes)


TRAIN, VALID = images(22, classes=2), images(9, seed=1, classes=2)


def gan(name="dcgan", seed=0, **options):
    torch.manual_seed(seed)
    return models.build(name, **(SHAPE | options))


def projection(seed=0):
    return gan("projection-gan", seed, classes=2, network="strided", discriminator_steps=2)


def config(**changes):
    base = {"steps": 20, "batch": 4, "log_every": 3, "save_every": 5, "ema": 0.9, "lr": 0.01, "device": "cpu"}
    return AdversarialConfig(**(base | changes))


class Killed(Exception):
    pass


def killed_after(model, steps):
    """The model, dying without a word in the step number `steps` + 1 of its generator."""
    calls, loss = iter(range(10**9)), model.generator_loss

    def counted(*batch):
        if next(calls) == steps:
            raise Killed
        return loss(*batch)

    model.generator_loss = counted
    return model


def same_run(one, other):
    (a, state_a), (b, state_b) = load_checkpoint(one), load_checkpoint(other)
    assert a.keys() == b.keys() and state_a | {"seconds": 0} == state_b | {"seconds": 0}
    for name in a:
        assert torch.equal(a[name], b[name]), name
    for file in ["model/model.safetensors", *(f"samples/{path.name}" for path in (one / "samples").iterdir())]:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    timed = ("seconds", "images_per_second")
    lines = [
        [{k: v for k, v in r.items() if k not in timed} for r in read_metrics(run / "metrics.jsonl")]
        for run in (one, other)
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, with everything that has a state: two steps, labels, history, the monitor."""
    out = tmp_path_factory.mktemp("whole")
    result = fit_adversarial(projection(), TRAIN, VALID, config(historical=0.1), out)
    assert (result.step, result.reason) == (20, "finished")
    return out


@pytest.mark.parametrize("step", [0, 3, 10, 19])
def test_resume_after_a_kill_is_exact(tmp_path, whole, step):
    with pytest.raises(Killed):
        fit_adversarial(killed_after(projection(), step), TRAIN, VALID, config(historical=0.1), tmp_path)
    assert load_checkpoint(tmp_path)[1]["step"] == step // 5 * 5
    result = fit_adversarial(projection(99), TRAIN, VALID, config(historical=0.1), tmp_path, resume=True)
    assert (result.step, result.reason) == (20, "finished")
    same_run(tmp_path, whole)


def test_a_signal_saves_and_resuming_is_exact(tmp_path, whole):
    def interrupt(record):
        if record["step"] == 9:
            os.kill(os.getpid(), signal.SIGINT)

    settings = config(historical=0.1)
    result = fit_adversarial(projection(), TRAIN, VALID, settings, tmp_path, progress=interrupt)
    assert (result.step, result.reason) == (10, "interrupted")
    fit_adversarial(projection(), TRAIN, VALID, settings, tmp_path, resume=True)
    same_run(tmp_path, whole)


def test_minutes_leave_no_trace(tmp_path, whole):
    settings = config(historical=0.1)
    for step in range(1, 20):
        result = fit_adversarial(projection(), TRAIN, VALID, settings, tmp_path, minutes=1e-9, resume=step > 1)
        assert (result.step, result.reason) == (step, "minutes")
    fit_adversarial(projection(), TRAIN, VALID, settings, tmp_path, resume=True)
    same_run(tmp_path, whole)


def test_an_early_interruption_leaves_a_model(tmp_path):
    stop = lambda record: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    result = fit_adversarial(gan(), TRAIN, VALID, config(save_every=1000), tmp_path, progress=stop)
    assert result.reason == "interrupted"
    assert genfast.sample(models.load(tmp_path / "model"), 2).shape == (2, 1, 4, 4)


def test_an_interruption_leaves_the_model_of_its_last_step(tmp_path):
    """Not that of a `save_every` before it; nor half of one, where the run had been killed while it wrote the first."""

    def stop(step):
        return lambda record: record["step"] == step and os.kill(os.getpid(), signal.SIGINT)

    settings = config(log_every=1, save_every=5)
    for step in (6, 8):
        result = fit_adversarial(
            gan(), TRAIN, VALID, settings, tmp_path, progress=stop(step), resume=(tmp_path / "checkpoint").is_dir()
        )
        assert result.reason == "interrupted" and 5 < result.step < 10
        tensors = load_checkpoint(tmp_path)[0]
        kept = models.load(tmp_path / "model").state_dict()
        for name in ("generator.input.weight", "discriminator.output.weight"):
            assert torch.equal(kept[name], tensors[f"averaged.{name}"]), name
        (tmp_path / "model" / "config.json").unlink()


def test_a_run_that_died_before_its_first_checkpoint_starts_again(tmp_path, capsys):
    command = ["train", "dcgan", "--preset", "digits", "--steps", "2", "--features", "4", "--device", "cpu"]
    command += ["--out", str(tmp_path)]
    assert cli.main(command) == 0
    for name in ("checkpoint", "model", "samples"):
        shutil.rmtree(tmp_path / name)
    assert cli.main([*command, "--resume"]) != 0
    text = "got none: a run that was stopped before its first starts again without --resume"
    assert text in capsys.readouterr().err
    assert cli.main(command) == 0


def test_history_and_seed_do_matter(tmp_path, whole):
    """The exact comparisons above would see them lost."""
    for name, changes in (("a", {}), ("b", {"historical": 0.1, "seed": 1})):
        fit_adversarial(projection(), TRAIN, VALID, config(**changes), tmp_path / name)
        one, other = (load_checkpoint(run)[0] for run in (tmp_path / name, whole))
        key = "model.generator.input.weight"
        assert not torch.equal(one[key], other[key])


@pytest.mark.parametrize("name", ["dcgan", "sngan", "wgan-gp", "r3gan"])
def test_every_model_trains_in_either_precision(tmp_path, name):
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        fit_adversarial(gan(name), TRAIN, VALID, config(steps=3, precision=precision), out)
        record = read_metrics(out / "metrics.jsonl")[-1]
        assert all(math.isfinite(value) for value in record.values())
        assert {"discriminator_loss", "generator_loss", "accuracy", "discriminator_norm"} <= record.keys()


def test_it_learns_which_class_is_bright(tmp_path):
    x = torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1).expand(64, 1, 4, 4) % 2 * 3
    data = ImageData(x.contiguous(), 4, "two", labels=torch.arange(64) % 2, classes=2)
    settings = config(steps=90, batch=16, betas=(0.0, 0.9), discriminator_lr=0.02)
    fit_adversarial(projection(), data, data, settings, tmp_path)
    model = models.load(tmp_path / "model")
    dark, bright = (genfast.sample(model, 50, labels=k).float().mean() for k in (0, 1))
    assert dark < 0.5 and bright > 2.5


# one step


def test_each_update_moves_its_network_and_sees_its_batch(tmp_path):
    model, seen = projection(), []
    run = AdversarialRun(model, TRAIN, VALID, config(batch=5), tmp_path, None)
    loss = model.discriminator_loss
    model.discriminator_loss = lambda *batch: seen.append(batch[0]) or loss(*batch)
    run.batch = run.batch_number(0)
    for side, other in (("discriminator", "generator"), ("generator", "discriminator")):
        before = [p.clone() for p in run.parameters[other]]
        own = [p.clone() for p in run.parameters[side]]
        run.descend(side)
        assert all(torch.equal(a, b) for a, b in zip(before, run.parameters[other]))
        assert not any(torch.equal(a, b) for a, b in zip(own[:1], run.parameters[side]))
    seen.clear()
    for _ in range(2):
        run.update()
    # Four batches of five, all different: the first epoch of 22 images.
    rows = torch.cat(seen).flatten(1)
    order = np.random.RandomState([0, 0]).permutation(22)[:20]
    assert torch.equal(rows, TRAIN.images.flatten(1)[torch.from_numpy(order)])
    assert all(p.requires_grad for p in model.parameters())


def test_averages_follow_their_recursion_and_the_discriminator_is_the_present_one(tmp_path):
    model = gan("r3gan", group=4)
    run = AdversarialRun(model, TRAIN, VALID, config(ema=0.5), tmp_path, None)
    weight = model.generator.output.weight
    expected = weight.detach().double()
    for step in range(1, 8):
        run.update()
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * weight.detach().double()
    run.save_model()
    kept = models.load(tmp_path / "model")
    torch.testing.assert_close(kept.generator.output.weight.double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(kept.generator.output.weight, weight)
    for name, value in model.discriminator.state_dict().items():
        assert torch.equal(kept.discriminator.state_dict()[name], value)


def test_batch_norms_of_the_kept_model_are_settled(whole):
    model = models.load(whole / "model")
    before = {name: value.clone() for name, value in model.generator.named_buffers()}
    model.settle()
    assert len(before) and all(torch.equal(value, before[name]) for name, value in model.generator.named_buffers())


def test_learning_rates_stay_and_then_fall():
    shares = [rate_share(step, 100, config(decay=0.5)) for step in range(100)]
    assert shares[:51] == [1.0] * 51 and shares[75] == pytest.approx(0.5) and shares[99] == pytest.approx(0.02)
    assert rate_share(99, 100, config(decay=0.0)) == 1.0
    assert rate_share(2, 100, config(warmup=8)) == pytest.approx(3 / 8)


def test_rates_of_both_sides(tmp_path):
    run = AdversarialRun(gan(), TRAIN, VALID, config(lr=0.01, discriminator_lr=0.04, decay=1.0), tmp_path, None)
    for _ in range(6):
        run.update()
    rates = {side: optimizer.param_groups[0]["lr"] for side, optimizer in run.optimizers.items()}
    assert rates == pytest.approx({"generator": 0.0075, "discriminator": 0.03})


# what a run leaves


def test_a_grid_of_samples_for_each_epoch(tmp_path):
    fit_adversarial(gan(), TRAIN, VALID, config(steps=12), tmp_path)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["step-0000005.png", "step-0000010.png", "step-0000012.png"], "5 batches of 4 an epoch, the last"
    with Image.open(tmp_path / "samples" / names[-1]) as picture:
        assert picture.size == (8 * 58 - 2, 8 * 58 - 2)
    settings = config(steps=12, grid_every=2.0)
    fit_adversarial(gan(discriminator_steps=5), TRAIN, VALID, settings, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "two" / "samples").iterdir())
    assert [int(name[5:12]) for name in names] == [2, 4, 6, 8, 10, 12]


def test_epochs_are_passes_over_the_images(tmp_path):
    run = AdversarialRun(projection(), TRAIN, VALID, config(epochs=4.0), tmp_path, None)
    assert run.steps == 10, "5 batches of 4 an epoch, 2 a step"


def test_records_count_images_of_all_rounds(whole):
    last = read_metrics(whole / "metrics.jsonl")[-1]
    assert (last["step"], last["images"]) == (20, 160)
    assert 0 <= last["accuracy_low"] <= last["accuracy"] <= last["accuracy_high"] <= 1


# what is refused, and what goes wrong


def test_a_batch_that_is_too_small_is_refused_before_any_work(tmp_path):
    text = "batch: expected at least 2, as the model takes statistics over a batch; got 1 of"
    with pytest.raises(ValueError, match=f"{text} 22 training images"):
        fit_adversarial(gan(), TRAIN, VALID, config(batch=1), tmp_path)
    with pytest.raises(ValueError, match=f"{text} 1 training images"):
        fit_adversarial(gan(), images(1), VALID, config(), tmp_path)
    assert not list(tmp_path.glob("*"))
    fit_adversarial(gan("r3gan", group=4), TRAIN, VALID, config(batch=1, steps=1), tmp_path)


@pytest.mark.parametrize(
    ("name", "place", "text"),
    [
        ("dcgan", "discriminator.trunk", r"output of discriminator.trunk \(StridedTrunk\)"),
        ("dcgan", "generator", r"output of generator \(StridedGenerator\)"),
        ("sngan", "discriminator.module.trunk", r"output of discriminator.module.trunk \(ResidualTrunk\)"),
        ("r3gan", "discriminator.stages.1", r"output of discriminator.stages.1 \(Sequential\)"),
    ],
)
def test_divergence_names_the_first_tensor_and_keeps_the_checkpoint(tmp_path, name, place, text):
    model, healthy = gan(name), {"forward": 0}

    def spoil(module, arguments, output):
        healthy["forward"] += module.training
        return output * math.nan if healthy["forward"] > 24 else output

    model.get_submodule(place).register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match=f"an update of the [a-z]+; first that is not finite: {text} .the che"):
        fit_adversarial(model, TRAIN, VALID, config(save_every=1), tmp_path)
    tensors, state = load_checkpoint(tmp_path)
    assert 5 <= state["step"] <= 12
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())
    result = fit_adversarial(gan(name), TRAIN, VALID, config(save_every=1), tmp_path, resume=True)
    assert result.reason == "finished"


def test_rates_that_are_too_high_are_told(tmp_path):
    with pytest.raises(FloatingPointError, match="expected finite (losses|weights)"):
        fit_adversarial(gan("wgan-gp"), TRAIN, VALID, config(lr=1e18, steps=200), tmp_path)
    assert all(value.isfinite().all() for value in load_checkpoint(tmp_path)[0].values() if value.is_floating_point())


def test_a_disk_that_fills_up_loses_nothing(tmp_path, whole, monkeypatch):
    original, calls = os.replace, iter(range(1, 10**9))

    def fail(*args):
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space left on device"):
            fit_adversarial(projection(), TRAIN, VALID, config(historical=0.1), tmp_path)
    assert not list(tmp_path.rglob(".*.tmp"))
    fit_adversarial(projection(), TRAIN, VALID, config(historical=0.1), tmp_path, resume=True)
    same_run(tmp_path, whole)


def test_settings_are_checked():
    for changes, text in (
        ({"decay": 1.5}, r"decay must be a number in \[0, 1\]; got 1.5"),
        ({"grid_every": 0.0}, "grid_every must be a finite number above 0; got 0.0"),
        ({"historical": -1.0}, "historical must be a finite number of at least 0; got -1.0"),
        ({"discriminator_lr": -1.0}, "discriminator_lr must be a finite number of at least 0; got -1.0"),
    ):
        with pytest.raises(ValueError, match=text):
            config(**changes)


# the command line


def test_train_resume_and_sample_by_the_command_line(tmp_path, capsys):
    run, options = tmp_path / "run", ["--steps", "4", "--features", "4", "--batch", "8", "--device", "cpu"]
    arguments = ["train", "projection-gan", "--preset", "digits", *options, "--out", str(run)]
    assert cli.main([*arguments, "--minutes", "1e-9"]) == 0
    assert cli.main(["train", "projection-gan", "--out", str(run), "--resume"]) == 0
    assert "4 steps; samples/ shows" in capsys.readouterr().out
    settings = json.loads((run / "config.json").read_text())
    assert settings["model_config"]["classes"] == 10 and settings["train"]["historical"] == 0.0
    assert cli.main(["sample", str(run), "-n", "5", "--label", "3,7", "--out", str(tmp_path / "x.npz")]) == 0
    with np.load(tmp_path / "x.npz") as drawn:
        assert drawn["labels"].tolist() == [3, 7, 3, 7, 3] and drawn["images"].shape == (5, 1, 8, 8)
        whole = drawn["images"]
    command = ["sample", str(run), "-n", "5", "--label", "3,7", "--shard", "2", "--out", str(tmp_path / "shards")]
    assert cli.main(command) == 0
    parts = [np.load(path)["images"] for path in sorted((tmp_path / "shards").glob("*.npz"))]
    assert np.array_equal(np.concatenate(parts), whole)
    capsys.readouterr()
    options = [*options, "--no-conditional", "--preset", "digits", "--out", str(tmp_path / "b")]
    assert cli.main(["train", "projection-gan", *options]) == 2
    assert "classes must be at least 1; got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["train", "dcgan", "--eval-every", "3", "--out", str(tmp_path / "c")])
