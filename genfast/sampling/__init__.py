"""Drawing images from a model, every pixel computed once: programs, engines, and what they are used for."""

from genfast.sampling.inverse_cdf import inverse_cdf
from genfast.sampling.philox import philox4x32, uniform

__all__ = ["inverse_cdf", "philox4x32", "uniform"]
