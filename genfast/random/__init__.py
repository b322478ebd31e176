"""Counter-based random numbers: each is a pure function of its place. And draws from distributions by them."""

from genfast.random.inverse_cdf import inverse_cdf
from genfast.random.philox import philox4x32, uniform

__all__ = ["inverse_cdf", "philox4x32", "uniform"]
