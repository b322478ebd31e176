"""The diagonal LSTM in plain PyTorch: the specification of `genfast.ops.diagonal_lstm`."""

import torch


def diagonal_lstm_ref(gates, weight, h0=None, c0=None):
    """Scan every direction cell by cell along the anti-diagonals; differentiable to any order.

    `gates` [B, H, W, D, 4C], `weight` [D, 2, C, 4C], `h0` and `c0` [D, C]; returns `hidden` [B, H, W, D, C].
    """
    batch, height, width, directions, _ = gates.shape
    size = weight.shape[2]
    boundary = gates.new_zeros(directions, size)
    h0 = boundary if h0 is None else h0
    c0 = boundary if c0 is None else c0
    maps = []
    for d in range(directions):
        scan = gates[:, :, :, d] if d == 0 else gates[:, :, :, d].flip(2)
        hidden = _scan(scan, weight[d], h0[d], c0[d])
        maps.append(hidden if d == 0 else hidden.flip(2))
    return torch.stack(maps, dim=3)


def _scan(gates, weight, h0, c0):
    """One direction, left to right. All cells of one anti-diagonal are computed together."""
    batch, height, width, _ = gates.shape
    if batch * height * width == 0:
        return gates.new_zeros(batch, height, width, h0.shape[0]) + 0 * (gates.sum() + weight.sum() + h0.sum() + c0.sum())
    taps = torch.cat((weight[0], weight[1]))
    outside_h, outside_c = h0.expand(batch, -1), c0.expand(batch, -1)
    hidden, cell = {}, {}
    for t in range(height + width - 1):
        rows = range(max(0, t - width + 1), min(height, t + 1))
        above = torch.stack([hidden.get((i - 1, t - i), outside_h) for i in rows], 1)
        side = torch.stack([hidden.get((i, t - i - 1), outside_h) for i in rows], 1)
        memory = torch.stack([cell.get((i, t - i - 1), outside_c) for i in rows], 1)
        inputs = torch.stack([gates[:, i, t - i] for i in rows], 1)
        i_gate, f_gate, g_gate, o_gate = (inputs + torch.cat((above, side), 2) @ taps).chunk(4, dim=2)
        c = f_gate.sigmoid() * memory + i_gate.sigmoid() * g_gate.tanh()
        h = o_gate.sigmoid() * c.tanh()
        for n, i in enumerate(rows):
            hidden[i, t - i], cell[i, t - i] = h[:, n], c[:, n]
    pixels = [hidden[i, j] for i in range(height) for j in range(width)]
    return torch.stack(pixels, 1).reshape(batch, height, width, -1)
