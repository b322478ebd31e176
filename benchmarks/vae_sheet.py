"""One picture of what a VAE is for: `python benchmarks/vae_sheet.py RUN --data DATA --out docs/vae.png`.

RUN is a run or model folder of an unconditional VAE; DATA its images, as for `genfast reconstruct`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import genfast
from genfast import models, tasks
from genfast.data import ImageData, load
from genfast.data.grid import brightness, grid, png
from genfast.io import write_bytes
from genfast.train.run_folder import open_model

ACROSS, SIDE, MARGIN, TITLE = 10, 56, 12, 18


def panels(model: models.VAE, training: ImageData, held_out: ImageData, steps: int) -> Iterator[tuple[str, Tensor]]:
    """Title, and rows of ACROSS images each, float levels [R, ACROSS, C, H, W]."""
    x, levels = held_out.images[:ACROSS], held_out.levels
    yield "drawn from the model", genfast.sample(model, 2 * ACROSS, seed=0).unflatten(0, (2, ACROSS))
    yield "images, and their reconstructions", torch.stack((x, model.reconstruct(x)))
    ends = held_out.images[: 2 * ACROSS : 2][:3], held_out.images[1 : 2 * ACROSS : 2][:3]
    yield "on the way from one image to another", tasks.interpolate(model, *ends, ACROSS)
    moved = tasks.traverse(model, x[:1], steps=ACROSS, count=4, reference=held_out.images)
    yield "one image, its four most active latents moved", moved.images[0]
    vectors, points = (tasks.embed(model, data.images) for data in (held_out, training))
    near = tasks.neighbours(vectors[1:4], points, ACROSS - 1)[1]
    yield "images, and the nearest of the training set", torch.cat((x[1:4, None], training.images[near]), 1)
    known = torch.ones(1, 1, *x.shape[2:], dtype=torch.bool)
    known[:, :, x.shape[2] // 2 :] = False
    filled = [genfast.inpaint(model, x, known, steps=steps, seed=seed) for seed in range(2)]
    shown = torch.where(known, x, (levels - 1) / 2)
    rows = (x, shown, *(result.images for result in filled), (filled[0].mean + filled[1].mean) / 2)
    yield "lower half unknown: truth, input, two draws, mean", torch.stack([row.float() for row in rows])
    noise = genfast.BitFlipNoise(0.1) if levels == 2 else genfast.GaussianNoise(0.2)
    noisy = noise.corrupt(x, levels)
    clean = genfast.denoise(model, noisy, noise, method="mean", steps=steps // 2)
    seen = noise.picture(noisy, levels).clamp(0, 1) * (levels - 1)
    yield f"{noise}: truth, noisy, posterior mean", torch.stack((x.float(), seen.float(), clean.images.float()))


def sheet(parts: Iterable[tuple[str, Tensor]], levels: int) -> bytes:
    """The panels in two columns of about the same height, as bytes of a PNG file."""
    columns = [[], []]
    for title, rows in parts:
        cells = grid(brightness(rows.flatten(0, 1), levels), 256, columns=ACROSS, side=SIDE)
        canvas = Image.new("L", (cells.shape[1], cells.shape[0] + TITLE + MARGIN), 255)
        canvas.paste(Image.fromarray(cells[..., 0]), (0, TITLE))
        ImageDraw.Draw(canvas).text((0, 2), title, fill=0)
        min(columns, key=lambda column: sum(panel.height for panel in column)).append(canvas)
    width = columns[0][0].width
    whole = Image.new("L", (2 * width + MARGIN, max(sum(p.height for p in c) for c in columns) - MARGIN), 255)
    for side, column in enumerate(columns):
        top = 0
        for panel in column:
            whole.paste(panel, (side * (width + MARGIN), top))
            top += panel.height
    return png(np.asarray(whole)[..., None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", metavar="RUN")
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--split", default="test")
    parser.add_argument("--steps", type=int, default=500, help="of the chains (500)")
    parser.add_argument("--out", default="docs/vae.png")
    args = parser.parse_args()
    model = open_model(args.target).eval()
    training, held_out = (load(args.data, root=args.data_root, split=split) for split in ("train", args.split))
    write_bytes(args.out, sheet(panels(model, training, held_out, args.steps), held_out.levels))


if __name__ == "__main__":
    main()
