"""What varies in a set of images, and where the set is biased."""

from genfast.audit.columns import Column, column, label_column, read_column
from genfast.audit.result import LIMITS, Audit, Finding
from genfast.audit.run import audit
from genfast.audit.weights import Weights, balance, weights_csv

__all__ = [
    "LIMITS",
    "Audit",
    "Column",
    "Finding",
    "Weights",
    "audit",
    "balance",
    "column",
    "label_column",
    "read_column",
    "weights_csv",
]
