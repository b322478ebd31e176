"""The Triton kernels in Triton's interpreter, on the CPU. Run by test_triton.py in a process of its own, since
TRITON_INTERPRET must be set before triton is imported. Its bfloat16 is silently wrong: float32 and float16 only."""

import contextlib
from unittest import mock

import numpy
import pytest
import torch
from triton.runtime import interpreter

from genfast import testing
from genfast.kernels import _common, diagonal_block, diagonal_lstm, row_lstm
from genfast.reference import SPECS, diagonal_lstm_ref

GUARD, MARK = 64, 77
STREAMED = _common.Streamed(rows=16, block_n=16, block_k=16, num_warps=4, num_stages=2)


@pytest.fixture(autouse=True)
def _addresses(monkeypatch):
    """No load or store, however its value is used, may lie outside the tensors of its launch: a GPU may fault."""
    ranges = []
    plain = {n: getattr(interpreter.InterpreterBuilder, n) for n in ("create_masked_load", "create_masked_store")}
    plain_init = interpreter.GridExecutor._init_args_hst

    def init(self, args, kwargs):
        hosts = plain_init(self, args, kwargs)
        tensors = [x for x in (*hosts[0], *hosts[1].values()) if isinstance(x, torch.Tensor)]
        ranges[:] = [(x.data_ptr(), x.data_ptr() + x.numel() * x.element_size()) for x in tensors]
        return hosts

    def check(addresses, mask):
        # A mask that a scalar is part of comes as whole numbers.
        used = addresses.data[numpy.broadcast_to(mask.data.astype(bool), addresses.data.shape)]
        inside = numpy.zeros(used.shape, bool)
        for start, end in ranges:
            inside |= (used >= start) & (used < end)
        assert inside.all(), "an address outside the tensors"

    def load(self, addresses, mask, *rest):
        check(addresses, mask)
        return plain["create_masked_load"](self, addresses, mask, *rest)

    def store(self, addresses, value, mask, *rest):
        check(addresses, mask)
        return plain["create_masked_store"](self, addresses, value, mask, *rest)

    monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", init)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_load", load)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_store", store)


@contextlib.contextmanager
def guarded_outputs():
    """Inside, new tensors are NaN within a larger buffer whose rest must still be untouched at the end."""
    buffers = []

    def embed(shape, dtype, fill):
        shape = torch.Size(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        buffer = torch.full((shape.numel() + 2 * GUARD,), MARK, dtype=dtype)
        buffer[GUARD : GUARD + shape.numel()] = fill
        buffers.append(buffer)
        return buffer[GUARD : GUARD + shape.numel()].view(shape)

    plain = torch.Tensor.new_empty

    def new_empty(self, *shape, dtype=None, **device):
        if device:  # the interpreter's own
            return plain(self, *shape, dtype=dtype, **device)
        dtype = dtype or self.dtype
        return embed(shape, dtype, torch.nan if dtype.is_floating_point else torch.iinfo(dtype).max)

    with (
        mock.patch.object(torch.Tensor, "new_empty", new_empty),
        mock.patch.object(torch, "empty_like", lambda x: embed(x.shape, x.dtype, torch.nan)),
        mock.patch.object(torch, "empty", lambda *shape, dtype, device: embed(shape, dtype, torch.nan)),
        mock.patch.object(torch, "zeros", lambda *shape, dtype, device: embed(shape, dtype, 0)),
    ):
        yield
    assert buffers
    for buffer in buffers:
        assert (buffer[:GUARD] == MARK).all() and (buffer[-GUARD:] == MARK).all(), "wrote outside an output"


def run(op, inputs, module):
    """Output and gradients by the launchers alone, every buffer guarded; and the output without saving."""
    forward, backward = (getattr(module, f"{op}_{name}") for name in ("forward", "backward"))
    inputs = {name: testing.embedded(tensor) for name, tensor in inputs.items()}
    with guarded_outputs():
        lean = forward(*inputs.values(), False)
        output, *saved = forward(*inputs.values(), True)
    assert all(tensor.numel() == 0 for tensor in lean[1:])
    testing.assert_identical(lean[0], output, name="output without saving")
    values = {**inputs, **dict(zip(("hidden", "saved_gates", "saved_cells"), [output, *saved][-3:]))}
    residuals = {
        "diagonal_lstm": ("hidden", "saved_gates", "saved_cells", "weight", "h0", "c0"),
        "row_lstm": ("hidden", "saved_gates", "saved_cells", "weight", "h0", "c0"),
        "diagonal_block": (
            "x", "hidden", "saved_gates", "saved_cells", "input_weight", "weight", "h0", "c0", "output_weight",
        ),
    }[op]  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    incoming = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    with guarded_outputs():
        gradients = backward(testing.embedded(incoming), *(testing.embedded(values[name]) for name in residuals))
    return {"output": output, **{f"grad_{name}": g for name, g in zip(inputs, gradients)}}


def check(op, dtype, module, **sizes):
    spec = SPECS[op]
    inputs = spec.inputs(sizes, dtype=dtype)
    got = run(op, inputs, module)
    truth = testing.evaluate(spec.reference, {name: tensor.double() for name, tensor in inputs.items()})
    rival = testing.evaluate(spec.reference, inputs) if dtype == torch.float16 else None
    for name, value in got.items():
        assert value.dtype == dtype
        if rival:
            testing.assert_no_worse(value, rival[name], truth[name], name=name)
        else:
            testing.assert_matches(value, truth[name], name=name)


# C below, at and past a block; one row, one column; several images of one program, the last one missing.
CASES = [
    (torch.float32, 1, 1, 1, 1, 1),
    (torch.float32, 3, 5, 3, 2, 3),
    (torch.float32, 1, 17, 2, 2, 16),
    (torch.float32, 17, 1, 3, 1, 17),
    (torch.float32, 3, 4, 1, 2, 33),
    (torch.float32, 0, 3, 2, 2, 3),
    (torch.float32, 2, 0, 2, 2, 3),
    (torch.float16, 3, 3, 5, 2, 16),
    (torch.float16, 1, 3, 2, 1, 33),
    (torch.float16, 2, 2, 3, 2, 65),
]


@pytest.mark.parametrize("dtype, B, H, W, D, C", CASES)
def test_diagonal_lstm(dtype, B, H, W, D, C):
    check("diagonal_lstm", dtype, diagonal_lstm, B=B, H=H, W=W, D=D, C=C)


@pytest.mark.parametrize("B, H, W, D, C", [(1, 17, 1, 1, 5), (6, 3, 2, 1, 17), (1, 2, 2, 2, 16)])
def test_streamed_in_several_blocks(B, H, W, D, C, monkeypatch):
    """Rows, then units and inputs of the products, one past a block; and all of them one block exactly."""
    monkeypatch.setattr(diagonal_lstm, "scan_launch", lambda *_: STREAMED)
    check("diagonal_lstm", torch.float32, diagonal_lstm, B=B, H=H, W=W, D=D, C=C)


@pytest.mark.parametrize("dtype, B, H, W, D, C", [(torch.float32, 1, 2, 3, 2, 13), (torch.float16, 1, 2, 2, 1, 16)])
def test_side_tap_kept(dtype, B, H, W, D, C, monkeypatch):
    monkeypatch.setattr(diagonal_lstm, "scan_launch", lambda *_: STREAMED._replace(keep_side=True))
    check("diagonal_lstm", dtype, diagonal_lstm, B=B, H=H, W=W, D=D, C=C)


@pytest.mark.parametrize("B, H, W, F, C", [(2, 3, 4, 6, 3), (1, 1, 1, 1, 1), (0, 2, 2, 4, 3), (2, 1, 3, 5, 17)])
def test_diagonal_block(B, H, W, F, C):
    check("diagonal_block", torch.float32, diagonal_block, B=B, H=H, W=W, F=F, C=C)


# One column, one row, several images of one program and the last one missing, images wider than the lanes.
@pytest.mark.parametrize(
    "dtype, B, H, W, C",
    [
        (torch.float32, 1, 1, 1, 1),
        (torch.float32, 3, 4, 5, 3),
        (torch.float32, 5, 3, 7, 17),
        (torch.float32, 2, 5, 1, 16),
        (torch.float32, 1, 3, 35, 5),
        (torch.float32, 0, 3, 2, 3),
        (torch.float32, 2, 3, 0, 3),
        (torch.float16, 3, 3, 5, 16),
        (torch.float16, 1, 3, 2, 33),
    ],
)
def test_row_lstm(dtype, B, H, W, C):
    check("row_lstm", dtype, row_lstm, B=B, H=H, W=W, C=C)


@pytest.mark.parametrize("B, H, W, C", [(1, 3, 17, 5), (6, 3, 3, 17), (1, 3, 2, 16)])
def test_row_lstm_in_several_blocks(B, H, W, C, monkeypatch):
    """Lanes, then units and inputs of the products, one past a block; and all of them one block exactly."""
    monkeypatch.setattr(row_lstm, "row_launch", lambda *_: STREAMED)
    launch = _common.WeightGradient(block_m=16, block_n=32, block_k=16, steps=2, num_warps=4, num_stages=2)
    monkeypatch.setattr(row_lstm, "weight_launch", lambda *_: launch)
    check("row_lstm", torch.float32, row_lstm, B=B, H=H, W=W, C=C)


def test_weight_gradient_in_several_parts(monkeypatch):
    """Parts that end inside an image and one that ends past the last cell; blocks smaller than the weight."""
    launch = _common.WeightGradient(block_m=16, block_n=32, block_k=16, steps=2, num_warps=4, num_stages=2)
    monkeypatch.setattr(diagonal_lstm, "weight_launch", lambda *_: launch)
    check("diagonal_lstm", torch.float32, diagonal_lstm, B=3, H=4, W=6, D=2, C=19)


def test_matches_torch_lstm():
    """With one row and no tap above it is torch.nn.LSTM, the independent judge."""
    size, steps = 5, 4
    lstm = torch.nn.LSTM(size, size, batch_first=True)
    x = torch.randn(2, steps, size)
    gates = (x @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0).view(2, 1, steps, 1, 4 * size)
    weight = torch.stack((torch.zeros(size, 4 * size), lstm.weight_hh_l0.T))[None]
    outside = torch.zeros(1, size)
    hidden = diagonal_lstm.diagonal_lstm_forward(gates.detach(), weight.detach(), outside, outside, False)[0]
    testing.assert_matches(hidden.view(2, steps, size), lstm(x)[0], name="hidden")


def test_batch_split_changes_no_bit():
    inputs = SPECS["diagonal_lstm"].inputs({"B": 5, "H": 3, "W": 4, "D": 2, "C": 7})
    gates, *rest = inputs.values()
    whole = diagonal_lstm.diagonal_lstm_forward(gates, *rest, False)[0]
    parts = [diagonal_lstm.diagonal_lstm_forward(part, *rest, False)[0] for part in gates.split(2)]
    testing.assert_identical(torch.cat(parts), whole, name="hidden")


def test_guards_catch_a_wild_write():
    """The guards themselves: a launcher that writes one element past its output fails."""
    with pytest.raises(AssertionError, match="outside an output"), guarded_outputs():
        output = torch.ones(4).new_empty(4)
        torch.as_strided(output, (1,), (1,), output.storage_offset() + 4).fill_(0)


def test_saturated_gates():
    """Large pre-activations: no overflow in exp, no NaN."""
    gates = torch.tensor([-1e4, 1e4, -100, 100]).repeat(16).view(1, 2, 2, 1, 16)
    weight, outside = torch.zeros(1, 2, 4, 16), torch.ones(1, 4)
    hidden = diagonal_lstm.diagonal_lstm_forward(gates, weight, outside, outside, False)[0]
    testing.assert_matches(hidden, diagonal_lstm_ref(gates, weight, outside, outside), name="hidden")
