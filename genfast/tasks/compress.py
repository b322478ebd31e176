"""Compression: images to the bytes of a file, and back; what a file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from genfast.engine.arguments import check_int
from genfast.engine.engine import Engine
from genfast.engine.protocols import CodeModel
from genfast.engine.wrappers import unwrapped, unwraps
from genfast.tasks import _codes, _lossless
from genfast.tasks._codes import MOST_BYTES
from genfast.tasks.results import FileInfo


@unwraps
def compress(
    model: nn.Module | Engine,
    images: Tensor,
    *,
    labels: int | Tensor | None = None,
    lossless: bool | None = None,
    with_model: bool = False,
    block: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Images as the bytes of a file, which `decompress` reads.

    Losslessly, by an autoregressive model: a range coder takes the place of the draws of the engine, so that the file
    has as many bits as the model has nats for the images. By a VAE: bits-back coding, with as many bits as its evidence
    lower bound has nats. The file decodes to the same bits on every CPU.

    With loss, by the codes of a VQ-VAE: they are coded by its prior where it has one for images of this size, or packed
    by zlib or lzma, whichever is smallest. Images may have any size, also one that the model was not trained on.

    Args:
        model: an autoregressive model of `genfast.models`, an `Engine` of another one, a
            `genfast.engine.protocols.LatentNetworks`, as `genfast.models.VAE` is, or a
            `genfast.engine.protocols.CodeModel`, as `genfast.models.VQVAE` is.
        images: levels, integers [n, C, H, W].
        labels: integers [n], or one for all, of a conditional model. A lossless file holds them.
        lossless: whether every level comes back; None: for all models but a VQ-VAE.
        with_model: put the weights into a lossless file, which then needs no model to be read.
        block: images that share a stream, 1 to 65536, which `decompress` can read alone. A stream takes about 6 bytes
            and 0.00015 bits a value more than its images need, that of a VAE 2 bytes more for each latent. None: 256,
            of a VAE 4096.
        progress: called with the number of images of each block that is done.
    Returns: bytes.
    Raises: TypeError or ValueError for another model or images; RuntimeError for a backend other than cpp.

    Example: `genfast.decompress(genfast.compress(model, images), model)`
    """
    has_codes = isinstance(model, CodeModel)
    if lossless is None:
        lossless = not has_codes
    if lossless and has_codes:
        raise ValueError("compress: lossless must be False for a VQ-VAE, whose codes lose detail; got True")
    if lossless:
        coder = _lossless.coder_of("compress", model)
        return _lossless.compress_images(coder, images, labels, with_model, block, progress)
    if with_model:
        raise ValueError("compress: with_model must be False for a file with loss; got True")
    return _codes.compress_codes(model, images, labels)


def decompress(
    data: bytes,
    model: nn.Module | Engine | None = None,
    *,
    block: int | None = None,
    max_bytes: int = MOST_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The images of a file that `compress` wrote.

    Equal images take next to no space, so a small file may hold many: `max_bytes` is the most memory that the images
    and the decoding of one of them may take, about.

    Args:
        data: the file.
        model: that which wrote the file; None for a file that holds its model, or was written by shipped weights.
        block: the number of a block of a lossless file, from 0 on: its images alone.
        max_bytes: of memory.
        progress: called with the number of images of each block that is done.
    Returns: levels [n, C, H, W] on the CPU, uint8 up to 256 of them, else int32.
    Raises: TypeError for data that are no bytes; ValueError for bytes that are no such file, incomplete, damaged, of
        another model or other weights, of another arithmetic, or of larger images.
    """
    data = _bytes("decompress", data)
    check_int("decompress", "max_bytes", max_bytes, 1, 2**63)
    if data[:4] == _codes.MAGIC:
        if block is not None:
            raise ValueError(f"decompress: block must be None for a file with loss; got {block}")
        return _codes.decompress_codes(_needed(unwrapped(model)), data, max_bytes)
    file = _lossless.LosslessFile(data, model, max_bytes)
    blocks = len(file.header.blocks)
    if block is None:
        return file.images(0, blocks, progress)
    check_int("decompress", "block", block, 0, blocks)
    return file.images(block, 1)


def file_info(data: bytes) -> FileInfo:
    """What a file of `compress` says of itself; needs no model.

    Raises: TypeError for data that are no bytes; ValueError for bytes that are no such file.
    """
    data = _bytes("file_info", data)
    return _codes.info(data) if data[:4] == _codes.MAGIC else _lossless.info(data)


def _bytes(call: str, data: Any) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{call}: data must be bytes; got {type(data).__name__}")
    return bytes(data)


def _needed(model: Any) -> Any:
    if model is None:
        raise ValueError("decompress: model must be given for a file with loss; got None")
    return model
