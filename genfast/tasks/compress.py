"""Lossy compression by a VQ-VAE: its codes as a file, images from such a file, and what JPEG makes of as many bytes."""

import hashlib
import io
import lzma
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from genfast.data.grid import brightness
from genfast.metrics import psnr
from genfast.models.vqvae import VQVAE

# magic, version, packing, images, channels, height, width, levels - 1, model; big endian. Then the body, and a CRC-32
# of all before it.
HEADER, CHECKSUM = struct.Struct(">4sBBIBHHB8s"), struct.Struct(">I")
MAGIC, VERSION = b"GFVQ", 1
# More than a batch of photographs; a file that says more is not decoded.
MOST_VALUES = 2**31
BATCH_VALUES = 2**20
# Codes have no text's alignment; the dictionary is small, as it is allocated for the smallest file too.
LZMA = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20, "lc": 0, "lp": 0, "pb": 0}]
QUALITIES = range(1, 96)


@dataclass(frozen=True)
class Rate:
    """One row of `rate_distortion`.

    Attributes:
        name: of the method.
        size: bytes of all images.
        bits_per_pixel: of one pixel of all its channels.
        psnr: dB over all images.
        note: what a reader should know, or "".
    """

    name: str
    size: int
    bits_per_pixel: float
    psnr: float
    note: str = ""

    def __str__(self):
        return f"{self.name:<26} {self.size:9d} {self.bits_per_pixel:9.4f} {self.psnr:8.2f}  {self.note}".rstrip()


def compress(model, images):
    """The codes of images as the bytes of a file.

    Codes are packed to as many bits as they need, or to whole bytes, and compressed by zlib or lzma, whichever is
    smallest. The images may be of any size, also one that the model was not trained on: they are encoded whole.

    Args:
        model: a `VQVAE`.
        images: uint8 [N, C, H, W], levels, with the model's C and levels; H and W at least 1.
    Returns: bytes, which `decompress` reads.
    Raises: TypeError or ValueError for another model or images.
    """
    c = _check_model("compress", model).config
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"compress: images must be levels, torch.uint8; got {got}")
    if images.dim() != 4 or images.shape[1] != c.channels or not all(1 <= n < 2**16 for n in images.shape[2:]):
        expected = f"[N, C, H, W] with C={c.channels}, H and W from 1 to 65535"
        raise ValueError(f"compress: images must have shape {expected}; got {tuple(images.shape)}")
    if images.numel() > MOST_VALUES:
        raise ValueError(f"compress: images must hold at most {MOST_VALUES} values; got {images.numel()}")
    if images.numel() and (top := int(images.max())) >= c.levels:
        raise ValueError(f"compress: images must lie in 0..{c.levels - 1}; got {top}")
    packing, body = _packed(_encoded(model, images), c.codes)
    count, channels, height, width = images.shape
    header = HEADER.pack(MAGIC, VERSION, packing, count, channels, height, width, c.levels - 1, fingerprint(model))
    return header + body + CHECKSUM.pack(zlib.crc32(header + body))


def decompress(model, data):
    """The images of a file that `compress` of the same model wrote: uint8 [N, C, H, W] on the CPU.

    Raises: ValueError for bytes that are no such file, not whole, damaged, or of another model.
    """
    c = _check_model("decompress", model).config
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"decompress: data must be bytes; got {type(data).__name__}")
    data = bytes(data)
    if data[:4] != MAGIC:
        raise ValueError(f"decompress: expected a file of genfast compress; got one that begins with {data[:4]!r}")
    if len(data) < HEADER.size + CHECKSUM.size:
        raise ValueError(f"decompress: expected a whole file; got {len(data)} bytes")
    _, version, packing, count, channels, height, width, top, model_of = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"decompress: expected version {VERSION} of the format; got {version}")
    if zlib.crc32(data[: -CHECKSUM.size]) != CHECKSUM.unpack(data[-CHECKSUM.size :])[0]:
        raise ValueError("decompress: expected a whole file; got one whose checksum is wrong: cut off or damaged")
    if model_of != fingerprint(model) or (channels, top + 1) != (c.channels, c.levels):
        got = f"{model_of.hex()} for {channels} channels, {top + 1} levels"
        raise ValueError(f"decompress: expected a file of this model, {fingerprint(model).hex()}; got {got}")
    if not height or not width or count * channels * height * width > MOST_VALUES:
        got = (count, channels, height, width)
        raise ValueError(f"decompress: expected images of 1 to {MOST_VALUES} values in all; got {got}")
    shape = count, *_grid(model, height, width)
    return _decoded(model, _unpacked(packing, data[HEADER.size : -CHECKSUM.size], shape, c.codes), height, width)


def fingerprint(model):
    """Eight bytes that differ where models decode differently: of the sizes, the codebook and the decoder."""
    c, digest = model.config, hashlib.sha256()
    sizes = (c.channels, c.levels, c.codes, c.features, c.downsampling, c.codebooks, c.likelihood, c.mixtures)
    digest.update(repr(sizes).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("decoder.") or name.endswith("codebook"):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()[:8]


def rate_distortion(model, images):
    """What the model makes of images beside JPEG at the same size: a list of `Rate`.

    JPEG's quality is the lowest with at least as many bytes, the better of full and halved colour resolution: once
    with all images in one picture, which has one header, once with a file for each. Needs Pillow.

    Args: as `compress`; at least one image.
    """
    data = compress(model, images)
    c, pixels = model.config, images.shape[0] * images.shape[2] * images.shape[3]
    if not pixels:
        raise ValueError("rate_distortion: images must hold at least one; got none")
    found = psnr(decompress(model, data), images.cpu(), c.levels)
    rates = [Rate("vq-vae", len(data), 8 * len(data) / pixels, found)]
    shown = brightness(images, c.levels)
    rates.append(_jpeg(_one_picture(shown), shown, len(data), "JPEG, one picture"))
    if len(images) > 1:
        rates.append(_jpeg(_each(shown), shown, len(data), "JPEG, a file each"))
    return rates


def table(rates):
    """The lines of `rate_distortion` under their heading."""
    return [f"{'':<26} {'bytes':>9} {'bits/px':>9} {'PSNR dB':>8}", *map(str, rates)]


def _check_model(call, model):
    if not isinstance(model, VQVAE):
        raise TypeError(f"{call}: model must be a VQVAE; got {type(model).__name__}")
    return model


def _grid(model, height, width):
    """Height and width of the codes of an image of any size."""
    step = 2**model.config.downsampling
    return -(-height // step), -(-width // step) * model.config.codebooks


@torch.no_grad()
def _encoded(model, images):
    """int64 array [N, h, w] of the codes."""
    height, width = images.shape[2:]
    step, device = 2**model.config.downsampling, next(model.parameters()).device
    parts = [np.zeros((0, *_grid(model, height, width)), np.int64)]
    for part in _parts(images):
        # The size of the codes' cells by the repetition of the last row and column.
        levels = F.pad(part.to(device).float(), (0, -width % step, 0, -height % step), mode="replicate")
        parts.append(model.encode(levels.to(torch.uint8), any_size=True).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def _decoded(model, codes, height, width):
    c, device = model.config, next(model.parameters()).device
    parts = [torch.zeros(0, c.channels, height, width, dtype=torch.uint8)]
    size = max(1, BATCH_VALUES // (height * width))
    for part in torch.from_numpy(codes).split(size):
        images = model.expected(model.decode(part.to(device), any_size=True)).round().to(torch.uint8)
        parts.append(images[:, :, :height, :width].cpu())
    return torch.cat(parts)


def _parts(images):
    return images.split(max(1, BATCH_VALUES // (images.shape[2] * images.shape[3]))) if len(images) else ()


def _bits(codes):
    return max(1, (codes - 1).bit_length())


def _packed(codes, count):
    """(packing, bytes): the smallest. Packing is 2 times how it is compressed, plus 1 where codes have whole bytes."""
    wide = np.ascontiguousarray(codes, ">u2").view(np.uint8).reshape(-1, 2)
    bits = np.packbits(np.unpackbits(wide, axis=1)[:, 16 - _bits(count) :])
    whole = wide if count > 256 else np.ascontiguousarray(wide[:, 1])
    found = {}
    for kind, raw in enumerate((bits.tobytes(), whole.tobytes())):
        found[kind] = raw
        found[2 + kind] = min((_deflated(raw, how) for how in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)), key=len)
        found[4 + kind] = lzma.compress(raw, lzma.FORMAT_RAW, filters=LZMA)
    return min(found.items(), key=lambda item: len(item[1]))


def _deflated(raw, strategy):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(raw) + packer.flush()


def _unpacked(packing, body, shape, count):
    """The codes int64 [N, h, w] that `_packed` packed; ValueError for anything else."""
    values, bits = math.prod(shape), _bits(count)
    whole = packing % 2
    size = values * (2 if count > 256 else 1) if whole else (values * bits + 7) // 8
    raw = _inflated(packing // 2, body, size)
    if len(raw) != size:
        raise ValueError(f"decompress: expected {size} bytes of codes; got {len(raw)}")
    raw = np.frombuffer(raw, np.uint8)
    if whole:
        codes = raw.view(">u2" if count > 256 else np.uint8).astype(np.int64)
    else:
        table = np.unpackbits(raw)[: values * bits].reshape(values, bits).astype(np.int64)
        codes = table @ (1 << np.arange(bits - 1, -1, -1))
    if values and (top := int(codes.max())) >= count:
        raise ValueError(f"decompress: expected codes of 0 to {count - 1}; got {top}")
    return codes.reshape(shape)


def _inflated(how, body, size):
    """At most size + 1 bytes: a small file that would unpack to a large one is not followed."""
    try:
        if how == 0:
            return body
        if how == 1:
            return zlib.decompressobj(-15).decompress(body, size + 1)
        if how == 2:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=LZMA).decompress(body, size + 1)
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"decompress: expected packed codes; got {error}") from None
    raise ValueError(f"decompress: expected a packing of 0 to 5; got one of {2 * how}")


def _one_picture(images):
    """All images in one picture without space between them, the last cells empty: a list of one array [H, W, C]."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    count, channels, height, width = images.shape
    cells = np.zeros((rows * columns, channels, height, width), np.uint8)
    cells[:count] = images.numpy()
    cells = cells.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return [cells.reshape(rows * height, columns * width, channels)]


def _each(images):
    return list(images.numpy().transpose(0, 2, 3, 1))


def _jpeg(pictures, truth, wanted, name):
    """The `Rate` of JPEG files of at least `wanted` bytes in all, or of quality 1, against truth uint8 [N, C, H, W]."""
    found = []
    for sampling in (0, 2) if pictures[0].shape[2] == 3 else (0,):
        low, high = QUALITIES[0], QUALITIES[-1]
        while low < high:  # the lowest quality of enough bytes
            middle = (low + high) // 2
            enough = sum(map(len, _files(pictures, middle, sampling))) >= wanted
            low, high = (low, middle) if enough else (middle + 1, high)
        files = _files(pictures, low, sampling)
        size, headers = sum(map(len, files)), sum(map(_header, files))
        note = f"quality {low}, {'4:2:0' if sampling else '4:4:4'}"
        if headers >= wanted:
            note += f"; {headers} bytes are headers"
        pixels = truth.shape[0] * truth.shape[2] * truth.shape[3]
        found.append(Rate(name, size, 8 * size / pixels, psnr(_cut(files, truth), truth, 256), note))
    # Sizes within a twentieth of the one wanted are as good as each other.
    return min(found, key=lambda rate: (max(rate.size, 1.05 * wanted), -rate.psnr))


def _files(pictures, quality, sampling):
    from PIL import Image

    files = []
    for picture in pictures:
        buffer, array = io.BytesIO(), picture[..., 0] if picture.shape[2] == 1 else picture
        Image.fromarray(array).save(buffer, "JPEG", quality=quality, optimize=True, subsampling=sampling)
        files.append(buffer.getvalue())
    return files


def _header(file):
    """Bytes before the coded data: to the end of the segment `start of scan`."""
    scan = file.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big")


def _cut(files, truth):
    """The images of JPEG files, each of one image or of all in rows, as uint8 [N, C, H, W]."""
    from PIL import Image

    count, channels, height, width = truth.shape
    cells = []
    for file in files:
        array = np.asarray(Image.open(io.BytesIO(file)))
        array = array.reshape(array.shape[0] // height, height, array.shape[1] // width, width, channels)
        cells.append(array.transpose(0, 2, 4, 1, 3).reshape(-1, channels, height, width))
    return torch.from_numpy(np.concatenate(cells)[:count].copy())
