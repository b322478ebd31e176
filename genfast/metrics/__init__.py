"""Measures of a density model, and yardsticks that need no model."""

from genfast.metrics.codebook import codebook_use
from genfast.metrics.compression import gzip_nats, png_bytes, png_nats
from genfast.metrics.distortion import psnr
from genfast.metrics.features import density_coverage, frechet_distance, kernel_distance, mmd, precision_recall
from genfast.metrics.latent import active_units, latent_nll
from genfast.metrics.likelihood import bits_per_dim, independent_pixel_nll

__all__ = [
    "active_units",
    "bits_per_dim",
    "codebook_use",
    "density_coverage",
    "frechet_distance",
    "gzip_nats",
    "independent_pixel_nll",
    "kernel_distance",
    "latent_nll",
    "mmd",
    "png_bytes",
    "png_nats",
    "precision_recall",
    "psnr",
]
