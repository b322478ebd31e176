"""What a model with latents is for: paths between images, vectors of images, missing pixels, noise."""

from genfast.latent.compression import compress, decompress, rate_distortion
from genfast.latent.denoising import clean
from genfast.latent.embedding import embed, linear_probe, neighbour_accuracy, neighbours, save_embedding
from genfast.latent.imputation import imputation_error, impute
from genfast.latent.interpolation import Traversal, interpolate, linear, spherical, traverse
from genfast.sampling.latents import is_latent

__all__ = [
    "Traversal",
    "clean",
    "compress",
    "decompress",
    "embed",
    "imputation_error",
    "impute",
    "interpolate",
    "is_latent",
    "linear",
    "linear_probe",
    "neighbour_accuracy",
    "neighbours",
    "rate_distortion",
    "save_embedding",
    "spherical",
    "traverse",
]
