"""What holds for every model: copies, the meta device, half types, folders of both, and initialisers of others."""

import copy
import dataclasses
import io
import pickle

import pytest
import torch
from torch import nn

import genfast
from genfast import models
from genfast.engine.protocols import Adversarial, Bounded
from genfast.nn import MaskedConv2d

SMALL = {"height": 8, "width": 8, "levels": 4}
GAN = {"features": 4, "latent": 3, "stages": 1}
CONFIGS = {
    "pixelrnn": {"channels": 3, "hidden": 3, "layers": 1, "head": 4},
    "pixelcnn": {"channels": 3, "hidden": 3, "layers": 1, "head": 4},
    "gated-pixelcnn": {"channels": 3, "hidden": 4, "layers": 2, "head": 4},
    "pixelsnail": {"channels": 3, "hidden": 4, "blocks": 1, "layers": 1, "depth": 2, "value": 2, "head": 4},
    "pixelcnn++": {"channels": 3, "filters": 4, "blocks": 1, "resolutions": 2},
    "pix2pix": {"features": 2, "halvings": 1, "patch": 1},
    "vae": {"hidden": 4, "latent": 3},
    "iwae": {"hidden": 4, "latent": 3, "samples": 2},
    "vq-vae": {"hidden": 4, "features": 3, "codes": 8},
    "char-rnn": {"height": 1, "hidden": 3},
    "wavenet": {"height": 1, "hidden": 3, "layers": 3, "cycle": 2, "head": 4},
    **dict.fromkeys(("dcgan", "sngan", "projection-gan", "wgan-gp", "r3gan"), GAN),
}


def make(name):
    return models.build(name, **SMALL | CONFIGS.get(name, {}))


every_model = pytest.mark.parametrize("name", models.MODELS)


@torch.no_grad()
def outputs(model):
    """Of evaluation: log-probabilities and losses, or images and their logits."""
    spec, generator = model.eval().spec, torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    x = torch.randint(0, spec.levels, (2, *spec.shape), dtype=torch.uint8, generator=generator)
    labels = torch.tensor([0, 1]) if spec.classes else None
    if isinstance(model, models.Pix2Pix):
        source = x[:, :1].expand(-1, model.source.channels, -1, -1).contiguous()
        return [genfast.translate(model, source), model.discriminator_loss(source, x)[0]]
    if isinstance(model, Adversarial):
        images = model.generate(torch.randn(2, model.config.latent), labels)
        return [images, model.discriminate(images, labels)]
    return [model.bound(x, labels) if isinstance(model, Bounded) else model.log_prob(x, labels)]


def loaded(model, other, **options):
    model.load_state_dict(copy.deepcopy(other.state_dict()), **options)
    return model


@every_model
def test_copies_are_the_model(name):
    model = make(name)
    expected = outputs(model)
    with torch.device("meta"):
        metas = [make(name) for _ in range(2)]
    assert all(tensor.is_meta for meta in metas for tensor in [*meta.parameters(), *meta.buffers()])
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = {
        "deep copy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "torch.save": torch.load(file, weights_only=False),
        "AveragedModel": torch.optim.swa_utils.AveragedModel(model, use_buffers=True).module,
        "share_memory": copy.deepcopy(model).share_memory(),
        "to_empty": loaded(metas[0].to_empty(device="cpu"), model),
        "assign": loaded(metas[1], model, assign=True),
    }
    for way, copied in copies.items():
        assert all(torch.equal(*pair) for pair in zip(outputs(copied), expected, strict=True)), way


@every_model
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_folders_of_every_dtype(name, dtype, tmp_path):
    model = make(name).to(dtype)
    assert all(part.isfinite().all() for part in outputs(model))
    model.save_pretrained(tmp_path / "new")
    # Those of genfast 0.1 hold the running state in the dtype of the parameters.
    state, old = model.state_dict(), copy.deepcopy(model)
    for layer in old.modules():
        for key, buffer in layer._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                layer._buffers[key] = buffer.to(dtype)
    old.save_pretrained(tmp_path / "old")
    for folder in ("new", "old"):
        with torch.device("meta"):  # the default device of torch has no say
            back = models.load(tmp_path / folder).state_dict()
        assert {key: value.dtype for key, value in back.items()} == {key: value.dtype for key, value in state.items()}
        for key, value in state.items():
            torch.testing.assert_close(back[key], value if folder == "new" else value.to(dtype).to(value.dtype))


def dcgan_initialiser(module):
    """That of the DCGAN tutorials, by the names of classes."""
    name = type(module).__name__
    if name.find("Conv") != -1:
        nn.init.normal_(module.weight.data, 0.0, 0.02)
    elif name.find("BatchNorm") != -1:
        nn.init.normal_(module.weight.data, 1.0, 0.02)
        nn.init.constant_(module.bias.data, 0)


@every_model
def test_an_initialiser_by_the_names_of_classes(name):
    model = make(name)
    before = outputs(model)
    model.apply(dcgan_initialiser)
    after = outputs(model)
    assert all(part.isfinite().all() for part in after)
    # A CharRNN has nothing of such a name.
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)) == (name == "char-rnn")


def test_masks_hold_after_an_initialisation():
    model = make("pixelcnn").apply(dcgan_initialiser)
    for layer in model.modules():
        if isinstance(layer, MaskedConv2d):
            nn.init.constant_(layer.weight, 0.1)
    x = torch.randint(0, 4, (1, 3, 8, 8), dtype=torch.uint8)
    other = x.clone()
    other[:, 1, 3, 4] = 3 - other[:, 1, 3, 4]
    with torch.no_grad():
        moved = (model(x) - model(other)).abs().flatten(0, 1)
    raster = moved.reshape(-1, 64).amax(0)
    assert raster[: 3 * 8 + 4].max() == 0 < raster[3 * 8 + 5 :].max()


@pytest.mark.parametrize("kind", models.MODELS)
def test_the_size_of_an_image_is_that_of_the_data(kind):
    """A setting of another meaning with the name of one would take its place."""
    of_data = {field.name for field in dataclasses.fields(models.MODELS[kind][1]) if field.metadata["from_data"]}
    assert {"channels", "height", "width", "levels"} <= of_data
