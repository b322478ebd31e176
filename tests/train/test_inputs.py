"""What `fit` takes: the same images in any form train the same model, and everything else says what it should be."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import genfast
from genfast import models
from genfast.data import ImageData, PairData
from genfast.train import AdversarialConfig, TrainConfig, fit_adversarial
from genfast.train.inputs import data_for, training_data

X = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (30, 1, 4, 5), dtype=np.uint8))
RGB = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (30, 3, 4, 5), dtype=np.uint8))
Y = torch.arange(30) % 3


class Items(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return self.item(index)


class Stream(IterableDataset):
    def __iter__(self):
        return ((image, int(label)) for image, label in zip(X, Y, strict=True))


def model(images=X, name="pixelcnn", **options):
    size = {"channels": images.shape[1], "height": 4, "width": 5, "levels": 256} | options
    return models.build(name, hidden=3, layers=1, head=3, **size)


def picture(images, i):
    return Image.fromarray(images[i].permute(1, 2, 0).squeeze(2).numpy())


def to_tensor(i):
    return X[i].float().div(255)  # as torchvision's ToTensor


PLAIN = {
    "tensor": X,
    "array": X.numpy(),
    "grey [n, H, W]": X[:, 0],
    "[n, H, W, C]": X.permute(0, 2, 3, 1),
    "int64": X.long(),
    "a view that is not contiguous": X.flip(3).contiguous().flip(3),
    "dataset": TensorDataset(X),
    "loader": DataLoader(TensorDataset(X), batch_size=7, shuffle=True, drop_last=True),
    "images alone": Items(lambda i: picture(X, i)),
    "targets that are no labels": Items(lambda i: (X[i], {"boxes": []})),
}
LABELLED = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()[:, None]),
    "dataset": TensorDataset(X, Y),
    "PIL": Items(lambda i: (picture(X, i), int(Y[i]))),
    "ToTensor": Items(lambda i: (to_tensor(i), int(Y[i]))),
    "ToTensor in a loader": DataLoader(Items(lambda i: (to_tensor(i), int(Y[i]))), batch_size=4),
    "float64": Items(lambda i: (X[i].numpy() / 255, np.int64(Y[i]))),
    "a dict": Items(lambda i: {"label": int(Y[i]), "image": picture(X, i), "name": "x"}),
    "a stream": Stream(),
    "a stream in a loader": DataLoader(Stream(), batch_size=3),
    "every item of a subset": Subset(TensorDataset(X, Y), range(30)),
    "a random order": DataLoader(TensorDataset(X, Y), sampler=SubsetRandomSampler(torch.arange(30).flip(0).tolist())),
}


@pytest.mark.parametrize("form", PLAIN)
def test_images_in_any_form(form):
    data = data_for(model(), PLAIN[form], "fit: train")
    assert data.images.dtype == torch.uint8 and torch.equal(data.images, X) and data.labels is None


@pytest.mark.parametrize("form", LABELLED)
def test_labels_in_any_form(form):
    data = data_for(model(), LABELLED[form], "fit: train")
    assert torch.equal(data.images, X) and torch.equal(data.labels, Y) and data.classes == 3 and data.levels == 256


@pytest.mark.parametrize("form", [RGB, RGB.permute(0, 2, 3, 1).numpy(), Items(lambda i: picture(RGB, i))])
def test_colours(form):
    assert torch.equal(data_for(model(RGB), form, "x").images, RGB)


def test_an_array_of_two_readings_has_its_channels_first():
    images = torch.arange(2 * 27, dtype=torch.uint8).reshape(2, 3, 3, 3)
    assert torch.equal(data_for(model(RGB, height=3, width=3), images, "x").images, images)


def test_floats_are_levels_of_the_model():
    bits = X // 128
    data = data_for(model(levels=2), Items(lambda i: bits[i].float()), "x")
    assert torch.equal(data.images, bits) and data.levels == 2
    assert torch.equal(data_for(model(levels=2), bits.bool(), "x").images, bits)
    sixteen = data_for(model(levels=16), Items(lambda i: (X[i] // 16).float().div(15)), "x")
    assert torch.equal(sixteen.images, X // 16)


def test_pairs_of_a_dataset():
    network = models.build("pix2pix", channels=3, height=8, width=8, source_channels=1, features=2, patch=1, levels=256)
    source, target = X.repeat(1, 1, 2, 2)[..., :8], RGB.repeat(1, 1, 2, 2)[..., :8]
    for form in (TensorDataset(source, target), (source, target), Items(lambda i: (source[i], target[i]))):
        data = data_for(network, form, "x")
        assert isinstance(data, PairData) and torch.equal(data.source, source) and torch.equal(data.target, target)


def test_the_same_images_train_the_same_model(tmp_path):
    settings = TrainConfig(steps=3, batch=4, eval_every=2, log_every=1)
    known = ImageData(X, 256, "known")
    results = []
    for name, form in (("a", known), ("b", X), ("c", PLAIN["loader"]), ("d", LABELLED["ToTensor"])):
        torch.manual_seed(3)
        results.append(genfast.fit(model(), form, X[:9], settings, tmp_path / name).best_nats)
        assert (tmp_path / name / "model" / "model.safetensors").is_file()
    assert len(set(results)) == 1
    torch.manual_seed(3)
    conditional = genfast.fit(
        model(name="gated-pixelcnn", classes=3), DataLoader(TensorDataset(X, Y)), (X, Y), settings, tmp_path / "e"
    )
    assert conditional.reason == "finished"


def test_without_validation_images_a_tenth_is_held_out(tmp_path):
    train, valid = training_data("fit", model(), (X, Y), None)
    assert (len(train), len(valid)) == (27, 3) and "held out" in train.name and "held out" in valid.name
    both = torch.cat((train.images, valid.images))
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, X.numpy()))
    for part in (train, valid):
        rows = [next(i for i in range(30) if torch.equal(X[i], image)) for image in part.images]
        assert part.labels.tolist() == Y[rows].tolist()
    result = genfast.fit(model(), X, config=TrainConfig(steps=1, batch=2), out=tmp_path / "r")
    assert result.reason == "finished"
    with pytest.raises(ValueError, match="fit: train must have at least 10 images, of which .*; got 7"):
        training_data("fit", model(), X[:7], None)
    with pytest.raises(ValueError, match="fit: out must be a folder for the run; got None"):
        genfast.fit(model(), X)


SPEC = r"fit: train must be a uint8 tensor or array \[n, C, H, W\], .*genfast.data.load returns; got "
WRONG = [
    ("tensor", TypeError, SPEC + "str 'tensor'"),
    ([X], TypeError, SPEC + "list of 1"),
    ((X, Y, Y), TypeError, SPEC + "tuple of 3"),
    (None, TypeError, SPEC + "NoneType"),
    ({"images": X}, TypeError, SPEC + "dict"),
    (3, TypeError, SPEC + "int"),
    (X / 255, TypeError, r"whole levels, as torch.uint8; got torch.float32 from 0 to 1: give \(255 \* images\)"),
    (X / 127.5 - 1, TypeError, r"from -1 to 1: give \(127.5 \* \(images \+ 1\)\).round\(\).to\(torch.uint8\)"),
    (X.double(), TypeError, r"got torch.float64 from 0 to 255: give \(images\).round\(\).to\(torch.uint8\)"),
    (X.numpy() / 255, TypeError, "got torch.float64 from 0 to 1"),
    (X.long() + 1, ValueError, "must hold levels 0..255 of the model; got 1 to 256"),
    (X.long() - 1, ValueError, "must hold levels 0..255 of the model; got -1 to 254"),
    (X[:, :, :3], ValueError, r"must have shape \[n, 1, 4, 5\] of the model; got \(30, 1, 3, 5\)"),
    (RGB, ValueError, r"must have shape \[n, 1, 4, 5\] of the model; got \(30, 3, 4, 5\)"),
    (X[:0], ValueError, r"must have shape .* of the model; got \(0, 1, 4, 5\)"),
    ((X, Y[:9]), TypeError, r"must have 30 whole labels, one for each image; got torch.int64 \(9,\)"),
    ((X, Y.float()), TypeError, r"must have 30 whole labels, one for each image; got torch.float32 \(30,\)"),
    ((X, Y - 1), ValueError, "must have labels from 0 to .*; got -1 to 1"),
    (
        Items(lambda i: (to_tensor(i) - 0.5) / 0.5),
        ValueError,
        r"train\[0\] must hold floats that are exactly level / 255",
    ),
    (Items(lambda i: torch.randint(256, (1, 4, 5))), ValueError, r"train\[0\] must be the same image each time: leave"),
    (Items(lambda i: "x.png"), TypeError, r"train\[0\] must be an image or \(image, label\); got str"),
    (
        DataLoader(Items(lambda i: X[i]), collate_fn=list),
        TypeError,
        "a DataLoader of torch's own batches; got one with",
    ),
    (
        DataLoader(TensorDataset(X), sampler=WeightedRandomSampler([1.0] * 30, 30)),
        TypeError,
        "shows each item once; got a WeightedRandomSampler",
    ),
    (
        DataLoader(TensorDataset(X), sampler=RandomSampler(X, replacement=True)),
        TypeError,
        "shows each item once; got a RandomSampler",
    ),
]


@pytest.mark.parametrize(("data", "kind", "message"), WRONG)
def test_what_fit_does_not_take(tmp_path, data, kind, message):
    with pytest.raises(kind, match=message):
        genfast.fit(model(), data, X, TrainConfig(steps=1), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_gan_is_trained_by_fit_adversarial(tmp_path):
    gan = models.build("dcgan", channels=1, height=8, width=8, levels=256, features=2, latent=2)
    images = X.repeat(1, 1, 2, 2)[..., :8]
    with pytest.raises(TypeError, match="fit: model must have a likelihood; got a dcgan, which fit_adversarial trains"):
        genfast.fit(gan, images, out=tmp_path / "r")
    settings = AdversarialConfig(steps=1, batch=4, grid_every=100)
    assert fit_adversarial(gan, TensorDataset(images, Y), None, settings, tmp_path / "r").reason == "finished"
