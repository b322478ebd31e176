"""Counter-based random numbers: each is a pure function of its place. And draws from distributions by them."""

from genfast.random.inverse_cdf import inverse_cdf
from genfast.random.permutation import permutation
from genfast.random.philox import philox4x32, uniform

__all__ = ["inverse_cdf", "permutation", "philox4x32", "uniform"]
