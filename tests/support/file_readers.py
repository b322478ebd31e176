"""A whole file of every kind that genfast reads, and how it is damaged and read again; see fuzz_files."""

import io
import random
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from support import bench_reports, mutations
from support.files import idx_bytes, npz_bytes

from genfast import metrics, models
from genfast.audit import read_column
from genfast.benchmarks import Report, differences
from genfast.cli.inpaint import mask_of
from genfast.data import ImageData, load
from genfast.io import json_bytes
from genfast.tasks.shards import sample_shards
from genfast.train import AdversarialConfig, TrainConfig, fit, fit_adversarial
from genfast.train.checkpoint import checksum
from genfast.train.metrics_log import MetricsLog
from genfast.train.quality import given_features, run_classifier
from genfast.train.run_data import data_of
from genfast.train.run_folder import load_run, open_model
from genfast.train.standing import monitored, pooled
from genfast.train.start import start

READERS = []
SIDE = 8
GREY = np.random.RandomState(0).randint(0, 2, (40, SIDE, SIDE), dtype=np.uint8)


def image_data() -> ImageData:
    return ImageData(torch.from_numpy(GREY)[:, None], 2, "dots", labels=torch.arange(40) % 2, classes=2)


def register(cls):
    READERS.append(cls)
    return cls


class Reader:
    """Whole files `seeds` {path below the folder: bytes}; one of them, and `damage` of it, is written at a time.

    `read` returns the bytes of the images that it gives.
    """

    name: str
    weight = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.seeds: dict[str, bytes] = {}
        self.make()

    def make(self) -> None:
        raise NotImplementedError

    def mutate(self, name: str, data: bytes, rng: random.Random) -> bytes:
        return mutations.damaged(data, rng)

    def damage(self, rng: random.Random) -> Path:
        name = rng.choice(sorted(self.seeds))
        self.prepare(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.mutate(name, self.seeds[name], rng))
        return path

    def prepare(self, name: str) -> None:
        """What stands beside the damaged file is whole again."""

    def read(self, path: Path) -> int | None:
        raise NotImplementedError


def values(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


MODELS = {
    "pixelcnn": {"hidden": 2, "layers": 1, "head": 2},
    "gated-pixelcnn": {"hidden": 2, "layers": 1, "head": 2, "classes": 2},
    "pixelcnn++": {"filters": 2, "blocks": 1, "resolutions": 2},
    "pixelrnn": {"hidden": 2, "layers": 1, "head": 2},
    "vae": {"latent": 2, "hidden": 2},
    "iwae": {"latent": 2, "hidden": 2, "network": "mlp"},
    "vq-vae": {"codes": 4, "features": 2, "hidden": 4, "layers": 1, "downsampling": 1},
    "dcgan": {"latent": 2, "features": 2},
    "sngan": {"latent": 2, "features": 2, "network": "strided", "kernels": 2},
    "wgan-gp": {"latent": 2, "features": 2},
    "projection-gan": {"latent": 2, "features": 2, "classes": 2},
    "r3gan": {"latent": 2, "features": 4, "group": 2},
    "char-rnn": {"height": 1, "hidden": 2},
    "wavenet": {"height": 1, "hidden": 2, "layers": 2, "head": 2},
    "pix2pix": {"features": 2, "patch": 1},
}


def tiny(kind: str):
    model = models.build(kind, **{"height": SIDE, "width": SIDE, "levels": 2} | MODELS[kind]).eval()
    if kind == "vq-vae":
        model.set_prior(models.build("pixelcnn", height=4, width=4, levels=4, hidden=2, layers=1, head=2))
    return model


class ModelFiles(Reader):
    def make(self) -> None:
        self.whole = {}
        for kind in MODELS:
            tiny(kind).save_pretrained(self.folder / kind)
            for file in ("config.json", "model.safetensors"):
                self.whole[f"{kind}/{file}"] = (self.folder / kind / file).read_bytes()
        self.seeds = {name: data for name, data in self.whole.items() if name.endswith(self.suffix)}

    def read(self, path: Path) -> None:
        models.load(path.parent)


@register
class ModelConfig(ModelFiles):
    name, suffix = "model config", "config.json"
    weight = 2.0

    def mutate(self, name, data, rng):
        return mutations.mutated_json(data, rng)


@register
class ModelWeights(ModelFiles):
    name, suffix = "model weights", "model.safetensors"
    weight = 2.0

    def mutate(self, name, data, rng):
        return mutations.damaged(data, rng) if rng.random() < 0.4 else mutations.mutated_tensors(data, rng)


TRAIN = {"batch": 8, "log_every": 1, "save_every": 2, "device": "cpu"}


class RunFiles(Reader):
    """A finished run of an autoregressive model and one of a GAN."""

    def make(self) -> None:
        np.savez(self.folder / "data.npz", train=GREY, valid=GREY[:10], levels=2)
        source = {
            "data": str(self.folder / "data.npz"),
            "data_root": None,
            "strict": None,
            "size": None,
            "levels": None,
        }
        self.whole = {}
        for kind, more in (("pixelcnn", {}), ("dcgan", {"historical": 0.1})):
            run = self.folder / kind
            run.mkdir()
            options = {"model_options": MODELS[kind], "train_options": {"steps": 2, **TRAIN, **more}}
            start(run, model=kind, **options, data_options=source)
            for path in sorted(run.rglob("*")):
                if path.is_file():
                    self.whole[str(path.relative_to(self.folder))] = path.read_bytes()
        self.seeds = {name: data for name, data in self.whole.items() if self.is_seed(name)}
        self.none = dict.fromkeys(source)

    def prepare(self, name: str) -> None:
        run = name.split("/")[0]
        shutil.rmtree(self.folder / run)
        for other, data in self.whole.items():
            if other.startswith(f"{run}/"):
                (self.folder / other).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / other).write_bytes(data)

    def resume(self, run: Path, **more) -> None:
        start(run, model=run.name, model_options={}, train_options={}, data_options=self.none, resume=True, **more)


MOST_STEPS = 50


class Begun(Exception):
    """A training has begun."""


@contextmanager
def reached():
    """A context that a training leaves when it begins."""

    def bar(steps, done):
        raise Begun

    try:
        yield bar
    except Begun:
        pass


@register
class RunConfig(RunFiles):
    name = "run config"

    def is_seed(self, name):
        return name.count("/") == 1 and name.endswith("config.json")

    def mutate(self, name, data, rng):
        return mutations.mutated_json(data, rng)

    def read(self, path):
        settings = load_run(path.parent)
        data_of(path.parent, self.none)
        open_model(path.parent)
        steps = settings["train"].get("steps")
        # A run of a million steps is read as well as another, and resumed as far as to its first step alone.
        long = isinstance(steps, (int, float)) and steps > MOST_STEPS
        with reached() as bar:
            self.resume(path.parent, **({"bar": bar} if long else {}))


def resigned(tensors, metadata):
    if "state" not in metadata:
        return metadata
    return metadata | {"crc32": checksum(tensors, metadata["state"])}


@register
class Checkpoint(RunFiles):
    name = "checkpoint"
    weight = 1.5

    def is_seed(self, name):
        return name.endswith("state.safetensors")

    def mutate(self, name, data, rng):
        if rng.random() < 0.3:
            return mutations.damaged(data, rng)
        return mutations.mutated_tensors(data, rng, resigned)

    def read(self, path):
        run = path.parents[1]
        settings = load_run(run)
        torch.manual_seed(0)
        model = models.build(settings["model"], **settings["model_config"])
        data, options = image_data(), {"steps": 2, **TRAIN}
        data = ImageData(data.images, 2, "dots")
        valid = ImageData(data.images[:10], 2, "dots")
        if run.name == "dcgan":
            fit_adversarial(model, data, valid, AdversarialConfig(**options, historical=0.1), run, resume=True)
        else:
            fit(model, data, valid, TrainConfig(**options), run, resume=True)


@register
class Metrics(RunFiles):
    name = "metrics"

    def is_seed(self, name):
        return name.endswith("metrics.jsonl")

    def mutate(self, name, data, rng):
        return mutations.damaged(data, rng) if rng.random() < 0.3 else mutations.mutated_lines(data, rng)

    def read(self, path):
        pooled(monitored(path.parent))
        MetricsLog(path).forget_after(1)


@register
class Shards(Reader):
    """A damaged shard must be made again as it was."""

    name = "shards"

    def make(self):
        torch.manual_seed(0)
        self.model = models.build("gated-pixelcnn", height=2, width=2, levels=2, **MODELS["gated-pixelcnn"]).eval()
        self.draw()
        self.seeds = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}

    def draw(self):
        sample_shards(self.model, 6, self.folder, shard=3, labels=1, backend="torch")

    def prepare(self, name):
        for other, data in self.seeds.items():
            (self.folder / other).write_bytes(data)

    def mutate(self, name, data, rng):
        if name.endswith(".json"):
            return mutations.mutated_json(data, rng)
        return mutations.damaged(data, rng) if rng.random() < 0.7 else mutations.mutated_npz(data, rng)

    def read(self, path):
        self.draw()
        for name, data in self.seeds.items():
            if name.endswith(".npz") and (self.folder / name).read_bytes() != data:
                raise AssertionError(f"{name} was kept damaged")


@register
class Classifier(Reader):
    name = "classifier"
    weight = 0.5

    def make(self):
        self.data = image_data()
        run_classifier(self.data, self.data, steps=2, folder=self.folder)
        self.seeds = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def prepare(self, name):
        for other, data in self.seeds.items():
            (self.folder / other).write_bytes(data)

    def mutate(self, name, data, rng):
        return (mutations.mutated_json if name.endswith(".json") else mutations.mutated_tensors)(data, rng)

    def read(self, path):
        classifier, accuracy = run_classifier(self.data, self.data, steps=2, folder=self.folder)
        if not (isinstance(classifier, metrics.Classifier) and 0 <= accuracy <= 1):
            raise AssertionError(f"accuracy {accuracy}")


@register
class Npz(Reader):
    name = "npz"
    weight = 2.0

    def make(self):
        labels = np.arange(40) % 3
        parts = {"train": GREY, "valid": GREY[:8], "test": GREY[8:20]}
        self.seeds = {
            "splits.npz": npz_bytes(**parts, train_labels=labels, valid_labels=labels[:8], test_labels=labels[8:20]),
            "one.npz": npz_bytes(images=GREY, labels=labels, levels=np.int64(2)),
            "mask.npz": npz_bytes(mask=np.eye(SIDE, dtype=bool)),
            "features.npz": npz_bytes(features=np.random.RandomState(0).randn(20, 4)),
        }

    def mutate(self, name, data, rng):
        return mutations.damaged(data, rng) if rng.random() < 0.4 else mutations.mutated_npz(data, rng)

    def read(self, path):
        if path.name == "mask.npz":
            return values([mask_of(str(path), torch.from_numpy(GREY)[:, None])])
        if path.name == "features.npz":
            return values(given_features(path, path))
        data = load(str(path), split="train")
        return values([data.images, data.labels])


@register
class Idx(Reader):
    name = "idx"

    def make(self):
        grey = np.random.RandomState(0).randint(0, 256, (60, 28, 28), dtype=np.uint8)
        files = {"train-images-idx3-ubyte": grey, "t10k-images-idx3-ubyte": grey[:9]}
        files["train-labels-idx1-ubyte"] = (np.arange(60) % 10).astype(np.uint8)
        self.seeds = {name: idx_bytes(array) for name, array in files.items()}

    def prepare(self, name):
        for other, data in self.seeds.items():
            (self.folder / other).write_bytes(data)

    def mutate(self, name, data, rng):
        return mutations.mutated_idx(data, rng)

    def read(self, path):
        size = 0
        for split in ("train", "test"):
            data = load("mnist", root=self.folder, split=split)
            size += values([data.images, data.labels])
        return size


def pictures() -> dict[str, bytes]:
    """A picture of each kind."""
    colour = Image.fromarray(np.random.RandomState(0).randint(0, 256, (12, 10, 3), dtype=np.uint8))
    files = {}
    kinds = {"png": [colour, colour.convert("P"), colour.convert("LA"), colour.convert("1")], "bmp": [colour]}
    kinds |= {"jpg": [colour, colour.convert("L")], "gif": [colour], "webp": [colour], "ppm": [colour]}
    deep = Image.fromarray(np.arange(120, dtype=np.uint16).reshape(12, 10) * 500)
    kinds |= {"tif": [colour, deep, colour.convert("F")], "pgm": [colour.convert("L")]}
    for suffix, images in kinds.items():
        for index, image in enumerate(images):
            buffer = io.BytesIO()
            name = {"jpg": "jpeg", "tif": "tiff", "pgm": "ppm"}.get(suffix, suffix)
            image.save(buffer, name)
            files[f"{index}.{suffix}"] = buffer.getvalue()
    return files


@register
class Folder(Reader):
    name = "image folder"
    weight = 2.0

    def make(self):
        self.seeds = pictures()
        (self.folder / "whole").mkdir()
        for index in range(12):
            (self.folder / "whole" / f"{index}.png").write_bytes(self.seeds["0.png"])

    def damage(self, rng):
        for path in self.folder.glob("whole/z*"):
            path.unlink()
        name = rng.choice(sorted(self.seeds))
        (self.folder / "whole" / f"z{name}").write_bytes(mutations.damaged(self.seeds[name], rng))
        self.strict = rng.random() < 0.5
        return self.folder / "whole"

    def read(self, path):
        return values([load(str(path), split="train", strict=self.strict).images])


@register
class Pairs(Reader):
    name = "pairs"

    def make(self):
        self.seeds = pictures()
        for index in range(12):
            for side in "AB":
                (self.folder / "whole" / side).mkdir(parents=True, exist_ok=True)
                (self.folder / "whole" / side / f"{index}.png").write_bytes(self.seeds["0.png"])

    def damage(self, rng):
        for path in self.folder.glob("whole/*/z*"):
            path.unlink()
        name = rng.choice(sorted(self.seeds))
        for side in "AB":
            data = mutations.damaged(self.seeds[name], rng) if side == "A" else self.seeds[name]
            (self.folder / "whole" / side / f"z{name}").write_bytes(data)
        return self.folder / "whole"

    def read(self, path):
        data = load(f"pairs:{path}", split="train")
        return values([data.source, data.target])


@register
class BenchReport(Reader):
    name = "bench report"

    def make(self):
        made = bench_reports.report(bench_reports.row(), bench_reports.row("b", compiled=3.0, images=4))
        self.seeds = {"old.json": json_bytes(made.as_json())}

    def mutate(self, name, data, rng):
        return mutations.mutated_json(data, rng)

    def read(self, path):
        made = Report.read(path)
        for change in differences(made, made):
            if change.called:
                raise AssertionError(f"{change.row.key} differs from itself")


@register
class Columns(Reader):
    name = "columns"

    def make(self):
        rows = "".join(f'{i},"a, {i % 3}",{i / 7}\n' for i in range(40))
        self.seeds = {"about.csv": b"\xef\xbb\xbf" + f"index,site,age\n{rows}".encode()}

    def read(self, path):
        return values([read_column(path, name, image_data()).codes for name in ("site", "age")])
