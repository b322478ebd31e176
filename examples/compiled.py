"""torch.compile: a network with genfast's ops in one graph, beside the same network run eagerly."""

import argparse
import time

import torch
from torch import nn

import genfast
from genfast import data
from genfast.nn import DiagonalBiLSTM, MaskedConv2d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--backend", default="inductor", help="of torch.compile; aot_eager needs no compiler")
    args = parser.parse_args()

    images = (data.load("digits", split="train").images >= 8).to(torch.uint8)
    torch.manual_seed(0)
    network = nn.Sequential(
        MaskedConv2d(1, 16, 5, mask="A"), nn.ReLU(), DiagonalBiLSTM(16, 16), nn.ReLU(), nn.Conv2d(16, 1, 1)
    )

    def nats(batch: torch.Tensor) -> torch.Tensor:
        return genfast.bernoulli_nll(batch, network(batch.float())).mean()

    compiled = torch.compile(nats, fullgraph=True, backend=args.backend)
    batch = images[:64]
    print(f"eager {nats(batch).item():.4f}, compiled {compiled(batch).item():.4f} nats per image")
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for name, function in (("eager", nats), ("compiled", compiled)):
        start = time.perf_counter()
        for _ in range(args.steps):
            loss = function(images[torch.randint(len(images), (64,))])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ms = (time.perf_counter() - start) / args.steps * 1000
        print(f"{name}: {ms:.1f} ms a step, {loss.item():.2f} nats per image")


if __name__ == "__main__":
    main()
