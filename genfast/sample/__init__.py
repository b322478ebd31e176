"""Drawing from a model. `genfast.sample(model, n, ...)`, which is `genfast.sample.draws.sample`, draws whole images;
here are its counter-based random numbers and the inverse of a discrete distribution."""

import sys
from types import ModuleType

from genfast.sample.inverse_cdf import inverse_cdf
from genfast.sample.philox import philox4x32, uniform

__all__ = ["inverse_cdf", "philox4x32", "uniform"]


class _Sampling(ModuleType):
    """The package `genfast.sample`, which can be called."""

    def __call__(self, model, n, **options):
        """`genfast.sample.draws.sample`; imported late, as the models that it draws from import this package."""
        from genfast.sample.draws import sample

        return sample(model, n, **options)


sys.modules[__name__].__class__ = _Sampling
