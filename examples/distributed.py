"""DistributedDataParallel with gloo: a VQ-VAE whose codebook is learned from the batches of all processes."""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from genfast import data, models


class Loss(torch.nn.Module):
    """The loss as a forward pass: DistributedDataParallel averages the gradients of what its forward computes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.loss(images).mean()


def work(rank: int, ranks: int, store: str, steps: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    torch.manual_seed(0)  # the same weights everywhere
    images = data.load("digits", split="train").images[rank::ranks]
    sizes = {"codes": 32, "features": 16, "hidden": 32, "layers": 1, "downsampling": 1}
    model = models.build("vq-vae", channels=1, height=8, width=8, levels=16, **sizes)
    network = DistributedDataParallel(Loss(model))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    torch.manual_seed(1 + rank)  # other batches everywhere
    for step in range(1, steps + 1):
        loss = network(images[torch.randint(len(images), (32,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0 and (step % 200 == 0 or step == steps):
            print(f"step {step}: loss {loss.item():.2f}")
    total = sum(float(tensor.double().abs().sum()) for tensor in model.state_dict().values())
    totals = [None] * ranks
    torch.distributed.all_gather_object(totals, total)
    if rank == 0:
        print("the processes agree:", len(set(totals)) == 1)
    torch.distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (args.processes, str(Path(folder) / "store"), args.steps), nprocs=args.processes)


if __name__ == "__main__":
    main()
