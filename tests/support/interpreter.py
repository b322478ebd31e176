"""Guards of what Triton's interpreter runs on the CPU: all addresses of a launch, all new buffers of a launcher.

conftest.py puts them around every test of a process that interprets. The interpreter's bfloat16 is silently wrong:
float32 and float16 only.
"""

import contextlib
from unittest import mock

import numpy
import pytest
import torch
from triton.runtime import interpreter

from genfast._native import backends

GUARD, MARK = 64, 77


@pytest.fixture(autouse=True)
def guards(monkeypatch):
    check_addresses(monkeypatch)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
    read_scalars(monkeypatch)
    kernels_of = backends._kernels
    monkeypatch.setattr(backends, "_kernels", lambda op: Guarded(kernels_of(op)))


class Guarded:
    """A module of kernels whose launchers are guarded."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        def launch(*args, **kwargs):
            with guarded_outputs():
                results = getattr(self.module, name)(*args, **kwargs)
            # For torch's own checks without the buffers around them.
            return results.clone() if torch.is_tensor(results) else tuple(result.clone() for result in results)

        return launch


def read_scalars(monkeypatch):
    """A scalar that is an array of one number may bound a loop: Triton 3.6 leaves it to NumPy, and 2.4 refuses."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, *rest):
        patch(tensor, *rest)
        tensor.__index__ = lambda self: self.handle.data.item()

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


def check_addresses(monkeypatch):
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
        used = addresses.data[numpy.broadcast_to(mask.data, addresses.data.shape)]
        inside = numpy.zeros(used.shape, bool)
        for start, end in ranges:
            inside |= (used >= start) & (used < end)
        assert inside.all(), "an address outside the tensors"

    def of_bits(mask):
        # The interpreter spreads a comparison of scalars with the type of what was compared: a mask that one is part
        # of comes as whole numbers, which Triton 3.9 refuses.
        return interpreter.TensorHandle(mask.data.astype(bool), interpreter.tl.int1)

    def load(self, addresses, mask, *rest):
        mask = of_bits(mask)
        check(addresses, mask)
        return plain["create_masked_load"](self, addresses, mask, *rest)

    def store(self, addresses, value, mask, *rest):
        mask = of_bits(mask)
        check(addresses, mask)
        return plain["create_masked_store"](self, addresses, value, mask, *rest)

    monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", init)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_load", load)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_store", store)


def dot(self, a, b, total, *precision):
    """A product whose every element is summed in one order, as a GPU's is: that of numpy depends on where in the
    matrix an element stands."""
    x, y = (tensor.data.astype(total.data.dtype) for tensor in (a, b))
    products = numpy.einsum("...ik,...kj->...ij", x, y, optimize=False)
    return interpreter.TensorHandle(products + total.data, total.dtype.scalar)


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
    for buffer in buffers:
        assert (buffer[:GUARD] == MARK).all() and (buffer[-GUARD:] == MARK).all(), "wrote outside an output"
