"""A small GAN of points in the plane, and its training: a game whose equilibrium is known."""

import torch
from torch import nn

from genfast.data.gaussian_mixture import GaussianMixture
from genfast.losses import (
    non_saturating_discriminator,
    non_saturating_generator,
    r1_penalty,
    relativistic_discriminator,
    relativistic_generator,
)
from genfast.metrics import EquilibriumMonitor

RING = GaussianMixture.ring(8, radius=2.0, deviation=0.4)


def network(inputs, outputs, width=64):
    layers = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)
    return nn.Sequential(layers[0], nn.LeakyReLU(0.2), layers[1], nn.LeakyReLU(0.2), layers[2])


class RingGAN(nn.Module):
    """`gamma`: weight of the R1 and R2 penalties of the relativistic loss; 0: the non-saturating loss without."""

    def __init__(self, gamma=0.0, width=64):
        super().__init__()
        self.generator, self.discriminator = network(4, 2, width), network(2, 1, width)
        self.gamma, self.adversarial_loss = gamma, "relativistic" if gamma else "non-saturating"

    def generate(self, n):
        return self.generator(torch.randn(n, 4))

    def judge(self, x):
        return self.discriminator(x).flatten()

    def discriminator_loss(self, x):
        with torch.no_grad():
            fake = self.generate(len(x))
        logits = self.judge(x), self.judge(fake)
        report = {"real_logits": logits[0].detach(), "fake_logits": logits[1].detach()}
        if not self.gamma:
            return non_saturating_discriminator(*logits), report
        penalties = r1_penalty(self.judge, torch.cat((x, fake)))
        return relativistic_discriminator(*logits) + self.gamma * penalties, report

    def generator_loss(self, x):
        fake = self.judge(self.generate(len(x)))
        loss = relativistic_generator(self.judge(x), fake) if self.gamma else non_saturating_generator(fake)
        return loss, {"fake_logits": fake.detach()}


def play(model, steps, *, batch=128, discriminator_rate=1e-3, generator_rate=1e-3, generator_steps=1, window=200):
    """Train, and the last record of the monitor."""
    monitor = EquilibriumMonitor(model.adversarial_loss)
    optimizers = {
        side: torch.optim.Adam(getattr(model, side).parameters(), lr=rate, betas=(0.0, 0.9), fused=True)
        for side, rate in (("discriminator", discriminator_rate), ("generator", generator_rate))
    }
    for step in range(steps):
        for side in ("discriminator", *["generator"] * generator_steps):
            loss, report = getattr(model, f"{side}_loss")(RING.sample(batch)[0])
            optimizers[side].zero_grad(set_to_none=True)
            loss.backward()
            optimizers[side].step()
            if side == "discriminator":
                monitor.observe(report["real_logits"], report["fake_logits"])
            for group in optimizers[side].param_groups:
                group["lr"] *= 1 - 1 / (steps - step + 1)
        if (step + 1) % window == 0:
            record = monitor.record()
    return record
