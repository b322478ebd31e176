"""Checkpoints that are damaged or of another run: one clear error before any of it is used."""

import json

import pytest
import torch
from safetensors.torch import save
from support import file_readers
from support.file_readers import MODELS
from support.refusals import Runs, refused

from genfast import models
from genfast.train import TrainConfig, fit
from genfast.train.checkpoint import checksum, load_checkpoint, open_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("everything"))


def with_tensors(change):
    def rewrite(tensors, state):
        change(tensors)
        return state

    return rewrite


def put(name, change):
    def rewrite(tensors, state):
        tensors[name] = change(tensors[name])
        return state

    return rewrite


CHECKPOINTS = [
    (
        "pixelcnn",
        with_tensors(lambda t: t.pop("optimizer.3.exp_avg")),
        "expected a tensor optimizer.3.exp_avg; got none",
    ),
    (
        "pixelcnn",
        with_tensors(lambda t: [t.pop(n) for n in list(t) if n.startswith("optimizer.3.")]),
        "expected a tensor optimizer.3.exp_avg and 2 more",
    ),
    (
        "pixelcnn",
        put("optimizer.0.exp_avg", lambda x: x[:1]),
        "expected optimizer.0.exp_avg of float32 [4, 1, 7, 7]; got float32 [1, 1, 7, 7]",
    ),
    ("pixelcnn", put("optimizer.0.exp_avg_sq", lambda x: x.double()), "of float32 [4, 1, 7, 7]; got float64"),
    ("pixelcnn", put("optimizer.0.exp_avg_sq", lambda x: -x - 1), "optimizer.0.exp_avg_sq must be at least 0; got -"),
    (
        "pixelcnn",
        put("optimizer.0.step", lambda x: x + 7),
        "optimizer.0.step must be a whole number from 1 to 2; got 9.0",
    ),
    ("pixelcnn", put("model.input.weight", lambda x: x.double()), "expected model.input.weight of float32"),
    ("pixelcnn", put("averaged.input.weight", lambda x: x / 0), "averaged.input.weight must be finite; got"),
    ("pixelcnn", put("rng.cpu", lambda x: x[:-1]), "expected rng.cpu of uint8 [5056]; got uint8 [5055]"),
    ("pixelcnn", put("rng.cpu", lambda x: x * 0), "expected a checkpoint of this run; got "),
    (
        "pixelcnn",
        with_tensors(lambda t: t.update({"optimizer.999.step": torch.ones(())})),
        "got also optimizer.999.step",
    ),
    ("pixelcnn", with_tensors(lambda t: t.update({"a\nb": torch.ones(())})), r"got also a\nb"),
    ("pixelcnn", lambda t, s: s | {"step": 10**9}, "step must be at most 2, the last; got 1000000000"),
    ("pixelcnn", lambda t, s: s | {"step": "2"}, "step must be an int; got '2'"),
    ("pixelcnn", lambda t, s: s | {"step": -1}, "step must be at least 0; got -1"),
    (
        "pixelcnn",
        lambda t, s: s | {"best_nats": -1e9},
        "best_nats must be at least -50 for each of 64 values; got -1000000000.0",
    ),
    (
        "pixelcnn",
        lambda t, s: s | {"best_nats": None},
        "best_nats and best_step must both be there or not; got None and 2",
    ),
    ("pixelcnn", lambda t, s: s | {"best_step": 3}, "best_step must be at most the step, 2; got 3"),
    ("pixelcnn", lambda t, s: s | {"counted": 3}, "counted must be at most the step, 2; got 3"),
    ("pixelcnn", lambda t, s: s | {"seconds": -1}, "seconds must be a finite number of at least 0; got -1"),
    ("pixelcnn", lambda t, s: s | {"images": "ab"}, "images must be a list; got 'ab'"),
    ("pixelcnn", lambda t, s: s | {"idle": ["optimizer.0"]}, "got also optimizer.0.exp_avg and 2 more"),
    ("pixelcnn", lambda t, s: {k: v for k, v in s.items() if k != "step"}, "got no step"),
    ("pixelcnn", lambda t, s: s | {"foreign": 1}, "expected fields of TrainState; got foreign"),
    ("pixelcnn", lambda t, s: s | {"train": s["train"] | {"lr": "x"}}, "lr must be a number; got 'x'"),
    ("pixelcnn", lambda t, s: [], "expected a state by names; got []"),
    ("dcgan", put("monitor.sizes", lambda x: x.new_ones(1, 3)), "state must have the logits that its sizes count"),
    ("dcgan", put("sums.generator_loss", lambda x: x[:1]), "sums.generator_loss must be a sum and a count"),
    ("dcgan", put("sums.generator_loss", lambda x: x - 5), "sums.generator_loss must be a sum and a count"),
    ("dcgan", put("monitor.coverage", lambda x: torch.ones(1, 4, dtype=x.dtype)), "state must have a coverage of"),
    (
        "dcgan",
        put("historical.generator.steps", lambda x: x * 0),
        "historical.generator.steps must be those of the run",
    ),
    ("dcgan", put("norm.generator", lambda x: x.reshape(1)), "expected norm.generator of float32 []; got float32 [1]"),
    ("dcgan", with_tensors(lambda t: t.pop("monitor.real")), "state must have the dtypes"),
]


@pytest.mark.parametrize(("kind", "change", "text"), CHECKPOINTS, ids=[text[:60] for _, _, text in CHECKPOINTS])
def test_checkpoints_that_are_refused(kind, change, text, runs):
    """With a checksum that is right: today's checks do not rest on it."""
    runs.prepare(f"{kind}/")
    run = runs.folder / kind
    tensors, state = load_checkpoint(run)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_checkpoint(run, tensors, change(tensors, state)) if callable(change) else None
    assert text in refused(lambda: runs.resume(run), str(run / "checkpoint/state.safetensors"))
    runs.prepare(f"{kind}/")
    runs.resume(run)


def test_a_bit_that_flipped_in_a_checkpoint(runs):
    runs.prepare("pixelcnn/")
    path = runs.folder / "pixelcnn/checkpoint/state.safetensors"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    refused(lambda: runs.resume(path.parents[1]), "expected a checkpoint as it was written; got a damaged one")
    with open_checkpoint(path.parents[1]) as (file, state):
        tensors = {name: file.read(name, finite=False) for name in file.kinds}
    text = json.dumps({name: value for name, value in state.items() if name != "idle"})
    of_before = {"format": "genfast-checkpoint-1", "state": text}
    path.write_bytes(save({name: tensor.clone() for name, tensor in tensors.items()}, metadata=of_before))
    runs.resume(path.parents[1])  # an earlier version had neither the checksum nor idle parameters
    assert load_checkpoint(path.parents[1])[1]["idle"] == []
    assert len(checksum({}, "")) == 8


def test_a_parameter_that_no_loss_depends_on_has_no_moments(tmp_path):
    def model():
        torch.manual_seed(0)
        made = models.build("pixelcnn", height=8, width=8, levels=2, **MODELS["pixelcnn"]).double()
        made.unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        return made

    data, settings = file_readers.image_data(), {**file_readers.TRAIN, "save_every": 1}
    fit(model(), data, data, TrainConfig(steps=4, **settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(model(), data, data, TrainConfig(steps=4, **settings), tmp_path / "half", progress=interrupt_at(2))
    (last,) = load_checkpoint(tmp_path / "half")[1]["idle"]
    assert last.startswith("optimizer.")
    fit(model(), data, data, TrainConfig(steps=4, **settings), tmp_path / "half", resume=True)
    one, other = (load_checkpoint(tmp_path / run)[0] for run in ("whole", "half"))
    assert all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def interrupt_at(step):
    def progress(record):
        if record["step"] == step:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("change", [{"hidden": 20_000}, {"layers": 900}, {"layers": 20_000}, {"kind": 3}], ids=str)
def test_a_run_is_resumed_at_the_size_of_its_checkpoint(change, runs):
    runs.prepare("pixelcnn/")
    path = runs.folder / "pixelcnn/config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"model_config": settings["model_config"] | change}))
    refused(lambda: runs.resume(path.parent), str(path))
    runs.prepare("pixelcnn/")
