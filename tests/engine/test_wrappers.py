"""What torch wraps around a model does not matter to any verb."""

import copy
import inspect

import pytest
import torch
from support import public
from support.pieces import images_of, left, levels, model, plain
from support.public import ROOMS
from torch import nn
from torch.optim.swa_utils import AveragedModel

import genfast
from genfast import audit, metrics, tasks, train
from genfast.engine.compiler import compile_program
from genfast.engine.wrappers import unwrapped


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "distributed": nn.parallel.DistributedDataParallel,
    "compiled and distributed": lambda made: torch.compile(nn.parallel.DistributedDataParallel(made)),
    "averaged and compiled": lambda made: AveragedModel(torch.compile(made)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_model_inside(name, distributed):
    made = copy.deepcopy(model("pixelcnn"))
    wrapped = WRAPPERS[name](made)
    inner = unwrapped(wrapped)
    assert type(inner) is type(made) and ("averaged" in name or inner is made)  # an average is a copy
    assert unwrapped(made) is made and unwrapped(nn.Sequential(made))[0] is made
    assert torch.equal(genfast.sample(wrapped, 2), genfast.sample(made, 2))
    assert genfast.Engine(wrapped).backend == genfast.Engine(made).backend
    assert genfast.explain(genfast.sample, wrapped).backend == genfast.explain(genfast.sample, made).backend


class Holder(nn.Module):
    """A user's model that happens to call a part of it `module`: no wrapper."""

    def __init__(self):
        super().__init__()
        self.module = nn.Conv2d(1, 2, 1)


def test_a_part_called_module_makes_no_wrapper():
    made = Holder()
    assert unwrapped(made) is made and unwrapped(None) is None


def masked(kind):
    return images_of(kind), left(model(kind))


VERBS = {
    "audit": ("vae", lambda made: [vars(row) for row in audit.audit(made, images_of("vae", 120)).latents]),
    "sample": ("vae", lambda made: tasks.sample(made, 2)),
    "stream": ("pixelcnn", lambda made: next(tasks.stream(made, 2))),
    "log_prob": ("pixelcnn", lambda made: tasks.log_prob(made, images_of("pixelcnn"))),
    "inpaint": ("pixelcnn", lambda made: tasks.inpaint(made, *masked("pixelcnn"), steps=1).images),
    "denoise": ("pixelcnn", lambda made: tasks.denoise(made, *public.noisy("pixelcnn"), steps=1).images),
    "impute": ("vae", lambda made: tasks.impute(made, *masked("vae"), steps=1).images),
    "clean": ("vae", lambda made: tasks.clean(made, *public.noisy("vae"), steps=1).images),
    "embed": ("vae", lambda made: tasks.embed(made, images_of("vae"))),
    "interpolate": ("vae", lambda made: tasks.interpolate(made, *2 * (images_of("vae"),), 2)),
    "traverse": ("vae", lambda made: tasks.traverse(made, images_of("vae"), steps=2).images),
    "reconstruct": ("vq-vae", lambda made: tasks.reconstruct(made, images_of("vq-vae"))),
    "compress": ("vq-vae", lambda made: tasks.compress(made, images_of("vq-vae"))),
    "decompress": ("vq-vae", lambda made: tasks.decompress(public.every("vq-vae", tasks.compress), made)),
    "translate": ("pix2pix", lambda made: tasks.translate(made, levels(1, 1, 16, 16))),
    "translate_folder": ("pix2pix", lambda made: public.files(lambda f: public.translated_folder(f, made), "00.png")),
    "sample_shards": ("pixelcnn", lambda made: public.files(lambda f: public.shards(f, made), "samples-00000.npz")),
    "is_latent": ("vae", tasks.is_latent),
    "active_units": ("vae", lambda made: metrics.active_units(made, [images_of("vae")])),
    "latent_nll": ("vae", lambda made: metrics.latent_nll(made, [images_of("vae")], samples=2)),
    "rate_distortion": ("vq-vae", lambda made: metrics.rate_distortion(made, images_of("vq-vae"))),
    "translation_errors": ("pix2pix", lambda made: metrics.translation_errors(made, *2 * (public.pairs(),))),
    "duality_gap": ("dcgan", lambda made: public.gap(made)),
    "mean_nats": ("vae", lambda made: train.mean_nats(made, [images_of("vae")])),
    "fit": ("pixelcnn", lambda made: public.trained("pixelcnn", train.fit, public.short(train.TrainConfig), made)),
    "fit_adversarial": (
        "dcgan",
        lambda made: public.trained("dcgan", train.fit_adversarial, public.short(train.AdversarialConfig), made),
    ),
    "compile_program": ("pixelcnn", lambda made: len(compile_program(made).pixel)),
}


@pytest.mark.parametrize("name", VERBS)
def test_every_verb(name):
    kind, verb = VERBS[name]
    assert plain(verb(torch.compile(copy.deepcopy(model(kind))))) == plain(verb(model(kind)))


def test_every_verb_is_here():
    verbs = {
        name
        for module in ROOMS.values()
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
        and next(iter(inspect.signature(getattr(module, name)).parameters), "") == "model"
    }
    # `check` takes models of others: tests/tasks/test_check.py gives it wrapped ones.
    assert verbs - {"preset", "check"} <= set(VERBS)


def test_training_does_not_spread_over_processes(monkeypatch, distributed):
    """`fit` would train alone in each process, and all would write one folder."""
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    with pytest.raises(ValueError, match="fit: model must be trained by one process; got .* over 2"):
        public.trained(
            "pixelcnn",
            train.fit,
            public.short(train.TrainConfig),
            nn.parallel.DistributedDataParallel(copy.deepcopy(model("pixelcnn"))),
        )
