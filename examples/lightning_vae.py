"""PyTorch Lightning: a VAE of genfast within a LightningModule."""

import argparse

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import genfast
from genfast import data, models


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.vae = models.build("vae", channels=1, height=8, width=8, levels=16, latent=8, hidden=64, layers=2)

    def training_step(self, batch, index):
        loss = self.vae.loss(batch[0]).mean()  # minus the ELBO, in nats per image
        self.log("nats", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, index):
        self.log("held_out_nats", -self.vae.bound(batch[0]).mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps

    lightning.seed_everything(0, verbose=False)
    train, valid = (TensorDataset(data.load("digits", split=split).images) for split in ("train", "valid"))
    trainer = lightning.Trainer(max_steps=steps, accelerator="auto", logger=False, enable_checkpointing=False)
    module = Module()
    trainer.fit(module, DataLoader(train, 32, shuffle=True), DataLoader(valid, 100))
    trainer.validate(module, DataLoader(valid, 100))
    images = genfast.sample(module.vae.cpu(), 4)
    print("samples", tuple(images.shape), images.dtype)


if __name__ == "__main__":
    main()
