"""Lossy compression: a file and back, files that are none, the table beside JPEG, and the two commands."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import genfast as genfast_package
from genfast import metrics, models
from genfast.data.grid import brightness
from genfast.metrics import rate_distortion
from genfast.tasks import compress, decompress
from genfast.tasks._codes import CHECKSUM, HEADER, _Codes, _packed

SIZES = {"height": 8, "width": 8, "levels": 16, "codes": 20, "features": 4, "hidden": 8, "layers": 1, "downsampling": 1}


def model(**changes):
    torch.manual_seed(0)
    net = models.build("vq-vae", **(SIZES | changes))
    with torch.no_grad():
        net.loss(images(net, 20))  # gives the codes their values
    return net.eval()


def images(model, n, size=None, seed=0):
    c = model.config
    generator = torch.Generator().manual_seed(seed)
    shape = (n, c.channels, *(size or (c.height, c.width)))
    return torch.randint(0, c.levels, shape, generator=generator, dtype=torch.uint8)


MODEL = model()
FILE = compress(MODEL, images(MODEL, 7))


@pytest.mark.parametrize(
    "changes", [{}, {"codes": 300}, {"codes": 2}, {"channels": 3, "codebooks": 2, "likelihood": "gaussian"}], ids=str
)
@pytest.mark.parametrize("size", [None, (13, 5), (1, 1)])
def test_a_file_and_back(changes, size):
    net = model(**changes)
    x = images(net, 6, size)
    decoded = decompress(compress(net, x), net)
    assert decoded.dtype == torch.uint8 and decoded.shape == x.shape
    if size is None:
        assert torch.equal(decoded, net.reconstruct(x))
        assert torch.equal(decompress(compress(net, x[2:3]), net), decoded[2:3])
    assert compress(net, x) == compress(net, x)
    assert decompress(compress(net, x[:0]), net).shape == (0, *x.shape[1:])


def test_size_is_that_of_the_codes():
    """Codes that are all different by chance cannot be had for less than their bits; equal ones nearly for nothing."""
    net = model(codes=64)
    x = images(net, 200)
    codes = net.encode(x)
    _, perplexity = metrics.codebook_use(codes, 64)
    bits = codes.numel() * np.log2(perplexity)
    overhead = HEADER.size + CHECKSUM.size
    assert 0.98 * bits / 8 < len(compress(net, x)) - overhead < 1.06 * bits / 8
    assert len(compress(net, x[:1].expand(200, -1, -1, -1))) < overhead + codes[0].numel() + 60


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_packing_and_unpacking(data):
    count = data.draw(st.sampled_from([2, 3, 16, 20, 255, 256, 257, 5000, 65536]))
    shape = tuple(data.draw(st.integers(0, 6)) for _ in range(3))
    low = data.draw(st.integers(0, count - 1))
    high = count if data.draw(st.booleans()) else low + 1
    codes = np.random.RandomState(data.draw(st.integers(0, 100))).randint(low, high, shape)
    unpacked, ahead = _Codes(*_packed(codes, count), codes.size, count), data.draw(st.integers(0, codes.size))
    parts = [unpacked.take(ahead), unpacked.take(codes.size - ahead)]
    assert np.array_equal(np.concatenate(parts), codes.flatten())


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damage_is_one_clear_error(data):
    """Bytes changed, cut off or added: an error, never other images."""
    kind = data.draw(st.sampled_from(["change", "cut", "add"]))
    if kind == "cut":
        broken = FILE[: data.draw(st.integers(0, len(FILE) - 1))]
    elif kind == "add":
        broken = FILE + data.draw(st.binary(min_size=1, max_size=20))
    else:
        broken = bytearray(FILE)
        for _ in range(data.draw(st.integers(1, 3))):
            broken[data.draw(st.integers(0, len(FILE) - 1))] ^= data.draw(st.integers(1, 255))
        broken = bytes(broken)
    if broken == FILE:
        return
    with pytest.raises(ValueError, match="^decompress: expected .*; got "):
        decompress(broken, MODEL)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
@example(b"")
@example(b"GFVQ")
def test_any_bytes(junk):
    for data in (junk, b"GFVQ\x01" + junk):
        with pytest.raises(ValueError, match="^decompress: expected "):
            decompress(data, MODEL)


def signed(header, body):
    """A file of these parts whose checksum is right."""
    whole = HEADER.pack(*header) + body
    return whole + CHECKSUM.pack(zlib.crc32(whole))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_file_made_to_mislead(data):
    """A right checksum over anything: an error or images of the size it says, and no more memory than those take."""
    header = list(HEADER.unpack_from(FILE))
    for place, most in ((2, 255), (3, 2**32 - 1), (4, 255), (5, 2**16 - 1), (6, 2**16 - 1), (7, 255)):
        if data.draw(st.booleans()):
            header[place] = data.draw(st.one_of(st.integers(0, min(most, 12)), st.integers(0, most)))
    body = FILE[HEADER.size : -CHECKSUM.size]
    body = data.draw(st.one_of(st.just(body), st.binary(max_size=100), st.just(body[:-3])))
    try:
        decoded = decompress(signed(header, body), MODEL)
    except ValueError as error:
        assert str(error).startswith("decompress: expected ")
    else:
        assert decoded.shape == (header[3], 1, *header[5:7])


def test_a_small_file_does_not_unpack_to_a_large_one():
    header = list(HEADER.unpack_from(FILE))
    header[2] = 3
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(10**8)) + packer.flush()
    with pytest.raises(ValueError, match="expected 112 bytes of codes; got 113"):
        decompress(signed(header, bomb), MODEL)


def test_files_of_another_model_or_version():
    other = model(hidden=9)
    assert other.decoder_digest() != MODEL.decoder_digest()
    with pytest.raises(ValueError, match="expected a file of this model, [0-9a-f]{16}; got "):
        decompress(FILE, other)
    header = list(HEADER.unpack_from(FILE))
    header[1] = 2
    with pytest.raises(ValueError, match="expected version 1 of the format; got 2"):
        decompress(signed(header, b""), MODEL)
    changed = model()
    with torch.no_grad():
        next(changed.decoder.parameters()).view(-1)[0].add_(1e-6)
    assert changed.decoder_digest() != MODEL.decoder_digest() == model().decoder_digest()
    changed = model()
    changed.quantizer.counts.add_(1)
    changed.set_prior(models.build("pixelcnn", height=4, width=4, levels=20, hidden=4, layers=1, head=4))
    assert torch.equal(decompress(FILE, changed), decompress(FILE, MODEL)), "neither prior nor counts matter"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: compress(torch.nn.Linear(1, 1), images(MODEL, 1)),
            ValueError,
            "shape must be .* for a Linear; got None",
        ),
        (lambda: compress(MODEL, images(MODEL, 1), lossless=True), ValueError, "lossless must be False for a VQ-VAE"),
        (lambda: compress(MODEL, images(MODEL, 1), with_model=True), ValueError, "with_model must be False"),
        (lambda: decompress(FILE), ValueError, "model must be given for a file with loss; got None"),
        (lambda: decompress(FILE, MODEL, block=0), ValueError, "block must be None for a file with loss; got 0"),
        (lambda: compress(MODEL, images(MODEL, 1).float()), TypeError, "images must hold levels as integers"),
        (lambda: compress(MODEL, images(MODEL, 1)[0]), ValueError, r"images must have shape \[N, C, H, W\] with C=1"),
        (lambda: compress(MODEL, images(MODEL, 1).expand(-1, 3, -1, -1)), ValueError, "with C=1"),
        (lambda: compress(MODEL, images(MODEL, 1)[:, :, :0]), ValueError, "H and W from 1"),
        (lambda: compress(MODEL, images(MODEL, 1) + 16), ValueError, r"images must lie in 0\.\.15"),
        (lambda: decompress("text", MODEL), TypeError, "data must be bytes; got str"),
        (lambda: rate_distortion(MODEL, images(MODEL, 0)), ValueError, "at least one; got none"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(("channels", "n", "codes"), [(1, 30, 20), (3, 5, 256), (1, 1, 20)])
def test_rates_are_those_of_the_files(channels, n, codes):
    net = model(channels=channels, height=16, width=16, levels=16, codes=codes)
    smooth = torch.nn.functional.interpolate(images(net, n, (4, 4)).float(), (16, 16), mode="bilinear")
    x = smooth.round().to(torch.uint8)
    ours, *others = rate_distortion(net, x)
    data = compress(net, x)
    assert ours.size == len(data) and ours.bits_per_pixel == pytest.approx(8 * len(data) / (n * 256))
    assert ours.psnr == pytest.approx(metrics.psnr(decompress(data, net), x, 16))
    assert [rate.name for rate in others] == ["JPEG, one picture", "JPEG, a file each"][: 2 if n > 1 else 1]
    for rate in others:
        assert rate.size >= ours.size and "quality " in rate.note
        assert ("are headers" in rate.note) == (rate.name == "JPEG, a file each" or n == 1)
    if n == 1:
        assert "quality 1," in others[0].note


def test_jpeg_at_the_same_size_by_hand():
    """One picture of whole blocks: the lowest quality of at least as many bytes, by trying all of them."""
    net = model(height=64, width=64, levels=256, codes=1024, features=2, downsampling=2)
    noise = images(net, 1, (16, 16)).float()
    x = torch.nn.functional.interpolate(noise, (64, 64), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
    ours, jpeg = rate_distortion(net, x)
    sizes, decoded = [], []
    for quality in range(1, 96):
        buffer = io.BytesIO()
        Image.fromarray(brightness(x, 256)[0, 0].numpy()).save(buffer, "JPEG", quality=quality, optimize=True)
        sizes.append(len(buffer.getvalue()))
        decoded.append(torch.from_numpy(np.asarray(Image.open(buffer)).copy())[None, None])
    quality = next(q for q, size in enumerate(sizes) if size >= ours.size)
    assert quality > 0 and jpeg.size == sizes[quality] and jpeg.note == f"quality {quality + 1}, 4:4:4"
    assert jpeg.psnr == pytest.approx(metrics.psnr(decoded[quality], x, 256))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model(levels=256, channels=3, likelihood="gaussian").save_pretrained(path)
    return path


def picture(path, size, seed=0):
    array = np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(array).save(path)
    return path


def test_commands(genfast, folder, tmp_path):
    files = [picture(tmp_path / f"{i}.png", (21, 30), seed=i) for i in range(3)]
    code, out, err = genfast("compress", folder, *files, "--out", tmp_path / "a.gvq")
    assert (code, err) == (0, "") and "3 images of 30x21, 256 levels" in out
    assert out.count("\n") == 5 and "PSNR dB" in out and "JPEG, one picture" in out
    for out_name in ("grid.png", "set.npz", "folder"):
        code, out, err = genfast("decompress", tmp_path / "a.gvq", "--model", folder, "--out", tmp_path / out_name)
        assert code == 0 and "3 images of 30x21" in out, err
    net = models.load(folder)
    truth = torch.stack([torch.from_numpy(np.array(Image.open(f))).movedim(2, 0) for f in files])
    expected = decompress(compress(net, truth), net).numpy()
    assert np.array_equal(np.load(tmp_path / "set.npz")["images"], expected)
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == [f"image-{i:05d}.png" for i in range(3)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "folder" / names[2])), expected[2].transpose(1, 2, 0))
    assert genfast("compress", folder, files[1], "--out", tmp_path / "b.gvq")[0] == 0
    assert genfast("decompress", tmp_path / "b.gvq", "--model", folder, "--out", tmp_path / "one.png")[0] == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "one.png")), expected[1].transpose(1, 2, 0))


def test_held_out_images(genfast, tmp_path):
    random = np.random.RandomState(0)
    np.savez(tmp_path / "d.npz", **{s: random.randint(0, 16, (9, 8, 8)) for s in ("train", "test")}, levels=16)
    MODEL.save_pretrained(tmp_path / "m")
    code, out, err = genfast(
        "compress", tmp_path / "m", "--data", tmp_path / "d.npz", "-n", 4, "--out", tmp_path / "a.gvq"
    )
    assert code == 0 and "4 images of 8x8, 16 levels" in out, err


def test_lossless_commands(genfast, tmp_path):
    """Grey pictures of 256 levels, larger than the model's images, in a folder and as files, and back."""
    net = models.build("pixelcnn", height=8, width=8, levels=256, hidden=4, layers=1, head=4).eval()
    net.save_pretrained(tmp_path / "m")
    (tmp_path / "in").mkdir()
    arrays = [np.random.RandomState(n).randint(0, 256, (13, 20)).astype(np.uint8) for n in range(3)]
    files = [tmp_path / "in" / f"{n}.png" for n in range(3)]
    for path, array in zip(files, arrays, strict=True):
        Image.fromarray(array).save(path)
    for number, images in enumerate(([tmp_path / "in"], files)):
        file, out_folder = tmp_path / f"{number}.gfz", tmp_path / f"out{number}"
        code, out, err = genfast("compress", tmp_path / "m", *images, "--out", file, "--lossless", "--with-model")
        assert code == 0, err
        assert "3 images of 20x13, 256 levels" in out and "bits a dimension" in out
        assert all(f"{name} each " in out for name in ("png", "webp", "jpeg-xl", "bz2", "xz")), out
        code, out, err = genfast("info", file)
        assert (code, err) == (0, "") and "lossless, version 1: 3 images of 20x13, 1 channels, 256 levels" in out
        assert "in 1 blocks of 256 images" in out and "held in " in out
        for model in ([], ["--model", tmp_path / "m"]):
            assert genfast("decompress", file, *model, "--out", out_folder, "--overwrite")[0] == 0
            for n, array in enumerate(arrays):
                assert np.array_equal(np.asarray(Image.open(out_folder / f"image-{n:05d}.png")), array)


def test_errors_of_the_commands(genfast, folder, tmp_path):
    one, other = picture(tmp_path / "1.png", (8, 8)), picture(tmp_path / "2.png", (8, 9))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "none.gvq").write_bytes(b"nothing")
    models.build("pixelcnn", hidden=2, layers=0, head=2).save_pretrained(tmp_path / "m")
    a, none = tmp_path / "a.gvq", tmp_path / "b.gvq"
    none.write_bytes(FILE)
    for words, text in (
        (["compress", folder, one, other, "--out", a], "expected one size"),
        (["compress", folder, tmp_path / "text.png", "--out", a], "expected a readable image"),
        (["compress", folder, tmp_path / "nothing.png", "--out", a], "expected an image file; got none"),
        (["compress", folder, one, "--split", "test", "--out", a], "got both"),
        (["compress", folder, one, "--out", tmp_path], "got a folder"),
        (["compress", folder, "--out", a], "expected --data"),
        (["compress", folder, one, "--lossless", "--out", a], "lossless must be False for a VQ-VAE"),
        (["compress", folder, tmp_path, "--data", "digits", "--out", a], "got both"),
        (["decompress", none, "--out", tmp_path / "x.png"], "model must be given for a file with loss"),
        (["decompress", tmp_path / "none.gvq", "--out", tmp_path / "x.png"], "none.gvq: file_info: expected a"),
        (["decompress", tmp_path / "no.gvq", "--out", tmp_path / "x.png"], "got none"),
        (["decompress", tmp_path / "none.gvq", "--out", tmp_path / "x.jpg"], "expected a name ending in"),
    ):
        code, out, err = genfast(*words)
        assert code == 2 and text in err and err.count("\n") == 1 and not out, (words, err)
    assert not a.exists() and not (tmp_path / "x.png").exists()


def test_codes_by_a_prior():
    """The file has the bits of the codes under the prior, and decodes to what it decodes to without it."""
    net, x = model(codes=64), images(MODEL, 3000)
    plain = compress(net, x)
    codes = net.encode(x)
    prior = models.build("pixelcnn", height=codes.shape[1], width=codes.shape[2], levels=64, hidden=4, layers=1, head=4)
    with torch.no_grad():
        counts = torch.bincount(codes.flatten(), minlength=64).float() + 0.1
        *_, weight, bias = prior.parameters()
        weight.zero_()
        bias.copy_((counts / counts.sum()).log())
    net.set_prior(prior.eval())
    data = compress(net, x)
    nats = -genfast_package.log_prob(prior, codes[:, None].to(torch.uint8)).sum() / np.log(2) / 8
    assert nats < len(data) < 1.001 * nats + 200 and len(data) < len(plain)
    assert torch.equal(decompress(data, net), decompress(plain, net))
    net.set_prior(None)
    with pytest.raises(ValueError, match="expected a model with its prior"):
        decompress(data, net)


def test_layout_of_the_header():
    """What another reader would rely on."""
    assert HEADER.size == 24 and struct.calcsize(CHECKSUM.format) == 4
    magic, version, _, count, channels, height, width, top, model_of = HEADER.unpack_from(FILE)
    assert (magic, version, count, channels, height, width, top) == (b"GFVQ", 1, 7, 1, 8, 8, 15)
    assert model_of == MODEL.decoder_digest()
