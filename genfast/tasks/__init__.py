"""What a trained model is for: drawing, filling in, denoising, translating, embedding, interpolating, compressing."""

from genfast.engine.latents import is_latent
from genfast.tasks.clean import clean
from genfast.tasks.compress import compress, decompress, rate_distortion
from genfast.tasks.denoise import Denoised, denoise
from genfast.tasks.embed import embed, linear_probe, neighbour_accuracy, neighbours, save_embedding
from genfast.tasks.impute import imputation_error, impute
from genfast.tasks.inpaint import Inpainting, inpaint
from genfast.tasks.interpolate import Traversal, interpolate, linear, spherical, traverse
from genfast.tasks.noise import BitFlip, Gaussian
from genfast.tasks.sample import log_prob, sample, stream
from genfast.tasks.shards import sample_shards
from genfast.tasks.translate import translate, translate_folder

__all__ = [
    "BitFlip",
    "Denoised",
    "Gaussian",
    "Inpainting",
    "Traversal",
    "clean",
    "compress",
    "decompress",
    "denoise",
    "embed",
    "imputation_error",
    "impute",
    "inpaint",
    "interpolate",
    "is_latent",
    "linear",
    "linear_probe",
    "log_prob",
    "neighbour_accuracy",
    "neighbours",
    "rate_distortion",
    "sample",
    "sample_shards",
    "save_embedding",
    "spherical",
    "stream",
    "translate",
    "translate_folder",
    "traverse",
]
