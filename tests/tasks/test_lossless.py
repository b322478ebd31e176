"""Lossless files: there and back, each error with its own message, and what an attacker makes of one."""

import copy
import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine.strangers import STRANGERS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.anyone import quietly
from support.lossless_files import FIELDS, Parts, by_the_page, coded_sizes, fixed, leb128, mutated
from support.mutations import damaged
from support.refusals import refused

from genfast import models
from genfast._native import backends
from genfast.engine.coding import Coder
from genfast.engine.engine import Engine
from genfast.tasks import compress, decompress, file_info
from genfast.tasks._gfz import CRC, FIXED, MOST_SIZE, read_sizes, write_sizes

SMALL = {"height": 4, "width": 5, "hidden": 4, "layers": 1, "head": 4}
KINDS = {
    "bits": ("pixelcnn", SMALL | {"levels": 2}),
    "labels": ("gated-pixelcnn", SMALL | {"levels": 5, "classes": 3}),
    "colours": ("pixelcnn++", {"channels": 3, "height": 4, "width": 4, "filters": 4, "blocks": 1, "resolutions": 2}),
    "rnn": ("pixelrnn", SMALL | {"levels": 256}),
}


def fixed_model(name, **changes):
    kind, options = KINDS[name]
    return fixed(models.build(kind, **(options | changes)))


def images_of(model, n, size=None):
    """Integers alone: the same on every machine."""
    spec = model.spec
    shape = (n, spec.channels, *(size or (spec.height, spec.width)))
    count = int(np.prod(shape))
    values = np.arange(1, count + 1, dtype=np.int64) * 2654435761 % 2**32 >> 16
    return torch.from_numpy(values % spec.levels).to(torch.uint8).reshape(shape)


def labels_of(model, n):
    return torch.arange(n, dtype=torch.int64) * 7 % 5 % model.spec.classes if model.spec.classes else None


MODELS = {name: fixed_model(name) for name in KINDS}
IMAGES = {name: images_of(model, 7) for name, model in MODELS.items()}
FILES = {
    name: compress(model, IMAGES[name], labels=labels_of(model, 7), block=3, with_model=name == "rnn")
    for name, model in MODELS.items()
}


# There and back.


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [None, (9, 11), (3, 2), (4, 6)])
@pytest.mark.parametrize("with_model", [False, True])
def test_a_file_and_back(name, size, with_model):
    model = MODELS[name]
    images, labels = images_of(model, 7, size), labels_of(model, 7)
    for block in (3, 256):
        data = compress(model, images, labels=labels, block=block, with_model=with_model)
        reader = None if with_model else model
        assert torch.equal(decompress(data, reader), images)
        assert torch.equal(decompress(memoryview(data), reader), images)
        for number in range(-(-7 // block)):
            assert torch.equal(decompress(data, reader, block=number), images[number * block :][:block])
        info = file_info(data)
        assert (info.count, info.height, info.width, info.size) == (7, *images.shape[2:], len(data))
        assert (info.block, info.blocks, info.model_size > 0) == (block, -(-7 // block), with_model)
    nothing = compress(model, images[:0], labels=None if labels is None else labels[:0], with_model=with_model)
    assert torch.equal(decompress(nothing, reader), images[:0])


def test_progress_counts_images():
    done = []
    compress(MODELS["bits"], IMAGES["bits"], block=3, progress=done.append)
    decompress(FILES["bits"], MODELS["bits"], progress=done.append)
    assert done == [3, 3, 1, 3, 3, 1]


def test_images_of_any_integers_and_one_label_for_all():
    model, images = MODELS["labels"], IMAGES["labels"]
    data = compress(model, images, labels=2)
    assert data == compress(model, images.int(), labels=torch.full((7,), 2))
    assert torch.equal(decompress(data, model), images)


@pytest.mark.parametrize("name", ["labels", "colours"])
def test_a_file_is_what_its_page_says(name):
    """Nothing of the writer is used but the shares of the values, and how many of them lie side by side."""
    model, images = MODELS[name], images_of(MODELS[name], 7, (6, 9))
    labels = labels_of(model, 7)
    assert by_the_page(model, images, labels, 3) == compress(model, images, labels=labels, block=3)


# What was written once is written always: other bits, or another format, are noticed here.
WRITTEN = {
    "bits": "231999e6be4bef8f0ee2acad9703c40c",
    "labels": "665172642d19af3661d42fbde00192ff",
    "colours": "79d827cb5dc98d8d7f0d9ce241ca1f23",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_files_do_not_change(name):
    """Weights, images and labels are made by integers, so these are the bytes on every machine."""
    assert hashlib.sha256(FILES[name]).hexdigest()[:32] == WRITTEN[name]


def test_another_process_reads_it(tmp_path):
    """One that has no code of the model, another number of threads and another floating-point mode."""
    (tmp_path / "a.gfz").write_bytes(FILES["rnn"])
    script = "import pathlib, torch, genfast; torch.set_flush_denormal(True); torch.set_num_threads(2)\n"
    script += "print(genfast.decompress(pathlib.Path('a.gfz').read_bytes()).flatten().tolist())"
    result = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(IMAGES["rnn"].flatten().tolist())


# Errors.


def test_bytes_that_are_no_file():
    data, model = FILES["bits"], MODELS["bits"]
    for broken, fragments in (
        (b"", ["expected a file of genfast compress", "b''"]),
        (b"PK\3\4" + data[4:], ["expected a file of genfast compress", "begins with b'PK"]),
        (data[:20], ["expected a whole file; got 20 bytes"]),
        (data[:30], ["expected a whole file; got 30 bytes"]),
        (data[:50], ["expected a file of at least ", "got 50: cut off"]),
        (data[:23] + b"\xff" * 9 + data[24:], ["expected a whole file; got a number of more than 9 bytes"]),
        (data[:-1], [f"expected a file of {len(data)} bytes", "cut off"]),
        (data + b"\0", [f"expected a file of {len(data)} bytes", f"got {len(data) + 1}: bytes follow its end"]),
        (data[:4] + b"\2" + data[5:], ["expected version 1 of the format; got 2"]),
        (data[:12] + b"\7" + data[13:], ["expected a header as it was written", "damaged"]),
        (data[:-3] + b"\7" + data[-2:], ["expected blocks as they were written; got block 2 damaged"]),
    ):
        refused(lambda broken=broken: decompress(broken, model), "decompress: ", *fragments, kinds=ValueError)
        if "block" not in fragments[0]:
            refused(lambda broken=broken: file_info(broken), *fragments, kinds=ValueError)
    good = decompress(data[:-3] + b"\7" + data[-2:], model, block=1)
    assert torch.equal(good, IMAGES["bits"][3:6]), "other blocks are whole"


def test_headers_of_no_version():
    for name, values in {
        "height": [0],
        "of_width": [0],
        "channels": [0],
        "levels": [0, 1, 65537],
        "classes": [2**20 + 1],
        "block": [0, 2**16 + 1],
        "tile": [0, 97],
    }.items():
        for value in values:
            parts = Parts.of(FILES["bits"])
            parts.set(name, value)
            if name == "classes":
                parts.labels = bytes(8)
            if name == "block":
                blocks = -(-7 // max(value, 1))
                parts.streams, parts.checksums = [b""] * blocks, [0] * blocks
            call = lambda parts=parts: decompress(parts.file(), MODELS["bits"])  # noqa: E731
            refused(call, "decompress: expected a coder and sizes of this version", kinds=ValueError)


def test_files_of_another_model():
    data, model = FILES["bits"], MODELS["bits"]
    for other, fragments in (
        (MODELS["rnn"], ["expected a model of ImageSpec(", "levels=2", "got one of ", "levels=256"]),
        (fixed_model("bits", hidden=6), ["expected the model that wrote the file, ", "got another, "]),
        (fixed_model("bits", layers=2), ["expected the model that wrote the file, ", "got another, "]),
    ):
        refused(lambda other=other: decompress(data, other), *fragments, kinds=ValueError)
    names = [name for name, _ in model.named_parameters()]
    for name in (names[0], names[-1]):
        other = copy.deepcopy(model)
        with torch.no_grad():
            flat = dict(other.named_parameters())[name].view(-1)
            flat[0] = torch.nextafter(flat[0], torch.tensor(torch.inf))
        text = "expected the weights that wrote the file, "
        refused(lambda other=other: decompress(data, other), text, "of the same model", kinds=ValueError)
    refused(lambda: decompress(data), "model must be given for a file that holds none", kinds=ValueError)
    assert torch.equal(decompress(FILES["rnn"]), IMAGES["rnn"])
    text = "expected the weights that wrote"
    other = fixed_model("rnn")
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    refused(lambda: decompress(FILES["rnn"], other), text, kinds=ValueError)


def test_another_arithmetic(monkeypatch):
    monkeypatch.setattr(Coder, "probe", lambda self: b"elsewher")
    for data, model in ((FILES["bits"], MODELS["bits"]), (FILES["rnn"], None)):
        fragments = ["expected the arithmetic that wrote the file, ", "656c7365, which would decode other"]
        refused(lambda data=data, model=model: decompress(data, model), *fragments, kinds=ValueError)


def test_the_probe_sees_every_bit_of_the_shares(monkeypatch):
    coder = Coder.of(Engine(MODELS["bits"]), "compress")
    real = coder.intervals(coder.spec and IMAGES["bits"])
    for place in (0, real.size // 2, real.size - 1):
        other = real.copy()
        other.reshape(-1)[place] ^= 1
        monkeypatch.setattr(Coder, "intervals", lambda self, images, labels, other=other: other)
        changed = coder._probe()
        monkeypatch.setattr(Coder, "intervals", lambda self, images, labels: real)
        assert changed != coder._probe()


def test_damaged_labels():
    data, model = FILES["labels"], MODELS["labels"]
    parts = Parts.of(data)
    stream = parts.labels[3:]
    assert sum(parts.labels[:3]) == 7
    for labels in (
        b"\1",
        parts.labels[:2],
        b"\xff" * 30 + stream,
        bytes(3) + stream,
        *(b"".join(map(leb128, counts)) + stream for counts in ((2**63 - 1, 8, 0), (2**62, 2**62, 7), (6, 2, 0))),
        parts.labels + b"\0",
        parts.labels + b"\1" * 8,
    ):
        parts.labels = labels
        call = lambda: decompress(parts.file(), model)  # noqa: E731, B023
        refused(call, "expected labels as they were written; got others", kinds=ValueError)


def test_a_small_file_of_many_images():
    """Equal images take no space: the memory that they take is asked for before anything is allocated."""
    parts = Parts.of(compress(fixed_model("labels", classes=3), IMAGES["labels"], labels=1, block=2**16))
    for name, value in (("count", 2**33), ("height", 2**32 - 1), ("tile", 96)):
        changed = copy.deepcopy(parts)
        changed.set(name, value)
        blocks = -(-changed.get("count") // 2**16)
        changed.streams, changed.checksums = [b""] * blocks, [0] * blocks
        most = 2**31 if name == "count" else 30_000
        call = lambda changed=changed, most=most: decompress(changed.file(), MODELS["labels"], max_bytes=most)  # noqa: E731
        refused(call, f"at most max_bytes={most} to decode; got ", "which take about ", kinds=ValueError)
    nothing = Parts.of(compress(MODELS["labels"], IMAGES["labels"][:0], labels=1))
    nothing.set("height", 2**32 - 1)
    nothing.set("width", 2**32 - 1)
    refused(lambda: decompress(nothing.file(), MODELS["labels"]), "at most max_bytes", kinds=ValueError)
    model, images = MODELS["bits"], images_of(MODELS["bits"], 30_000)
    data = compress(model, images, block=1000)
    refused(lambda: decompress(data, model, max_bytes=400_000), "30000 of 20 bytes", kinds=ValueError)
    assert torch.equal(decompress(data, model, block=29, max_bytes=400_000), images[-1000:])


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda m, x: compress(m, x.float()), TypeError, "images must hold levels as integers"),
        (lambda m, x: compress(m, x[0]), ValueError, r"images must have shape \[n, C, H, W\] with C=1"),
        (lambda m, x: compress(m, x.expand(-1, 3, -1, -1)), ValueError, r"with C=1.*got \(7, 3, 4, 5\)"),
        (lambda m, x: compress(m, x[:, :, :0]), ValueError, "H and W at least 1"),
        (lambda m, x: compress(m, x + 2), ValueError, r"images must lie in 0\.\.1; got [23]"),
        (lambda m, x: compress(m, x, labels=1), ValueError, "labels must be None"),
        (lambda m, x: compress(MODELS["labels"], x), ValueError, "labels must be"),
        (lambda m, x: compress(MODELS["labels"], x, labels=3), ValueError, r"labels must lie in 0\.\.2"),
        (lambda m, x: compress(MODELS["labels"], x, labels=torch.tensor([1, 2])), ValueError, "labels must"),
        (lambda m, x: compress(m, x, block=0), ValueError, "block must lie in 1 .. 65536; got 0"),
        (lambda m, x: compress(m, x, block=2**16 + 1), ValueError, "block must lie in 1 .. 65536"),
        (lambda m, x: compress(m, x, block=1.5), TypeError, "block must be an int"),
        (lambda m, x: compress(m, x, lossless=False), TypeError, "model must have codes"),
        (lambda m, x: decompress("text", m), TypeError, "data must be bytes; got str"),
        (lambda m, x: decompress(FILES["bits"], m, block=3), ValueError, r"block must lie in 0 \.\. 2; got 3"),
        (lambda m, x: decompress(FILES["bits"], m, block=-1), ValueError, "block must lie in"),
        (lambda m, x: decompress(FILES["bits"], m, max_bytes=0), ValueError, "max_bytes must lie in"),
        (lambda m, x: decompress(FILES["bits"], torch.nn.Linear(1, 1)), ValueError, "shape must be"),
    ],
)
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call(MODELS["bits"], IMAGES["bits"])


def test_other_backends_are_refused():
    """Their sums depend on the machine."""
    for backend in ("torch", "full_forward"):
        engine = Engine(MODELS["bits"], backend=backend)
        for call in (lambda e: compress(e, IMAGES["bits"]), lambda e: decompress(FILES["bits"], e)):
            with pytest.raises(
                RuntimeError, match=f"backend must be cpp, as the sums .* got {backend} .cpp: could serve"
            ):
                call(engine)
    with pytest.raises(RuntimeError, match="triton"):
        compress(Engine(MODELS["bits"], backend="triton"), IMAGES["bits"])
    with pytest.raises(RuntimeError, match="backend must be cpp.*got full_forward .cpp: computes in float32"):
        compress(copy.deepcopy(MODELS["bits"]).double(), IMAGES["bits"])


def test_without_native_code(monkeypatch):
    monkeypatch.setattr(backends, "cpp", None)
    for call in (lambda: decompress(FILES["bits"], MODELS["bits"]), lambda: file_info(FILES["bits"])):
        with pytest.raises(RuntimeError, match="backend must be cpp.*; got none: "):
            call()


def test_a_model_that_reads_what_is_known_cannot_be_put_into_a_file():
    stranger = STRANGERS["MapCondition"]
    side = stranger.side(stranger.shape, 5)
    engine = quietly(Engine, stranger.build(), **stranger.options(), condition=side["condition"])
    images = engine.run(5, seed=1).images
    data = compress(engine, images, block=2)
    assert torch.equal(decompress(data, engine), images)
    assert torch.equal(decompress(data, engine, block=1), images[2:4])
    refused(lambda: compress(engine, images, with_model=True), "must need nothing of its model", kinds=ValueError)


# The sizes of the streams.


@pytest.mark.parametrize("sizes", [[], [0], [7], [0, 0, 0], [3660, 3712, 3601, 240], [1, 2**40, 1], [2**62], [5] * 300])
def test_sizes(sizes):
    for block, rest in ((1, 0), (256, 240), (256, 0)):
        count = max(0, block * len(sizes) - rest)
        data = write_sizes(sizes, block, count)
        assert data == coded_sizes(sizes, block, count) and len(data) <= 1 + MOST_SIZE * len(sizes)
        assert read_sizes(data, block, count) == sizes
        for other in (data + b"\0", data + b"\1", data[:-1], b"\xff" + data):
            assert other == data or read_sizes(other, block, count) != sizes
    assert read_sizes(b"\0" + b"\0" * 30, 1, 2) is read_sizes(b"\0\x40", 1, 1) is read_sizes(b"\0", 1, 0) is None


def test_sizes_cost_what_they_vary():
    """Blocks of about 3,660 bytes, up to 70 off: two bytes each would be more."""
    sizes = [3660 + int(70 * np.sin(n * n)) for n in range(1000)]
    assert len(write_sizes(sizes, 256, 256_000)) < 1200


# Damage.


def right_or_refused(data, name):
    """A file gives one clear error, or images as they were written: the first ones of them, or all."""
    with_model = name == "rnn"
    try:
        got = decompress(data, None if with_model else MODELS[name], max_bytes=2**20)
    except ValueError as error:
        assert str(error).startswith("decompress: ") and str(error).isprintable(), error
        return None
    assert torch.equal(got, IMAGES[name][: len(got)]), "other images"
    return got


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_damage(name, seed):
    rng = random.Random(seed)
    got = right_or_refused(damaged(FILES[name], rng), name)
    assert got is None or len(got) == 7


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_damage_that_an_attacker_repaired(name, seed):
    right_or_refused(mutated(Parts.of(FILES[name]), random.Random(seed)), name)


@settings(deadline=None, max_examples=30)
@given(junk=st.binary(max_size=300))
def test_any_bytes(junk):
    assume(junk[:4] != b"GFVQ")  # which another model writes
    for data in (junk, b"GFZ\0\1\1\x18" + junk, FILES["bits"][:23] + junk):
        with pytest.raises(ValueError, match="^decompress: expected "):
            decompress(data, MODELS["bits"])


def test_parts_are_those_of_the_file():
    for data in FILES.values():
        assert Parts.of(data).file() == data
    parts = Parts.of(FILES["bits"])
    assert [parts.get(name) for name in FIELDS[:8]] == [7, 4, 5, 1, 4, 5, 2, 0] and parts.get("block") == 3
    assert FIXED.size == 23 and CRC.size == 4, "another reader relies on it"
