"""The accelerated ops: plain functions of tensors, each with a native and a pure PyTorch implementation."""

from genfast.ops.bernoulli import bernoulli_nll, bernoulli_sample
from genfast.ops.categorical import categorical_nll, categorical_sample
from genfast.ops.diagonal_block import diagonal_block
from genfast.ops.diagonal_lstm import diagonal_lstm
from genfast.ops.gated_activation import gated_activation
from genfast.ops.logistic_mixture import logistic_mixture_nll, logistic_mixture_sample
from genfast.ops.row_lstm import row_lstm

__all__ = [
    "bernoulli_nll",
    "bernoulli_sample",
    "categorical_nll",
    "categorical_sample",
    "diagonal_block",
    "diagonal_lstm",
    "gated_activation",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "row_lstm",
]
