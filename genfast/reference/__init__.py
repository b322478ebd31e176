"""Every op in plain PyTorch: the specification, differentiable to any order; and the samplers, which have none."""

from genfast.reference._spec import Spec
from genfast.reference.diagonal_block import SPEC as _diagonal_block
from genfast.reference.diagonal_block import diagonal_block_ref
from genfast.reference.diagonal_lstm import SPEC as _diagonal_lstm
from genfast.reference.diagonal_lstm import diagonal_lstm_ref
from genfast.reference.row_lstm import SPEC as _row_lstm
from genfast.reference.row_lstm import row_lstm_ref

SPECS = {
    spec.name: spec
    for spec in (
        _diagonal_lstm,
        _diagonal_block,
        _row_lstm,
    )
}
SAMPLERS = {}

__all__ = ["SAMPLERS", "SPECS", "Spec", "diagonal_block_ref", "diagonal_lstm_ref", "row_lstm_ref"]
