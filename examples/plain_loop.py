"""A loop of one's own: trains a PixelCNN on digits, then draws samples. Nothing of `genfast.train` is needed."""

import argparse

import torch

import genfast
from genfast import data, models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    images = data.load("digits", split="train").images  # uint8 [1297, 1, 8, 8], levels 0 .. 15
    held_out = data.load("digits", split="test").images
    model = models.build("pixelcnn", channels=1, height=8, width=8, levels=16, hidden=16, layers=4, head=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    for step in range(1, steps + 1):
        batch = images[torch.randint(len(images), (32,))]
        loss = model.loss(batch).mean()  # nats per image
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            print(f"step {step}: {loss.item():.2f} nats per image")

    model.eval()
    with torch.no_grad():
        nats = -genfast.log_prob(model, held_out).mean()
    print(f"held out: {nats:.2f} nats per image, {genfast.metrics.bits_per_dim(nats, 64):.3f} bits per dimension")
    samples = genfast.sample(model, 16, seed=0)
    print("the first sample:", *(" .:-=+*#%@"[row // 2 :][:1] for row in samples[0, 0, 3].tolist()), sep="")


if __name__ == "__main__":
    main()
