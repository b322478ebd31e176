"""StyleGAN-style networks on genfast's ops: filtered resampling, bias and activation in one pass, and R1."""

import argparse

import torch
from torch import nn

from genfast import data, losses
from genfast.compat.stylegan3 import bias_act, upfirdn2d
from genfast.nn import MinibatchStddev


class Layer(nn.Module):
    """A convolution, then up- or downsampling by a filter against aliasing, then bias, activation, gain and limit."""

    def __init__(self, inputs: int, outputs: int, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.up, self.down = (inputs * 9) ** -0.5, up, down
        self.register_buffer("taps", upfirdn2d.setup_filter([1, 3, 3, 1]))

    def forward(self, x):
        x = nn.functional.conv2d(x, self.weight * self.scale, padding=1)
        x = upfirdn2d.upsample2d(x, self.taps, self.up) if self.up > 1 else x
        x = upfirdn2d.downsample2d(x, self.taps, self.down) if self.down > 1 else x
        return bias_act.bias_act(x, self.bias, act="lrelu", clamp=256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    images = data.load("digits", split="train").images / 7.5 - 1
    generator = nn.Sequential(
        nn.Linear(16, 256), nn.Unflatten(1, (64, 2, 2)), Layer(64, 32, up=2), Layer(32, 16, up=2), nn.Conv2d(16, 1, 1)
    )
    critic = nn.Sequential(
        Layer(1, 16), Layer(16, 32, down=2), MinibatchStddev(), Layer(33, 64, down=2), nn.Flatten(), nn.Linear(256, 1)
    )
    of_generator = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.0, 0.99))
    of_critic = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.99))
    for step in range(1, steps + 1):
        real, fake = images[torch.randint(len(images), (32,))], generator(torch.randn(32, 16))
        loss = losses.non_saturating_discriminator(critic(real), critic(fake.detach()))
        loss += losses.r1_penalty(critic, real)
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
        value = losses.non_saturating_generator(critic(fake))
        of_generator.zero_grad()
        value.backward()
        of_generator.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}: critic {loss.item():.3f}, generator {value.item():.3f}")


if __name__ == "__main__":
    main()
