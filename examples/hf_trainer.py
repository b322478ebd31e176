"""Hugging Face Trainer: a PixelCNN++ whose forward returns a dict with the loss."""

import argparse
import tempfile

import torch
from transformers import Trainer, TrainingArguments

import genfast
from genfast import data, models


class WithLoss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        nats = self.model.loss(images)  # [B]
        return {"loss": nats.mean(), "nats": nats}


class Images(torch.utils.data.Dataset):
    def __init__(self, split):
        self.images = data.load("digits", split=split).images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"images": self.images[index]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    steps = parser.parse_args().steps

    sizes = {"filters": 16, "blocks": 1, "mixtures": 2}
    network = WithLoss(models.build("pixelcnn++", channels=1, height=8, width=8, levels=16, **sizes))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            *(folder,), max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-3, logging_steps=100,
            report_to="none", save_strategy="no", remove_unused_columns=False, label_names=[], seed=0,
        )  # fmt: skip
        trainer = Trainer(network, arguments, train_dataset=Images("train"), eval_dataset=Images("valid"))
        trainer.train()
    network.eval().cpu()
    nats = -genfast.log_prob(network.model, Images("test").images[:100]).mean()
    print(f"held out: {nats:.2f} nats per image; samples {tuple(genfast.sample(network.model, 4).shape)}")


if __name__ == "__main__":
    main()
