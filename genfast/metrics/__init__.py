"""Metrics of models and of their samples, and baselines that need no model."""

from genfast.metrics.classifier import Classifier, train_classifier
from genfast.metrics.codebook import codebook_use
from genfast.metrics.codecs import CodecSize, classical_sizes
from genfast.metrics.compression import gzip_nats, png_bytes, png_nats
from genfast.metrics.coverage import Coverage, mode_coverage
from genfast.metrics.dependence import (
    Dependence,
    Pairwise,
    benjamini_hochberg,
    dependence,
    pairwise_dependence,
    total_correlation,
)
from genfast.metrics.discriminator import (
    Accuracy,
    Calibration,
    calibration,
    discriminator_accuracy,
    reliability,
    wilson_interval,
)
from genfast.metrics.distances import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    looks_real,
    mmd,
    precision_recall,
)
from genfast.metrics.distortion import psnr
from genfast.metrics.duality_gap import DualityGap, duality_gap
from genfast.metrics.duplicates import Duplicates, near_duplicates
from genfast.metrics.equilibrium import EquilibriumMonitor
from genfast.metrics.faults import Fault, Faults, find_faults
from genfast.metrics.imputation import imputation_error
from genfast.metrics.inception import inception_score
from genfast.metrics.intervals import Interval, difference_interval, ratio_interval
from genfast.metrics.latent import active_units, latent_nll
from genfast.metrics.likelihood import bits_per_dim, independent_pixel_nll
from genfast.metrics.memorisation import Memorisation, memorisation, neighbour_ratios
from genfast.metrics.probe import linear_probe, linear_probe_hits, neighbour_accuracy
from genfast.metrics.rate_distortion import Rate, rate_distortion
from genfast.metrics.sharpness import Sharpness, image_energies, sharpness
from genfast.metrics.translation import translation_errors
from genfast.metrics.two_sample import TwoSample, share_test, two_sample_test
from genfast.metrics.verdict import Verdict, verdict

__all__ = [
    "rate_distortion",
    "Rate",
    "neighbour_accuracy",
    "linear_probe",
    "imputation_error",
    "Accuracy",
    "Dependence",
    "Duplicates",
    "Pairwise",
    "TwoSample",
    "benjamini_hochberg",
    "dependence",
    "near_duplicates",
    "pairwise_dependence",
    "share_test",
    "total_correlation",
    "two_sample_test",
    "Calibration",
    "Classifier",
    "CodecSize",
    "Coverage",
    "DualityGap",
    "EquilibriumMonitor",
    "Fault",
    "Faults",
    "Interval",
    "Memorisation",
    "Sharpness",
    "difference_interval",
    "find_faults",
    "image_energies",
    "linear_probe_hits",
    "memorisation",
    "neighbour_ratios",
    "ratio_interval",
    "sharpness",
    "Verdict",
    "active_units",
    "bits_per_dim",
    "calibration",
    "classical_sizes",
    "codebook_use",
    "density_coverage",
    "discriminator_accuracy",
    "duality_gap",
    "frechet_distance",
    "gzip_nats",
    "inception_score",
    "independent_pixel_nll",
    "kernel_distance",
    "latent_nll",
    "looks_real",
    "mmd",
    "mode_coverage",
    "png_bytes",
    "png_nats",
    "precision_recall",
    "psnr",
    "reliability",
    "train_classifier",
    "translation_errors",
    "verdict",
    "wilson_interval",
]
