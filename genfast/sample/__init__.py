"""Drawing from a model: counter-based random numbers and the inverse of a discrete distribution."""

from genfast.sample.inverse_cdf import inverse_cdf
from genfast.sample.philox import philox4x32, uniform

__all__ = ["inverse_cdf", "philox4x32", "uniform"]
