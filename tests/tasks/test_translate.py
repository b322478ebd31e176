"""`genfast.translate` and the command: an image depends on its seed, number and source alone; every file is accounted
for."""

import numpy as np
import pytest
import torch
from PIL import Image

import genfast as library
from genfast.data import load
from genfast.models import Pix2Pix, Pix2PixConfig, PixelCNN, PixelCNNConfig
from genfast.tasks.translate import translate_folder

translate = library.translate


def make(**changes):
    """A model whose weights matter: those of training begin near zero."""
    torch.manual_seed(1)
    options = {"channels": 3, "height": 16, "width": 16, "features": 4, "patch": 1} | changes
    model = Pix2Pix(Pix2PixConfig(**options))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return make()


def sources(count, height=16, width=16, channels=1):
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)


# translate


@pytest.mark.parametrize("height, width", [(16, 16), (64, 96), (16, 37)])
def test_an_image_depends_on_its_seed_and_number_alone(model, height, width):
    images = sources(9, height, width)
    whole = translate(model, images, seed=3, first=60)
    assert whole.shape == (9, 3, height, width) and whole.dtype == torch.uint8 and whole.float().std() > 10
    for start, end in ((0, 4), (4, 9), (8, 9)):
        assert torch.equal(translate(model, images[start:end], seed=3, first=60 + start), whole[start:end])
    assert translate(model, images[:0], seed=3).shape == (0, 3, height, width)


def test_seed_and_number_decide_the_noise(model):
    image = sources(1).expand(4, -1, -1, -1)
    drawn = torch.cat([translate(model, image, seed=seed) for seed in (0, 1, 2**64 - 1)])
    assert len(drawn.flatten(1).unique(dim=0)) == 12
    four, one = (translate(model, image[:n], seed=2**64 - 1, first=2**63 - 4) for n in (4, 1))
    assert torch.equal(four[0], one[0])
    plain = [translate(model, image, seed=seed, noise=False) for seed in (0, 1)]
    assert torch.equal(*plain) and len(plain[0].unique(dim=0)) == 1


def test_training_mode_changes_nothing(model):
    images, before = sources(2), translate(model, sources(2) * 0, noise=False)
    expected = [translate(model, images, noise=noise) for noise in (True, False)]
    model.train()
    try:
        state = torch.get_rng_state()
        assert all(torch.equal(translate(model, images, noise=n), e) for n, e in zip((True, False), expected))
        assert model.training and torch.equal(torch.get_rng_state(), state), "torch's generator is left alone"
    finally:
        model.eval()
    assert torch.equal(translate(model, images * 0, noise=False), before)


def test_levels_are_those_of_the_generator():
    model = make(levels=5, channels=1, dropout=0.0)
    images = torch.randint(0, 5, (3, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        values = model.generator(images.float() / 2 - 1)
    expected = (2 * (values + 1)).round()
    translated = translate(model, images)
    assert (translated != expected).float().mean() < 0.01, "but for values within rounding of a boundary"
    assert len(translated.unique()) == 5


@pytest.mark.parametrize(
    ("change", "kind", "fragment"),
    [
        ({"images": sources(2).float()}, TypeError, "images must hold levels as integers; got torch.float32"),
        ({"images": None}, TypeError, "images must be a torch.Tensor; got NoneType"),
        ({"images": sources(2, channels=3)}, ValueError, r"with C=1, h and w at least 16.*; got \(2, 3, 16, 16\)"),
        ({"images": sources(2, 15, 40)}, ValueError, r"at least 16, the stride of the model; got \(2, 1, 15, 40\)"),
        ({"images": sources(2)[0]}, ValueError, r"shape \[n, C, h, w\].*; got \(1, 16, 16\)"),
        ({"seed": -1}, ValueError, "seed must lie in .*; got -1"),
        ({"first": 2**63 - 1}, ValueError, "first . n must be at most"),
        ({"model": PixelCNN(PixelCNNConfig(hidden=2, layers=1, head=2))}, TypeError, "Pix2Pix does; got PixelCNN"),
    ],
)
def test_arguments_that_do_not_fit(model, change, kind, fragment):
    arguments = {"model": model, "images": sources(2)} | change
    with pytest.raises(kind, match=f"^translate: .*{fragment}"):
        translate(arguments.pop("model"), arguments.pop("images"), **arguments)


def test_what_a_model_cannot_take():
    model = make(levels=4)
    with pytest.raises(ValueError, match="translate: images must lie in 0..3; got 4"):
        translate(model, torch.full((1, 1, 16, 16), 4, dtype=torch.uint8))
    with torch.no_grad():
        model.generator.up[0].conv.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="translate: generator.up.0.conv.weight must be finite; got 1 values"):
        translate(model, torch.zeros(1, 1, 16, 16, dtype=torch.uint8))


# folders


def save(path, *shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.RandomState(len(path.name)).randint(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(path)
    return array


@pytest.fixture
def run(model, tmp_path):
    model.save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_file_becomes_a_png_of_its_name(genfast, run, model, tmp_path):
    folder = tmp_path / "in"
    arrays = {
        "a.png": save(folder / "a.png", 16, 16),
        "b.png": save(folder / "b.png", 16, 16),
        "c/a.bmp": save(folder / "c" / "a.bmp", 20, 33, 3),
        "d.png": save(folder / "d.png", 16, 16),
    }
    (folder / "note.txt").write_text("no image")
    code, out, err = genfast("translate", run, folder, "--out", tmp_path / "out", "--seed", 5)
    assert (code, err) == (0, "") and f"{tmp_path}/out: 4 images, " in out
    assert written(tmp_path / "out") == ["a.png", "b.png", "c/a.png", "d.png"], "and nothing temporary"
    for number, (name, array) in enumerate(arrays.items()):
        grey = array if array.ndim == 2 else np.asarray(Image.fromarray(array).convert("L"))
        expected = translate(model, torch.from_numpy(grey.copy())[None, None], seed=5, first=number)[0]
        picture = Image.open((tmp_path / "out" / name).with_suffix(".png"))
        assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), expected.permute(1, 2, 0).numpy()), name
    first = {name: (tmp_path / "out" / name).read_bytes() for name in written(tmp_path / "out")}
    for options, same in ((["--seed", 5], True), (["--seed", 6], False), (["--no-noise"], False)):
        code, _, err = genfast("translate", run, folder, "--out", tmp_path / "out", *options)
        assert code == 2 and "expected a name that is free, or --overwrite" in err
        assert genfast("translate", run, folder, "--out", tmp_path / "out", "--overwrite", *options)[0] == 0
        assert all(((tmp_path / "out" / name).read_bytes() == data) == same for name, data in first.items())


def test_sources_of_colours_and_targets_of_grey(tmp_path):
    model = make(source_channels=3, channels=1, levels=16)
    array = save(tmp_path / "in" / "grey.png", 16, 16)
    assert translate_folder(model, tmp_path / "in", tmp_path / "out", noise=False) == (1, {})
    source = torch.from_numpy(array // 16).expand(1, 3, -1, -1)
    expected = translate(model, source, noise=False)[0, 0].float() * 17
    picture = Image.open(tmp_path / "out" / "grey.png")
    assert picture.mode == "L" and np.array_equal(np.asarray(picture), expected.numpy())


def test_files_that_cannot_be_translated_are_named_and_the_others_are(genfast, run, tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "b.png", "c.png"):
        save(folder / name, 16, 16)
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:100])
    save(folder / "small.png", 15, 40)
    code, out, err = genfast("translate", run, folder, "--out", tmp_path / "out")
    assert code == 0 and ": 2 images, " in out and written(tmp_path / "out") == ["a.png", "c.png"]
    assert out.startswith(f"{folder}[all]: 4 image files, ")
    skipped, broken, small, total = err.splitlines()
    assert skipped == f"{folder}: 1 of 4 files skipped: 1 damaged (--strict names them)"
    assert broken.startswith(f"{folder}/b.png: not readable: ")
    assert small == f"{folder}/small.png: 40x15, smaller than the stride of the model, 16"
    assert total == f"{folder}: 2 of 4 that could not be translated, the others are written; --strict makes it an error"
    code, out, err = genfast("translate", run, folder, "--out", tmp_path / "out", "--strict", "--overwrite")
    assert code == 2 and "expected readable images of at least the model's stride; got 2 of 4" in err.splitlines()[-1]
    for name in ("a.png", "c.png"):
        (folder / name).unlink()
    assert genfast("translate", run, folder, "--out", tmp_path / "out2")[0] == 2, "nothing is translated"


def test_a_split_is_translated(genfast, run, tmp_path):
    for name in ("train/a.png", "val/b.png", "c.png"):
        save(tmp_path / "in" / name, 16, 16)
    for split, names in (("all", ["c.png", "train/a.png", "val/b.png"]), ("valid", ["val/b.png"])):
        code, out, _ = genfast("translate", run, tmp_path / "in", "--out", tmp_path / split, "--split", split)
        assert code == 0 and written(tmp_path / split) == names and f"in[{split}]: {len(names)} image files" in out


def test_folders_that_are_refused(genfast, run, tmp_path):
    def refused(*argv):
        code, out, err = genfast("translate", run, *argv)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err

    folder = tmp_path / "in"
    assert "in: expected a folder of images; got none" in refused(folder, "--out", tmp_path / "out")
    folder.mkdir()
    assert "expected image files" in refused(folder, "--out", tmp_path / "out")
    save(folder / "a.png", 16, 16)
    for inside in (folder, folder / "out"):
        assert "expected a folder outside of" in refused(folder, "--out", inside)
    (folder / "in").mkdir()
    save(folder / "in" / "a.png", 16, 16)  # becomes a.png of the folder above: the source
    assert "expected a folder outside of" in refused(folder, "--out", folder.parent)
    (folder / "in" / "a.png").unlink()
    save(folder / "a.bmp", 16, 16)
    assert "expected one file of a name; got a.bmp and a.png" in refused(folder, "--out", tmp_path / "out")
    assert "seed must lie in" in refused(folder, "--out", tmp_path / "out", "--seed", -1)
    assert not (tmp_path / "out").exists()
    PixelCNN(PixelCNNConfig(hidden=2, layers=1, head=2)).save_pretrained(tmp_path / "pixelcnn")
    code, _, err = genfast("translate", tmp_path / "pixelcnn", folder, "--out", tmp_path / "out")
    assert code == 2 and "model must translate images, as genfast.models.Pix2Pix does; got PixelCNN" in err


def test_train_resume_and_translate(genfast, tmp_path):
    """From a paired folder to a translated one; a training that was stopped ends at the same weights."""
    for i in range(20):
        save(tmp_path / "pairs" / "A" / f"{i}.png", 14, 12)
        save(tmp_path / "pairs" / "B" / f"{i}.png", 14, 12, 3)
    train = ["train", "pix2pix", "--data", f"pairs:{tmp_path}/pairs", "--features", 2, "--patch", 1, "--batch", 3]
    train += ["--steps", 4, "--device", "cpu", "--grid-every", 100]
    assert genfast(*train, "--out", tmp_path / "a")[0] == 0
    code, _, err = genfast(*train, "--out", tmp_path / "b", "--minutes", 1e-9)
    assert code == 0 and "stopped at step 1 of 4" in err
    assert genfast("train", "pix2pix", "--out", tmp_path / "b", "--resume")[0] == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    sheet = Image.open(tmp_path / "a" / "samples" / "step-0000004.png")
    assert sheet.mode == "RGB" and sheet.width >= 3 * 12
    assert genfast("translate", tmp_path / "a", tmp_path / "pairs" / "A", "--out", tmp_path / "out")[0] == 0
    assert len(written(tmp_path / "out")) == 20


@pytest.mark.parametrize(
    ("model", "data", "fragment"),
    [("pix2pix", "digits", "expected pairs for a pix2pix"), ("vae", "digit-outlines", "expected images for a vae")],
)
def test_data_of_the_other_kind(genfast, tmp_path, model, data, fragment):
    code, _, err = genfast("train", model, "--data", data, "--out", tmp_path / "r")
    assert code == 2 and err.count("\n") == 1 and f"{data}[train]: {fragment}" in err


@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate", "traverse", "embed", "denoise", "inpaint"])
def test_other_commands_say_what_they_need(genfast, tmp_path, command):
    """A pix2pix has no images of its own to draw, and no likelihood."""
    make(channels=1).save_pretrained(tmp_path / "model")
    more = {"denoise": ["--noise", "gaussian:0.1"], "inpaint": ["--mask", "lower"]}.get(command, [])
    data = [] if command == "sample" else ["--data", "digit-outlines", "--size", 16]
    out = tmp_path / ("o.npz" if command == "embed" else "o.png")
    code, _, err = genfast(command, tmp_path / "model", *data, *more, "--out", out)
    assert code == 2 and err.count("\n") == 1 and err.startswith("genfast: error: "), err
    assert "got pix2pix" in err.lower() and not out.exists()


def test_evaluate_says_how_far_translations_are_from_the_truth(genfast, tmp_path):
    model = make(channels=1)
    model.save_pretrained(tmp_path)
    command = ["evaluate", tmp_path, "--data", "digit-outlines", "--size", 16, "--images", 30, "--seed", 2]
    code, out, err = genfast(*command)
    lines = out.splitlines()
    assert (code, err) == (0, "") and lines[
        0
    ] == "digit-outlines[test], the first 30: 30 pairs of 16x16, grey and grey, 256 levels"
    rows = {line[:20].strip(): [float(x) for x in line[20:].split()] for line in lines[2:]}
    train, held_out = (load("digit-outlines", split=split, size=16) for split in ("train", "test"))
    source, truth = held_out.source[:30], held_out.target[:30].numpy() / 255
    guesses = {
        "model": translate(model, source, seed=2).numpy() / 255,
        "model, no noise": translate(model, source, noise=False).numpy() / 255,
        "mean target": train.target.numpy().mean(0, keepdims=True) / 255,
        "source as it is": source.numpy() / 255,
    }
    assert list(rows) == list(guesses)
    for name, images in guesses.items():
        error = 100 * np.abs(images - truth).mean()
        decibels = -10 * np.log10(np.square(images - truth).mean())
        assert rows[name] == pytest.approx([error, decibels], abs=0.006), name
