"""Measures of a density model, and yardsticks that need no model."""

from genfast.metrics.codebook import codebook_use
from genfast.metrics.compression import gzip_nats, png_bytes, png_nats
from genfast.metrics.distortion import psnr
from genfast.metrics.latent import active_units, latent_nll
from genfast.metrics.likelihood import bits_per_dim, independent_pixel_nll

__all__ = [
    "active_units",
    "bits_per_dim",
    "codebook_use",
    "gzip_nats",
    "independent_pixel_nll",
    "latent_nll",
    "png_bytes",
    "png_nats",
    "psnr",
]
