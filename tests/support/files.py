"""Files as tests of data make them, and the one line that an error should be."""

import io
import struct

import numpy as np
import pytest


def idx_bytes(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def one_error(kinds, *fragments):
    """A context that expects one of `kinds` with all fragments in a message of one line."""
    pattern = "(?s)^(?!.*\n)" + "".join(f"(?=.*{fragment})" for fragment in fragments)
    return pytest.raises(kinds, match=pattern)
