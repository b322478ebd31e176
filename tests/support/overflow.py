"""Write one element past an output, which `make sanitize` must see: a run that reports nothing proves nothing."""

import torch

from genfast._native import backends

gates, weight, state = torch.randn(1, 2, 2, 1, 4), torch.randn(1, 2, 1, 4), torch.zeros(1, 1)
hidden = torch.empty(3)  # four pixels
addresses = [tensor.data_ptr() for tensor in (gates, weight, state, state, hidden)]
backends.cpp.diagonal_lstm_forward("float32", *addresses, 0, 0, 1, 2, 2, 1, 1)
print("not seen")
