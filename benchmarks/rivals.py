"""What genfast is measured against: the same layer in plain torch, done well."""

import torch
from torch import nn
from torch.nn import functional as F


def skew(x):
    """Shift row i of [B, H, W, C] right by i: [T, B, H, C] with T = H + W - 1, by padding and one reshape."""
    batch, height, width, size = x.shape
    # A gate of -1e4 is closed: a cell outside the image keeps h = c = 0 exactly.
    padded = F.pad(x, (0, 0, 0, height), value=-1e4).reshape(batch, height * (width + height), size)
    steps = height + width - 1
    return padded[:, : height * steps].reshape(batch, height, steps, size).permute(2, 0, 1, 3).contiguous()


def unskew(x, width):
    """[T, B, H, C] -> [B, H, W, C], the inverse of `skew`."""
    steps, batch, height, size = x.shape
    flat = F.pad(x.permute(1, 2, 0, 3).reshape(batch, height * steps, size), (0, 0, 0, height))
    return flat.reshape(batch, height, width + height, size)[:, :, :width]


def step(gates, h, c, taps):
    """All cells of one anti-diagonal: `gates` [B * H, 4C], `h` and `c` [B, H, C], `taps` [2C, 4C]."""
    batch, height, size = h.shape
    above = F.pad(h, (0, 0, 1, 0))[:, :-1]
    inputs = torch.cat((above, h), 2).view(batch * height, 2 * size)
    i, f, g, o = torch.addmm(gates, inputs, taps).view(batch, height, 4 * size).chunk(4, 2)
    c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
    return o.sigmoid() * c.tanh(), c


def diagonal_lstm_eager(gates, weight, *, step=step):
    """Good eager: `diagonal_lstm` with a zero boundary, one addmm for each anti-diagonal, unbound once.

    The same function as `genfast.ops.diagonal_lstm(gates, weight)`, gradients included.
    """
    batch, height, width, directions, _ = gates.shape
    size = weight.shape[2]
    maps = []
    for d in range(directions):
        scan = gates[:, :, :, d] if d == 0 else gates[:, :, :, d].flip(2)
        taps = weight[d].reshape(2 * size, 4 * size)
        h = c = gates.new_zeros(batch, height, size)
        hidden = []
        for inputs in skew(scan).flatten(1, 2).unbind(0):
            h, c = step(inputs, h, c, taps)
            hidden.append(h)
        hidden = unskew(torch.stack(hidden), width)
        maps.append(hidden if d == 0 else hidden.flip(2))
    return torch.stack(maps, 3)


def row_step(gates, h, c, taps):
    """All cells of one row: `gates` [B * W, 4C], `h` and `c` [B, W, C] of the row above, `taps` [3C, 4C]."""
    batch, width, size = h.shape
    above = F.pad(h, (0, 0, 1, 1))
    inputs = torch.cat((above[:, :-2], h, above[:, 2:]), 2).view(batch * width, 3 * size)
    i, f, g, o = torch.addmm(gates, inputs, taps).view(batch, width, 4 * size).chunk(4, 2)
    c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
    return o.sigmoid() * c.tanh(), c


def row_lstm_eager(gates, weight, *, step=row_step):
    """Good eager: `row_lstm` with a zero boundary, one addmm for each row, the rows unbound once.

    The same function as `genfast.ops.row_lstm(gates, weight)`, gradients included.
    """
    batch, _, width, _ = gates.shape
    h = c = gates.new_zeros(batch, width, weight.shape[1])
    hidden = []
    for inputs in gates.transpose(0, 1).flatten(1, 2).unbind(0):
        h, c = step(inputs, h, c, weight.flatten(0, 1))
        hidden.append(h)
    return torch.stack(hidden, 1)


def diagonal_block_eager(x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias):
    """`diagonal_block` on the good eager scan. The boundary is zero, whatever `h0` and `c0` hold."""
    gates = F.linear(x, input_weight.flatten(1).T, input_bias.flatten()).unflatten(3, input_bias.shape)
    left, right = diagonal_lstm_eager(gates, weight).unbind(3)
    return x + F.linear(left + F.pad(right[:, :-1], (0, 0, 0, 0, 1, 0)), output_weight.T, output_bias)


class SequenceLSTM(nn.Module):
    """torch's bidirectional LSTM with a step for each diagonal: not the same function, the same steps.

    [H + W - 1, B * H, F] -> [H + W - 1, B * H, 2C], input-to-state included.
    """

    def __init__(self, batch, height, width, features, size):
        super().__init__()
        self.lstm = nn.LSTM(features, size, bidirectional=True)
        self.x = nn.Parameter(torch.randn(height + width - 1, batch * height, features))

    def forward(self):
        return self.lstm(self.x)[0]


def cross_entropy_of_rows(x, logits):
    """`categorical_nll` as people write it: a permuted copy of the logits, one row for each value."""
    rows = logits.permute(0, 1, 3, 4, 2).reshape(-1, logits.shape[2])
    return F.cross_entropy(rows, x.flatten().long(), reduction="none").view(x.shape).sum((1, 2, 3))


def categorical_nll_eager(x, logits):
    """`categorical_nll` without the copy: the levels stay dimension 1."""
    return F.cross_entropy(logits.transpose(1, 2), x.long(), reduction="none").sum((1, 2, 3))


def gated_activation_eager(x):
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


def multinomial(logits):
    """Draws of the distribution of `categorical_sample`: other numbers, and no say in which."""
    rows = logits.permute(0, 1, 3, 4, 2).reshape(-1, logits.shape[2])
    return torch.multinomial(rows.softmax(1), 1)


def bernoulli(logits):
    return torch.bernoulli(torch.sigmoid(logits))
