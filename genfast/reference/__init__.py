"""Every op in plain PyTorch: the specification, differentiable to any order; and the samplers, which have none."""

from genfast.reference._spec import Spec
from genfast.reference.bernoulli import SAMPLER as _bernoulli_sample
from genfast.reference.bernoulli import SPEC as _bernoulli_nll
from genfast.reference.bernoulli import bernoulli_nll_ref, bernoulli_sample_ref
from genfast.reference.categorical import SAMPLER as _categorical_sample
from genfast.reference.categorical import SPEC as _categorical_nll
from genfast.reference.categorical import categorical_nll_ref, categorical_sample_ref
from genfast.reference.diagonal_block import SPEC as _diagonal_block
from genfast.reference.diagonal_block import diagonal_block_ref
from genfast.reference.diagonal_lstm import SPEC as _diagonal_lstm
from genfast.reference.diagonal_lstm import diagonal_lstm_ref
from genfast.reference.gated_activation import SPEC as _gated_activation
from genfast.reference.gated_activation import gated_activation_ref
from genfast.reference.logistic_mixture import SAMPLER as _logistic_mixture_sample
from genfast.reference.logistic_mixture import SPEC as _logistic_mixture_nll
from genfast.reference.logistic_mixture import logistic_mixture_nll_ref, logistic_mixture_sample_ref
from genfast.reference.row_lstm import SPEC as _row_lstm
from genfast.reference.row_lstm import row_lstm_ref

SPECS = {
    spec.name: spec
    for spec in (
        _diagonal_lstm,
        _diagonal_block,
        _row_lstm,
        _categorical_nll,
        _bernoulli_nll,
        _gated_activation,
        _logistic_mixture_nll,
    )
}
SAMPLERS = {spec.name: spec for spec in (_categorical_sample, _bernoulli_sample, _logistic_mixture_sample)}

__all__ = [
    "SAMPLERS",
    "SPECS",
    "Spec",
    "bernoulli_nll_ref",
    "bernoulli_sample_ref",
    "categorical_nll_ref",
    "categorical_sample_ref",
    "diagonal_block_ref",
    "diagonal_lstm_ref",
    "gated_activation_ref",
    "logistic_mixture_nll_ref",
    "logistic_mixture_sample_ref",
    "row_lstm_ref",
]
