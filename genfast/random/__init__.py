"""Random numbers as pure functions of their place, and draws by them."""

from genfast.random.inverse_cdf import inverse_cdf
from genfast.random.philox import philox4x32, uniform

__all__ = ["inverse_cdf", "philox4x32", "uniform"]
