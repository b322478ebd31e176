"""Lossless files of a VAE: bits-back coding in blocks, and what is refused."""

import pytest
import torch

import genfast
from genfast import models
from genfast.tasks import file_info


def vae(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"height": 8, "width": 8, "levels": 2, "latent": 3, "hidden": 4, "layers": 1}
    return models.build("vae", **(sizes | changes)).eval()


def images_of(model, n=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.spec.levels, (n, *model.spec.shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("changes", [{}, {"levels": 256, "channels": 3}, {"classes": 4}, {"network": "mlp"}], ids=str)
@pytest.mark.parametrize("block", [None, 7])
def test_there_and_back(changes, block):
    model = vae(**changes)
    x = images_of(model)
    labels = torch.arange(len(x)) % 4 if "classes" in changes else None
    data = genfast.compress(model, x, labels=labels, block=block)
    assert torch.equal(genfast.decompress(data, model), x)
    last = 0 if block is None else 5
    assert torch.equal(genfast.decompress(data, model, block=last), x[last * 7 :])
    info = file_info(data)
    assert (info.kind, info.count, info.blocks, info.block) == ("lossless", 40, last + 1, block or 4096)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert genfast.compress(model, x, labels=labels, block=block) == data
    finally:
        torch.set_num_threads(threads)


def test_images_of_another_size_are_cut():
    model = vae()
    x = torch.randint(2, (5, 1, 13, 20), dtype=torch.uint8)
    assert torch.equal(genfast.decompress(genfast.compress(model, x), model), x)


def test_refusals():
    model = vae()
    data = genfast.compress(model, images_of(model))
    changed = vae()
    with torch.no_grad():
        weight = next(changed.decoder.parameters()).view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(torch.inf))
    pixelcnn = models.build("pixelcnn", height=8, width=8, levels=2, hidden=4, layers=1, head=4)
    gaussian = vae(levels=256, likelihood="gaussian")
    damaged = data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]
    for call, message in (
        (lambda: genfast.decompress(data, changed), "expected the weights that wrote the file, .*; got others"),
        (lambda: genfast.decompress(data, vae(latent=4)), "expected the model that wrote the file, .*; got another"),
        (lambda: genfast.decompress(data, pixelcnn), "expected a model of coder 2; got one of 1"),
        (lambda: genfast.decompress(data), "model must be given"),
        (lambda: genfast.decompress(damaged, model), "got block 0 damaged"),
        (
            lambda: genfast.compress(model, images_of(model), with_model=True),
            "with_model must be False for a model",
        ),
        (lambda: genfast.compress(gaussian, images_of(gaussian)), "likelihood that gives each .*; got gaussian of 256"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
