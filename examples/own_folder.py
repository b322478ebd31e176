"""Your own data set: a folder of pictures, read, cut to a size, trained on, and filled in where a part is missing."""

import argparse

import torch

import genfast
from genfast import data, models
from genfast.train import TrainConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of .png or .jpg files; subfolders are classes")
    parser.add_argument("--out", default="runs/own-folder", help="a new folder for the run")
    parser.add_argument("--size", type=int, default=16, help="pictures are resized and cut to size x size pixels")
    parser.add_argument("--levels", type=int, default=32, help="levels of a channel: fewer are learned sooner")
    parser.add_argument("--steps", type=int, default=5000)
    args = parser.parse_args()

    train, valid = (
        data.load(args.folder, split=split, size=args.size, levels=args.levels) for split in ("train", "valid")
    )
    print(data.describe(train))
    channels, height, width = train.images.shape[1:]
    model = models.build(
        "pixelcnn++", channels=channels, height=height, width=width, levels=train.levels, filters=24, blocks=2
    )
    config = TrainConfig(steps=args.steps, batch=8, eval_every=min(500, args.steps))
    result = genfast.fit(model, train, valid, config, args.out)
    print(f"{result}; the model is in {args.out}/model")

    model = models.load(f"{args.out}/model")
    known = torch.ones(1, 1, height, width, dtype=torch.bool)
    known[..., height // 2 :, :] = False  # the lower half is missing
    filled = genfast.inpaint(model, valid.images[:1], known, steps=10).images
    print("filled in", tuple(filled.shape))


if __name__ == "__main__":
    main()
