"""Ten calls of a user's script, as a type checker sees them: `make lint` checks this file strictly; nothing runs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import genfast
from genfast.models import VAE, PixelCNN, PixelCNNConfig, VAEConfig
from genfast.tasks import Check, Denoised, Inpainting, Traversal
from genfast.train import TrainConfig

model = PixelCNN(PixelCNNConfig(hidden=8, layers=2))
images = assert_type(genfast.sample(model, 4, seed=1), Tensor)
foreign: nn.Module = nn.Conv2d(1, 256, 1)
drawn = assert_type(genfast.sample(foreign, 4, shape=(1, 28, 28), levels=256, input_range=(0, 1)), Tensor)
checked = assert_type(genfast.check(foreign, images, lambda x: x.float().mean(), shape=(1, 28, 28), levels=256), Check)
for batch in genfast.stream(model, 100):
    assert_type(batch, Tensor)
nats = assert_type(genfast.log_prob(model, images), Tensor)
mask = torch.ones(1, 1, 28, 28, dtype=torch.bool)
filled = assert_type(genfast.inpaint(model, images, mask, steps=10), Inpainting)
noise = genfast.BitFlipNoise(0.1)
clean = assert_type(genfast.denoise(model, noise.corrupt(images, 2), noise, method="mean"), Denoised)
vae = VAE(VAEConfig(latent=8))
path = assert_type(genfast.interpolate(vae, images, images, 5), Tensor)
moved = assert_type(genfast.traverse(vae, images), Traversal)
vectors = genfast.embed(vae, images)
hidden = assert_type(genfast.diagonal_lstm(torch.zeros(1, 4, 4, 2, 8), torch.zeros(2, 2, 2, 8)), Tensor)
layer: nn.Module = genfast.nn.MaskedConv2d(1, 8, 7, "A")
config = TrainConfig(steps=10, lr=1e-3)
backends = genfast.backends()
