"""Reads lines of handwritten digits: four scans of a diagonal LSTM, one from each corner, and CTC, as in multi-
dimensional recurrent networks (Graves & Schmidhuber 2008). The lines are made of scikit-learn's digits."""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import genfast
from genfast import data


class Reader(nn.Module):
    """float [B, 1, H, W] -> log-probabilities [W, B, 11] of the digits and a blank."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.gates = nn.Conv2d(1, 2 * 2 * 4 * hidden, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(2, 2, 2, hidden, 4 * hidden) / hidden**0.5)
        self.output = nn.Linear(4 * hidden, 11)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gates(x).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))  # [B, H, W, from above or below, D, 4C]
        down = genfast.diagonal_lstm(gates[:, :, :, 0], self.weight[0])
        up = genfast.diagonal_lstm(gates[:, :, :, 1].flip(1), self.weight[1]).flip(1)
        features = torch.cat((down[:, -1], up[:, 0]), 2).flatten(2)  # [B, W, 4C]: of a column, where a scan leaves it
        return self.output(features).log_softmax(2).transpose(0, 1)


def lines(digits, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Images [count, 1, 8, 8 length] of random digits side by side, and the digits [count, length]."""
    chosen = torch.randint(len(digits), (count, length))
    return digits.images[chosen][:, :, 0].permute(0, 2, 1, 3).flatten(2)[:, None] / 15, digits.labels[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    reader = Reader()
    optimizer = torch.optim.Adam(reader.parameters(), lr=1e-2)
    for step in range(1, steps + 1):
        x, y = lines(data.load("digits", split="train"), 16, 5)
        log_probs = reader(x)
        widths, lengths = torch.full((16,), len(log_probs)), torch.full((16,), 5)
        loss = F.ctc_loss(log_probs, y + 1, widths, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}: CTC loss {loss.item():.3f}")
    x, y = lines(data.load("digits", split="test"), 100, 5)
    read = [[int(d) - 1 for d in torch.unique_consecutive(best) if d > 0] for best in reader(x).argmax(2).T]
    print(f"held-out lines read without an error: {sum(r == t for r, t in zip(read, y.tolist()))} of 100")


if __name__ == "__main__":
    main()
