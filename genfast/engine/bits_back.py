"""Lossless codes of images by a latent variable model: bits-back coding with asymmetric numeral systems.

z is popped from a stack of bits under q(z | x), then x is pushed under p(x | z) and z under the prior, so that an image
costs `log q(z | x) - log p(x, z)`, on average minus the evidence lower bound. Both networks, the probabilities and the
coder run in csrc/engine/bits_back.cpp, with the same bits on every CPU; the images are coded in a block on one stack.

Paper: Practical Lossless Compression with Latent Variables using Bits Back Coding, arXiv 1901.04866.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genfast._native import backends
from genfast.engine.arguments import check_images, check_int, check_labels
from genfast.engine.calling import copied, probe_images
from genfast.engine.coding import LOWEST_FIRST, Layout, packed, unpacked
from genfast.engine.compiler.layers import lower
from genfast.engine.engine import check_finite
from genfast.engine.protocols import LatentNetworks

VERSION = 1  # of the code: of all that the words depend on apart from the model
MOST_GROUP = 96  # images whose networks run together
MOST_BYTES = 2**26  # of a group
LATENT_BITS, LEAST_BITS = 14, 64  # of a latent under the prior; what the code of an image is taken to have at least
MOST_LEVELS = 256
_ADDRESSES = ("encoder", "encoder_constants", "decoder", "decoder_constants", "labels", "images", "words", "count")
_NUMBERS = (
    *("batch", "capacity", "most", "growth"),
    *("channels", "height", "width", "levels", "head", "components", "latents"),
)
for _entry in ("bits_back_encode", "bits_back_decode"):
    backends.check_signature(_entry, (*_ADDRESSES, *_NUMBERS))


class BitsBack:
    """Codes blocks of images by the weights that a model has now.

    Args:
        model: a `genfast.engine.protocols.LatentNetworks`, as `genfast.models.VAE` is, in any mode.
    Raises: TypeError for another model; ValueError for one with other layers, levels or likelihood, or weights that are
        not finite; RuntimeError without the C++ kernels.
    """

    number, block = 2, 4096  # of the coder in a file; images of a block that is not asked for

    def __init__(self, model: Any) -> None:
        if not isinstance(model, nn.Module) or not isinstance(model, LatentNetworks):
            raise TypeError(f"bits_back: model must have latents, as genfast.models.VAE; got {type(model).__name__}")
        self.spec, self.likelihood, self.latents = model.spec, model.likelihood, model.latent_size
        if self.likelihood.case is None or self.likelihood.is_density or self.spec.levels > MOST_LEVELS:
            expected = f"a likelihood that gives each of at most {MOST_LEVELS} levels a probability"
            got = f"{self.likelihood.name} of {self.spec.levels} levels"
            raise ValueError(f"bits_back: model must have {expected}; got {got}")
        if backends.cpp is None:
            raise RuntimeError(f"bits_back: the C++ kernels must be there; got {backends.backends()['cpp'].reason}")
        check_finite(model, "bits_back")
        plain = copied(model).eval().to(device="cpu", dtype=torch.float32)
        with backends.float_mode():
            self.encoder = lower(plain.encoder_network, self.spec.shape, self.spec.classes)
            self.decoder = lower(plain.decoder_network, (self.latents,), self.spec.classes)
        values, parameters = self.spec.values, self.decoder.output.size
        self.group = max(1, min(MOST_GROUP, MOST_BYTES // (8 * values + 4 * parameters + 24 * self.latents)))
        self.growth = max(1, self.latents * LATENT_BITS // LEAST_BITS)

    def encode_block(self, images: Tensor, labels: int | Tensor | None = None) -> np.ndarray:
        """The words of images, uint32 [N], the last of which is not 0; `decode_block` is given as many images.

        A block has about `14 Z + 64` bits of its own: the more images, the less each pays of it.

        Args:
            images: levels, integers [n, C, H, W].
            labels: of a conditional model: an int, or integers [n].
        Raises: TypeError or ValueError for other images or labels; ValueError where the decoder gives no probabilities.
        """
        images = check_images("encode_block", "images", images, self.spec).cpu().contiguous()
        given = self._labels("encode_block", labels, len(images))
        words = np.empty(len(images) * (self.spec.values + self.latents) + 2, np.uint32)
        count = self._call(backends.cpp.bits_back_encode, images, given, words, 0)
        if count < 0:
            raise ValueError("encode_block: the decoder must give finite parameters; got others")
        return words[:count].copy()

    def decode_block(self, words: np.ndarray, n: int, labels: int | Tensor | None = None) -> Tensor:
        """The n images, uint8 [n, C, H, W] on the CPU, of what `encode_block` made with the same model and labels.

        Raises: TypeError or ValueError for other arguments; ValueError for words that are damaged, or of another model,
            number of images or labels, as far as that shows: it does for nearly all.
        """
        check_int("decode_block", "n", n, 0, 2**40)
        if not isinstance(words, np.ndarray) or words.dtype != np.uint32 or words.ndim != 1:
            kind = f"{words.dtype} {words.shape}" if isinstance(words, np.ndarray) else type(words).__name__
            raise TypeError(f"decode_block: words must be a uint32 array [N]; got {kind}")
        given = self._labels("decode_block", labels, n)
        images = torch.empty(n, *self.spec.shape, dtype=torch.uint8, device="cpu")
        stack = np.empty(len(words) + n * self.latents + 2, np.uint32)
        stack[: len(words)] = words
        if self._call(backends.cpp.bits_back_decode, images, given, stack, len(words)) < 0:
            raise ValueError("decode_block: expected the words of a block of this model; got others, or damaged ones")
        return images

    def encode(self, images: Tensor, labels: Tensor | None, layout: Layout) -> Iterator[bytes]:
        """The stream of each block of images. `images`: levels, uint8."""
        for start in range(0, len(images), layout.block):
            rows = slice(start, start + layout.block)
            words = self.encode_block(images[rows], None if labels is None else labels[rows])
            yield packed(words, LOWEST_FIRST)

    def decode(
        self, streams: Sequence[bytes], n: int, labels: Tensor | None, layout: Layout, first: int = 0
    ) -> Iterator[Tensor | None]:
        """The images of each block, see `genfast.engine.coding.Coder`; None for a stream that no encoder wrote."""
        for number, stream in enumerate(streams):
            start = number * layout.block
            count = min(layout.block, n - start)
            try:
                words = unpacked(stream, LOWEST_FIRST)
                images = self.decode_block(words, count, None if labels is None else labels[start : start + count])
            except ValueError:
                images = None
            yield None if stream.endswith(b"\0") else images

    def tile(self, block: int) -> int:
        """1: an image comes after the other on the stack."""
        return 1

    def memory(self, tile: int) -> int:
        """About the bytes that a thread takes."""
        parameters = self.decoder.output.size
        return self.group * (12 * self.spec.values + 4 * parameters + 24 * self.latents)

    def fingerprints(self) -> tuple[bytes, bytes]:
        """Those of the networks and settings, and of the weights: 8 bytes of SHA-256 each."""
        settings = (VERSION, self.spec, self.likelihood, self.latents, self.group, self.growth)
        tables = self.encoder.table, self.decoder.table
        structure = repr(settings).encode() + b"".join(table.astype("<i8").tobytes() for table in tables)
        weights = b"".join(network.constants.astype("<f4").tobytes() for network in (self.encoder, self.decoder))
        return hashlib.sha256(structure).digest()[:8], hashlib.sha256(weights).digest()[:8]

    def probe(self) -> bytes:
        """A hash of the words of two images, 8 bytes: that of another machine differs if its arithmetic does."""
        images, labels = probe_images(self.spec)
        return hashlib.sha256(self.encode_block(images, labels).astype("<u4").tobytes()).digest()[:8]

    def _labels(self, call: str, labels: int | Tensor | None, n: int) -> Tensor | None:
        given = check_labels(call, labels, self.spec, n, torch.device("cpu"))
        return None if given is None else given.contiguous()

    def _call(self, entry: Any, images: Tensor, labels: Tensor | None, words: np.ndarray, count: int) -> int:
        result, spec = np.array([count], np.int64), self.spec
        entry(
            "float32",
            *self.encoder.addresses,
            *self.decoder.addresses,
            0 if labels is None else labels.data_ptr(),
            images.data_ptr(),
            words.ctypes.data,
            result.ctypes.data,
            len(images),
            len(words),
            self.group,
            self.growth,
            *spec.shape,
            spec.levels,
            self.likelihood.case,
            self.likelihood.components,
            self.latents,
        )
        return int(result[0])
