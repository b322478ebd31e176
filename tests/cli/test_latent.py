"""The commands of models with latents, as their users meet them."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import genfast as library
from genfast.models import build

IMAGES = np.random.RandomState(0).randint(0, 2, (30, 6, 5))
LABELS = (IMAGES[:, 0, 0] + IMAGES[:, 1, 1]).astype(np.int64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "bits.npz"
    parts = {"train": slice(18), "valid": slice(18, 22), "test": slice(22, 30)}
    arrays = {name: IMAGES[part] for name, part in parts.items()}
    np.savez(path, **arrays, **{f"{name}_labels": LABELS[part] for name, part in parts.items()}, levels=2)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return _saved(tmp_path_factory, "vae", latent=4, network="mlp", hidden=8, layers=1)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return _saved(tmp_path_factory, "vae", latent=2, network="mlp", hidden=8, layers=1, classes=3)


@pytest.fixture(scope="module")
def pixelcnn(tmp_path_factory):
    return _saved(tmp_path_factory, "pixelcnn", hidden=2, layers=1, head=2)


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory):
    return _saved(tmp_path_factory, "vq-vae", codes=4, features=2, hidden=2, layers=0, downsampling=0)


def _saved(tmp_path_factory, name, **options):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / name
    build(name, height=6, width=5, levels=2, **options).save_pretrained(folder)
    return folder


def cells(path, rows, columns):
    """The cells of a picture, [rows, columns, 54, 45]: images are enlarged by 9, two grey pixels apart."""
    picture = np.asarray(Image.open(path))
    assert picture.shape == (rows * 56 - 2, columns * 47 - 2)
    padded = np.pad(picture, ((0, 2), (0, 2))).reshape(rows, 56, columns, 47)
    return padded.swapaxes(1, 2)[:, :, :54, :45]


def is_image(cell, number):
    """Whether a cell shows an image of the data."""
    return np.array_equal(cell[4::9, 4::9], 255 * IMAGES[number])


def test_reconstruct(genfast, model, data, tmp_path):
    code, out, err = genfast("reconstruct", model, "--data", data, "-n", 7, "--out", tmp_path / "r.png")
    assert (code, err) == (0, "") and "7 images, truth above, reconstruction below" in out
    assert "8 images, PSNR " in out and " % of bits wrong" in out
    tiles = cells(tmp_path / "r.png", 2, 7)
    assert all(is_image(tiles[0, i], 22 + i) for i in range(7))
    network = library.models.load(model)
    images = torch.from_numpy(IMAGES[22:29, None].astype(np.uint8))
    expected = 255 * network.reconstruct(images)[:, 0].numpy()
    assert np.array_equal(tiles[1][:, 4::9, 4::9], expected)
    options = ["--split", "train", "-n", 13, "--overwrite", "--out", tmp_path / "r.png"]
    assert genfast("reconstruct", model, "--data", data, *options)[0] == 0
    tiles = cells(tmp_path / "r.png", 4, 10)
    assert is_image(tiles[2, 2], 12) and (tiles[2:, 3:] == 96).all()


def test_interpolate(genfast, model, data, conditional, tmp_path):
    for kind in ("spherical", "linear"):
        command = ["interpolate", model, "--data", data, "-n", 9, "--steps", 5, "--kind", kind]
        code, out, err = genfast(*command, "--overwrite", "--out", tmp_path / "i.png")
        assert (code, err) == (0, "") and f"4 pairs, each: an image, 5 steps of a {kind} path, the other image" in out
        tiles = cells(tmp_path / "i.png", 4, 7)
        assert all(is_image(tiles[i, 0], 22 + 2 * i) and is_image(tiles[i, 6], 23 + 2 * i) for i in range(4))
    assert genfast("interpolate", conditional, "--data", data, "--out", tmp_path / "c.png")[0] == 0


def test_traverse(genfast, model, data, conditional, tmp_path):
    command = ["traverse", model, "--data", data, "--image", 3, "--steps", 5, "--span", 2]
    code, out, err = genfast(*command, "--latents", 3, "--out", tmp_path / "t.png")
    assert (code, err) == (0, "") and "3 of 4 latents, 5 values from -2 to 2" in out
    assert " latents carry 0.01 nats or more" in out
    cells(tmp_path / "t.png", 3, 5)
    code, _, err = genfast(*command, "--image", 8, "--out", tmp_path / "none.png")
    assert code == 2 and "image: expected 0 to 7 of " in err and err.count("\n") == 1
    assert genfast("traverse", conditional, "--data", data, "--out", tmp_path / "c.png")[0] == 0
    cells(tmp_path / "c.png", 2, 9)


def test_embed(genfast, model, data, conditional, tmp_path):
    command = ["embed", model, "--data", data, "--out", tmp_path / "z.npz", "--log-variance"]
    code, out, err = genfast(*command, "--neighbours", tmp_path / "n.png", "-n", 3, "-k", 4)
    assert (code, err) == (0, "") and "8 vectors of 4 latents" in out
    assert "3 images, each beside its 4 nearest of 18 training images" in out
    assert "linear probe" in out and out.count(" %") == 4 and "\n4 latents " in out and "\n30 pixels " in out
    arrays = np.load(tmp_path / "z.npz")
    assert arrays["label"].tolist() == LABELS[22:].tolist()
    network = library.models.load(model)
    images = torch.from_numpy(IMAGES[:, None].astype(np.uint8))
    means, log_variances = (part.detach() for part in network.encode(images))
    np.testing.assert_allclose(arrays["mean"], means[22:], atol=1e-5)
    np.testing.assert_allclose(arrays["log_variance"], log_variances[22:], atol=1e-5)
    tiles = cells(tmp_path / "n.png", 3, 5)
    order = torch.cdist(means[22:25], means[:18]).argsort(1)
    for i in range(3):
        assert is_image(tiles[i, 0], 22 + i) and all(is_image(tiles[i, 1 + j], order[i, j]) for j in range(4))
    fewer = genfast("embed", model, "--data", data, "--train", 5, "--out", tmp_path / "less.npz")[1]
    assert fewer.count(" %") == 4 and "log_variance" not in np.load(tmp_path / "less.npz")
    assert genfast("embed", conditional, "--data", data, "--out", tmp_path / "c.npz")[0] == 0


def test_embed_without_labels_or_pyarrow(genfast, model, tmp_path, monkeypatch):
    np.savez(tmp_path / "plain.npz", train=IMAGES[:20], test=IMAGES[20:], levels=2)
    code, out, err = genfast("embed", model, "--data", tmp_path / "plain.npz", "--out", tmp_path / "z.npz")
    assert (code, err, out.count("\n")) == (0, "", 2) and list(np.load(tmp_path / "z.npz")) == ["mean"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, out, err = genfast("embed", model, "--data", tmp_path / "plain.npz", "--out", tmp_path / "z.parquet")
    assert (code, out, err.count("\n")) == (2, "", 1) and "expected the package pyarrow for Parquet" in err


def test_inpaint_and_denoise(genfast, model, data, conditional, tmp_path):
    options = ["--data", data, "-n", 3, "--steps", 6, "--overwrite"]
    for target in (model, conditional):
        command = ["inpaint", target, *options, "--mask", "lower", "--results", 2]
        code, out, err = genfast(*command, "--out", tmp_path / "i.png")
        assert (code, err) == (0, "") and "3 images, each: truth, input, 2 results, their mean; accepted: post" in out
        assert "unknown values: a result " in out and "; the mean " in out and out.count("% of bits wrong, PSNR") == 2
        tiles = cells(tmp_path / "i.png", 3, 5)
        assert is_image(tiles[2, 0], 24) and (tiles[:, 1, 27:] == 128).all()
        assert all(np.array_equal(tiles[:, column, :27], tiles[:, 0, :27]) for column in range(1, 5))
        code, out, err = genfast(*command, "--order", "pseudo-gibbs", "--out", tmp_path / "i.png")
        assert (code, err) == (0, "") and "; approximate" in out
        code, out, err = genfast("denoise", target, *options, "--noise", "bitflip:0.1", "--out", tmp_path / "d.png")
        assert (code, err) == (0, "") and "3 images, each: truth, noisy, a posterior sample, mean" in out
        assert " dB noisy, " in out and "accepted: posterior " in out and ", walk " in out
        cells(tmp_path / "d.png", 3, 4)
    first = genfast("inpaint", model, *options, "--mask", "random:0.4", "--out", tmp_path / "a.png")[1]
    again = genfast("inpaint", model, *options, "--mask", "random:0.4", "--batch-size", 2, "--out", tmp_path / "a.png")[
        1
    ]
    assert first == again


WRONG = [
    (["reconstruct", "{vae}", "--out", "{tmp}/a.jpg"], "expected a name ending in .png; got .jpg"),
    (["interpolate", "{vae}", "--out", "{tmp}/a.png", "--steps", 1], "expected a whole number of at least 2; got 1"),
    (["interpolate", "{vae}", "--out", "{tmp}/a.png", "--kind", "cubic"], "invalid choice: 'cubic'"),
    (["traverse", "{vae}", "--out", "{tmp}/a.png", "--span", 0], "expected a number above 0; got 0"),
    (
        ["traverse", "{pixelcnn}", "--out", "{tmp}/a.png"],
        "traverse: model must have Gaussian latents, as",
    ),
    (["embed", "{pixelcnn}", "--out", "{tmp}/a.npz"], "embed: model must have Gaussian latents, as"),
    (["interpolate", "{pixelcnn}", "--out", "{tmp}/a.png"], "model must have Gaussian latents, as"),
    (
        ["reconstruct", "{pixelcnn}", "--out", "{tmp}/a.png"],
        "model must have latents or codes; got pixelcnn",
    ),
    (["embed", "{vae}", "--out", "{tmp}/a.csv"], "expected a name ending in .npz or .parquet; got .csv"),
    (["embed", "{vae}", "--out", "{tmp}/a.npz", "--neighbours", "{tmp}/a"], "expected a name ending in .png; got no"),
    (
        ["inpaint", "{vae}", "--mask", "lower", "--order", "raster", "--out", "{tmp}/a.png"],
        "exact, pseudo-gibbs for",
    ),
    (["inpaint", "{vqvae}", "--mask", "lower", "--out", "{tmp}/a.png"], "inpaint: model must be autoregressive, as"),
    (["denoise", "{vqvae}", "--noise", "bitflip:0.1", "--out", "{tmp}/a.png"], "denoise: model must be autoregressive"),
    (["evaluate", "{vae}", "--seed", -3], "evaluate: seed must lie in [0, 2**64); got -3"),
    (["inpaint", "{vae}", "--mask", "lower", "--backend", "cpp", "--out", "{tmp}/a.png"], "got 'cpp' (VAE has latents"),
]


@pytest.mark.parametrize("argv, message", WRONG)
def test_one_line_for_what_cannot_be(genfast, model, pixelcnn, vqvae, data, tmp_path, argv, message):
    names = {"vae": model, "pixelcnn": pixelcnn, "vqvae": vqvae, "tmp": tmp_path}
    argv = [str(word).format(**names) for word in argv]
    code, out, err = genfast(*argv, "--data", data)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert not list(tmp_path.iterdir())


def test_an_order_that_the_model_has_not_is_refused_before_any_work(genfast, pixelcnn, data, tmp_path, monkeypatch):
    def work(*arguments, **options):
        raise AssertionError("an engine was built, or data were read")

    for name in ("cli._engine.Engine", "cli._held_out.held_out_data"):
        monkeypatch.setattr(f"genfast.{name}", work)
    monkeypatch.setattr(sys.modules["genfast.tasks.inpaint"], "Engine", work)
    command = ["inpaint", pixelcnn, "--data", data, "--mask", "lower", "--out", tmp_path / "a.png"]
    code, out, err = genfast(*command, "--order", "pseudo-gibbs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "inpaint: order must be one of raster, exact; got 'pseudo-gibbs'" in err
