"""Hugging Face Accelerate: one loop for a CPU, a GPU or several: `accelerate launch accelerate_pixelcnn.py`."""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

import genfast
from genfast import data, models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps

    accelerator = Accelerator()
    set_seed(0)
    digits = data.load("digits", split="train")
    loader = DataLoader(TensorDataset(digits.images, digits.labels), 32, shuffle=True)
    model = models.build("gated-pixelcnn", channels=1, height=8, width=8, levels=16, classes=10, hidden=16, layers=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    network = Loss(model)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)

    step = 0
    while step < steps:
        for images, labels in loader:
            loss = network(images, labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            step += 1
            if step % 200 == 0 or step >= steps:
                accelerator.print(f"step {step}: {loss.item():.2f} nats per image")
            if step >= steps:
                break

    samples = genfast.sample(accelerator.unwrap_model(network).model, 4, labels=3)
    accelerator.print("four threes", tuple(samples.shape))


class Loss(torch.nn.Module):
    """The loss as a forward pass, which is what wrappers of several processes need."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, labels):
        return self.model.loss(images, labels).mean()


if __name__ == "__main__":
    main()
