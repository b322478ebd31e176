"""Files that are damaged, huge, or made to mislead: one clear error, in little time and memory."""

import json
import os
import random
import resource
import signal
import struct
import time
import zlib
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import load
from support import file_readers, fuzz_files
from support.file_readers import MODELS, tiny
from support.refusals import Runs, refused

from genfast import models, tasks
from genfast._text import shown
from genfast.io import DEEPEST, MOST_JSON, read_json
from genfast.tasks._codes import CHECKSUM, HEADER, LZMA, PART
from genfast.tasks.shards import sample_shards
from genfast.train.checkpoint import load_checkpoint, save_checkpoint
from genfast.train.metrics_log import read_metrics
from genfast.train.run_folder import load_run


@pytest.fixture(autouse=True)
def _little_time_and_memory():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024, "KiB"
    assert time.process_time() - start < 20


# Damaged files: a few of the many that `make fuzz` makes.


@pytest.mark.parametrize("name", [reader.name for reader in fuzz_files.READERS])
def test_damaged_files_are_read_or_refused(name, tmp_path):
    reader = next(reader for reader in fuzz_files.READERS if reader.name == name)(tmp_path)
    counts, failures = fuzz_files.batch(reader, list(range(8000, 8012)))
    assert sum(counts.values()) == 12 and not failures, failures


def test_the_harness_sees_every_failure(tmp_path):
    class Bad(file_readers.Reader):
        name = "bad"

        def make(self):
            self.seeds = {"a": b"x" * 100}

        def read(self, path):
            number = random.Random(str(path)).random() and self.number.pop()
            if number == 0:
                os.kill(os.getpid(), signal.SIGSEGV)
            if number == 1:
                raise KeyError("step")
            if number == 2:
                raise AssertionError
            if number == 3:
                raise ValueError("a\nb: expected c; got d")
            if number == 4:
                self.held = np.ones(60 * 2**20)
            raise ValueError("a: expected c; got d")

    reader = Bad(tmp_path)
    for number, kind in ((0, "crash"), (1, "form"), (2, "traceback"), (3, "form"), (4, "memory"), (5, "refused")):
        reader.number = [number]
        counts, failures = fuzz_files.batch(reader, [1])
        assert dict(counts) == {kind: 1} and len(failures) == (kind != "refused"), number


# What is no file.


def special(path, kind):
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "none":
        path.symlink_to(kind)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("everything"))


@pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero", "/dev/tty", "/proc/self/mem", "none"])
def test_what_is_no_file_is_not_read(kind, runs, tmp_path):
    runs.prepare("pixelcnn/")
    run = runs.folder / "pixelcnn"
    for name, call in (
        ("config.json", lambda: load_run(run)),
        ("model/config.json", lambda: models.load(run / "model")),
        ("model/model.safetensors", lambda: models.load(run / "model")),
        ("checkpoint/state.safetensors", lambda: load_checkpoint(run)),
    ):
        special(run / name, kind)
        refused(call, name)
        runs.prepare("pixelcnn/")
    if kind != "none":
        special(run / "metrics.jsonl", kind)
        refused(lambda: read_metrics(run / "metrics.jsonl"), "metrics.jsonl")
        for name in ("manifest.json", "samples-00000.npz"):
            sample_shards(tiny("pixelcnn"), 2, tmp_path / name, backend="torch")
            special(tmp_path / name / name, kind)
            refused(lambda name=name: sample_shards(tiny("pixelcnn"), 2, tmp_path / name, backend="torch"), name)
    runs.prepare("pixelcnn/")


# JSON.


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("[" * 100_000, "got more than 32 levels of brackets"),
        ('{"a": ' * 33 + "1" + "}" * 33, "got more than 32 levels"),
        ('{"a": NaN}', "got NaN, a number that is not finite"),
        ('{"a": -Infinity}', "got -Infinity, a number"),
        ('{"a": 1e999}', "got 1e999, a number that is not finite"),
        ('{"a": ' + "9" * 5000 + "}", "a whole number of more than 64 bits"),
        ('{"a": 1, "b": 2, "a": 1}', "got 'a' twice in an object"),
        ('{"a\\nb\\u202e": 1, "a\\nb\\u202e": 1}', r"got 'a\nb\u202e' twice"),
        ("[]", "expected a JSON object in"),
        ('{"a": "\xff"}', "got 'utf-8' codec can't decode"),
        ('{"a": 1', "got Expecting ',' delimiter"),
        ("", "got Expecting value"),
        ('{"a": "' + "x" * MOST_JSON + '"}', f"of at most {MOST_JSON} bytes; got more"),
    ],
)
def test_json_that_is_refused(tmp_path, text, got):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    assert got in refused(lambda: read_json(path, "test"), "test: expected ")


def test_json_that_is_read(tmp_path):
    value = {
        "a": [1, -(2**63), 2**64 - 1, 1e308, None, True, ']}[{"\n\u202e'],
        "deep": json.loads("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)),
    }
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json", "test") == value


def test_text_is_shown_on_one_line():
    assert shown("a\nb\x1b[31m\u202eé\udcff 猫") == r"a\nb\x1b[31m\u202eé\udcff 猫"
    assert len(shown("x" * 10**6)) < 510 and shown(3) == "3"


def test_messages_on_the_terminal_have_no_control_characters(genfast, tmp_path):
    folder = tmp_path / "a\nb\x1b[31m\u202e"
    folder.mkdir()
    for words in (
        ["sample", folder, "-n", 1, "--out", tmp_path / "x.png"],
        ["train", "vae", "--data", folder / "no.npz", "--out", tmp_path / "run"],
        ["evaluate", folder],
        ["decompress", folder / "x.gfz", "--out", tmp_path / "x.png"],
        ["sample", folder, "-n", "a\nb\x1b[31m", "--out", tmp_path / "x.png"],
    ):
        code, out, err = genfast(*words)
        assert code == 2 and err.count("\n") == 1 and err[:-1].isprintable() and r"a\nb\x1b[31m" in err, (err, out)


# Models.


def saved(tmp_path, kind):
    tiny(kind).save_pretrained(tmp_path / kind)
    return tmp_path / kind, json.loads((tmp_path / kind / "config.json").read_text())


@pytest.mark.parametrize("kind", MODELS)
def test_a_config_asks_for_no_more_than_its_weights_hold(kind, tmp_path):
    """Every number of a config at its bound, and far beyond."""
    folder, config = saved(tmp_path, kind)
    loaded = set()
    for field in fields(models.MODELS[kind][1]):
        bounds = field.metadata
        if type(config[field.name]) is not int or "levels" in field.name:
            continue
        assert bounds.get("le") is not None, f"{field.name} has no bound"
        for value in (bounds["le"], bounds["le"] - 1, bounds["le"] // 2, bounds["le"] + 1, 3 * 10**10, 10**18):
            (folder / "config.json").write_text(json.dumps(config | {field.name: value}))
            begun = time.perf_counter()
            try:
                models.load(folder)
                loaded.add(field.name)
            except (ValueError, TypeError) as error:
                assert fuzz_files.FORM.fullmatch(str(error)), error
            assert time.perf_counter() - begun < 5
    sizes_of_no_tensor = {"examples", "samples", "resampled", "discriminator_steps", "height", "width"}
    unused_here = {"resolutions", "dim", "mixtures", "rate", "cycle"}
    unused_here |= {"channels"} if kind in ("char-rnn", "wavenet") else set()  # a sequence has one
    assert loaded <= sizes_of_no_tensor | unused_here, loaded


@pytest.mark.parametrize(
    ("kind", "change", "fragments"),
    [
        ("pixelcnn", {"layers": 20_000}, ["layers must be at most 1000; got 20000"]),
        ("pixelcnn", {"layers": 900}, ["expected the settings of a pixelcnn that 14 tensors with", "larger one"]),
        ("pixelcnn", {"height": 65535, "width": 65535}, ["must be at most 67108864 values; got 4294836225"]),
        ("vae", {"hidden": 20_000}, ["expected the settings of a vae that 28 tensors with", "larger one"]),
        ("vae", {"hidden": 65536}, ["larger one"]),
        ("vq-vae", {"downsampling": 30_000_000_000}, ["downsampling must be at most 16; got 30000000000"]),
        ("vq-vae", {"downsampling": 3e10}, ["downsampling must be an int; got 30000000000.0"]),
        ("vq-vae", {"codes": 65536, "features": 65536, "prior": None}, ["larger one"]),
        ("vq-vae", {"prior": {"model": "pixelrnn", "hidden": 10**9}}, ["hidden must be at most 65536"]),
        ("vq-vae", {"prior": {"model": ["pixelrnn"]}}, ["prior must be a pixelcnn"]),
        ("dcgan", {"virtual_batch_norm": True, "latent": 65536}, ["larger one"]),
        ("vae", {"dropout": "0.1"}, ["dropout must be a number; got '0.1'"]),
        ("vae", {"likelihood": ["auto"]}, ["likelihood must be one of", "got ['auto']"]),
        ("vae", {"network": None}, ["network must be one of conv, mlp; got None"]),
        ("sngan", {"kernels": True}, ["kernels must be an int; got True"]),
        ("vae", {"a\nb": 1}, [r"expected fields of VAEConfig; got a\nb"]),
        ("vae", {"model": 5}, ["got no text as its 'model'"]),
        ("vae", {"model": "x" * 5000}, ["expected a model of", "xxx...xxx"]),
    ],
    ids=str,
)
def test_configs_that_are_refused(kind, change, fragments, tmp_path):
    folder, config = saved(tmp_path, kind)
    (folder / "config.json").write_text(json.dumps(config | change))
    refused(lambda: models.load(folder), str(folder), *fragments)


def header_of(entry, body=b"", **more):
    text = json.dumps({"a": entry, **more}).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (struct.pack("<Q", 2**63), "got a header of 9223372036854775808 bytes in a file of 8"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "got a header with more than 32 levels"),
        (header_of({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}), "which need 4398046511104"),
        (header_of({"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}), "in the bytes [0, 0]"),
        (header_of({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, b"1234"), "got [-1] for a"),
        (header_of({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, b"1234"), "got [True] for a"),
        (header_of({"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}, b"1"), "got dtype F4 of a, none of BOOL"),
        (header_of({"dtype": "F32", "shape": [1] * 5000, "data_offsets": [0, 4]}, b"1234"), "got a of float32 [1, 1"),
        (header_of({"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}, b"12"), "got a at byte 1 instead of 0"),
        (header_of(5), "got no dtype, shape and data_offsets of a"),
        (header_of({}, __metadata__={"a": 1}), "got metadata that are no texts"),
        (
            header_of({"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, b"1" * 9),
            "got 9 bytes of tensors, which need 1",
        ),
    ],
)
def test_weights_whose_header_lies(data, got, tmp_path):
    folder, _ = saved(tmp_path, "vae")
    (folder / "model.safetensors").write_bytes(data)
    assert got in refused(lambda: models.load(folder), "model.safetensors: expected a whole safetensors file; got ")


def test_more_weights_than_half_of_the_memory(tmp_path):
    """A sparse file, which takes no disk."""
    folder, config = saved(tmp_path, "vae")
    (folder / "config.json").write_text(json.dumps(config | {"hidden": 16384}))
    data = header_of({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]})
    with open(folder / "model.safetensors", "wb") as file:
        file.write(data)
        file.truncate(len(data) + 2**42)
    refused(lambda: models.load(folder), "model.safetensors: expected", "half of the memory")


def test_tensors_are_read_as_safetensors_reads_them(tmp_path):
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    tensors = {str(kind): torch.randn(3, 0 if kind == torch.int64 else 2).to(kind) for kind in kinds}
    tensors["scalar"] = torch.tensor(1.5)
    save_checkpoint(tmp_path, tensors, {"step": 1})
    read, state = load_checkpoint(tmp_path)
    assert state == {"step": 1} and read.keys() == tensors.keys()
    for name, tensor in load((tmp_path / "checkpoint/state.safetensors").read_bytes()).items():
        assert tensor.dtype == read[name].dtype and torch.equal(tensor, read[name]), name


# Samples and compressed images.


def test_a_damaged_shard_is_made_again(tmp_path):
    model = tiny("gated-pixelcnn")
    draw = lambda: sample_shards(model, 4, tmp_path, shard=2, labels=1, backend="torch")  # noqa: E731
    assert draw() == 4
    path, other = tmp_path / "samples-00000.npz", tmp_path / "samples-00001.npz"
    whole, rng = path.read_bytes(), random.Random(0)
    assert np.load(path)["images"].shape == (2, 1, 8, 8)
    for _ in range(20):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert draw() == 2 and path.read_bytes() == whole
    for data in (b"", whole[:-1], whole + b"x", other.read_bytes()):
        path.write_bytes(data)
        assert draw() == 2 and path.read_bytes() == whole
    assert draw() == 0


MODEL = file_readers.tiny("vq-vae")


def compressed(count, height, width, body, packing):
    header = HEADER.pack(b"GFVQ", 1, packing, count, 1, height, width, 1, MODEL.decoder_digest())
    return header + body + CHECKSUM.pack(zlib.crc32(header + body))


def zeros(size, packing):
    import lzma

    if packing >= 4:
        return lzma.compress(bytes(size), lzma.FORMAT_RAW, filters=LZMA)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(size)) + packer.flush()


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((1, 8192, 8192), "images that take at most max_bytes="),
        ((1, 65535, 65535), "images that take at most max_bytes="),
        ((2**31 - 1, 1, 1), "expected "),
        ((2**32 - 1, 65535, 65535), "images that take at most max_bytes="),
        ((2**24, 2, 2), "bytes of codes; got"),
        ((0, 0, 5), "expected images of at least 1x1 pixels; got (0, 1, 0, 5)"),
    ],
)
@pytest.mark.parametrize("packing", [0, 2, 3, 4, 5])
def test_a_small_file_of_large_images(sizes, text, packing):
    data = compressed(*sizes, zeros(2**21, packing) if packing else bytes(2000), packing)
    assert len(data) < 4000
    refused(lambda: tasks.decompress(data, MODEL, max_bytes=2**28), text)


def test_large_images_within_the_budget():
    data = compressed(40_000, 8, 8, zeros(40_000 * 16 * 2 // 8, 4), 4)
    assert len(data) < 400 and 40_000 * 4 > PART // 8
    images = tasks.decompress(data, MODEL)
    assert images.shape == (40_000, 1, 8, 8) and bool((images == images[0]).all())
    refused(lambda: tasks.decompress(data, MODEL, max_bytes=10**6), "max_bytes=1000000 to decode; got (40000, 1, 8, 8)")
