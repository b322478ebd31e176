"""genfast: natively accelerated pieces of deep generative models, each with a pure PyTorch fallback."""

from genfast._backends import backends, explain, set_level
from genfast.ops import diagonal_block, diagonal_lstm, row_lstm

__version__ = "0.1.0"

__all__ = ["backends", "diagonal_block", "diagonal_lstm", "explain", "row_lstm", "set_level"]
