"""What a trained model is for: drawing, filling in, denoising, translating, embedding, interpolating, compressing."""

from genfast.tasks._latent import is_latent
from genfast.tasks.check import check
from genfast.tasks.clean import clean
from genfast.tasks.compress import compress, decompress, file_info
from genfast.tasks.denoise import denoise
from genfast.tasks.embed import embed, neighbours, save_embedding
from genfast.tasks.impute import impute
from genfast.tasks.inpaint import inpaint
from genfast.tasks.interpolate import interpolate, linear, spherical
from genfast.tasks.noise import BitFlipNoise, GaussianNoise
from genfast.tasks.reconstruct import reconstruct
from genfast.tasks.results import Check, Denoised, FileInfo, Inpainting, Traversal
from genfast.tasks.sample import log_prob, sample, stream
from genfast.tasks.shards import sample_shards
from genfast.tasks.translate import translate, translate_folder
from genfast.tasks.traverse import traverse

__all__ = [
    "BitFlipNoise",
    "Check",
    "Denoised",
    "FileInfo",
    "GaussianNoise",
    "Inpainting",
    "Traversal",
    "check",
    "clean",
    "compress",
    "decompress",
    "denoise",
    "embed",
    "file_info",
    "impute",
    "inpaint",
    "interpolate",
    "is_latent",
    "linear",
    "log_prob",
    "neighbours",
    "reconstruct",
    "sample",
    "sample_shards",
    "save_embedding",
    "spherical",
    "stream",
    "translate",
    "translate_folder",
    "traverse",
]
