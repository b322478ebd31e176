"""Families of models compared: trained with one budget, measured in one way, and claims decided by the measures."""

from genfast.train.comparison.claims import Claim, claims
from genfast.train.comparison.compare import Compared, Comparison, compare, compare_runs
from genfast.train.comparison.families import FAMILIES, Family
from genfast.train.comparison.measures import DRAWN, Latents, ModelMeasures, Reference, Studied, damaged, study
from genfast.train.comparison.training import Cost

__all__ = [
    "DRAWN",
    "FAMILIES",
    "Claim",
    "Compared",
    "Comparison",
    "Cost",
    "Family",
    "Latents",
    "ModelMeasures",
    "Reference",
    "Studied",
    "claims",
    "compare",
    "compare_runs",
    "damaged",
    "study",
]
