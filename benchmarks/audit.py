"""Measure what the audit finds of planted biases: `python benchmarks/audit.py` writes results/audit.json and .md.

Sets of scikit-learn's digits (8x8, 16 levels) in two colours, of which each is tied to five of the ten digits with some
share, or drawn without regard to them. The audit is told of the pixels alone, and then of the digits as a column.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast.audit.columns import Column
from genfast.audit.pixels import FLOOR
from genfast.audit.run import LEVEL, audit
from genfast.audit.shifts import pixel_features, shift_of
from genfast.audit.ties import Power, planted, power, ties_of
from genfast.benchmarks import audit_report
from genfast.io import write_bytes
from genfast.metrics.duplicates import near_duplicates
from genfast.models import VAE, VAEConfig
from genfast.train.run_folder import machine

ROOT = Path(__file__).resolve().parent.parent
SETS, LEVELS = 20, 16
SHARES = (0.9, 0.7, 0.55)
SHIFTED = (0.0, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS, help="of each kind")
    parser.add_argument("--images", type=int, default=1797, help="of a set, at most 1797")
    parser.add_argument("--timed", type=int, default=10_000, help="images of the audit that is timed")
    options = parser.parse_args()
    torch.set_num_threads(2)
    result = {"machine": machine(torch.device("cpu")), "sets": options.sets, "images": options.images, "level": LEVEL}
    result |= {"ties": ties(options), "duplicates": duplicates(options), "shifts": shifts(options)}
    result |= {"clean": clean(options), "time": timed(options)}
    folder = ROOT / "benchmarks" / "results"
    write_bytes(folder / "audit.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(folder / "audit.md", audit_report.markdown(result).encode())


def digits() -> tuple[Tensor, Tensor]:
    """All digits as v in [0, 1], float [n, 8, 8], and which they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy(np.minimum(found.images, 15) / 15).float(), torch.from_numpy(found.target).long()


def coloured(count: int, share: float | None, seed: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [count, 3, 8, 8] in two colours, and their digits; `share` None: a colour is drawn for each image.

    Colours are random, at least 0.3 apart; in every other set they are those of the ground, under white digits.
    """
    rng = np.random.default_rng(seed)
    v, y = digits()
    rows = torch.from_numpy(rng.permutation(len(v))[:count])
    v, y = v[rows], y[rows]
    own = torch.from_numpy(rng.permutation(10) < 5)[y].long()
    kept = torch.from_numpy(rng.random(count) < (0.5 if share is None else share))
    pair = rng.random((2, 3))
    while np.abs(pair[0] / (pair[0].mean() + FLOOR) - pair[1] / (pair[1].mean() + FLOOR)).max() < 0.3:
        pair = rng.random((2, 3))
    colour = torch.from_numpy(pair).float()[torch.where(kept, own, 1 - own)][:, :, None, None]
    images = colour * v[:, None] if seed % 2 else colour * (1 - v[:, None]) + v[:, None]
    return (images * (LEVELS - 1)).round().to(torch.uint8), y


def ties(options: argparse.Namespace) -> list[dict]:
    """Strength and p of the strongest tie of every set, without and with the column, for each share."""
    rows = []
    for share in (None, *SHARES):
        found: dict[str, list[float]] = {name: [] for name in ("strength", "p", "column_strength", "column_p")}
        powers: dict[str, list[Power]] = {"power": [], "column_power": []}
        for number in range(options.sets):
            images, y = coloured(options.images, share, 1000 * (SHARES.index(share) + 1 if share else 0) + number)
            column = Column("digit", y, tuple("0123456789"))
            every = ties_of(images, LEVELS, [column])
            for name, kind in (("", "content"), ("column_", "digit")):
                own = [t.result for t in every.ties if t.other == kind]
                found[f"{name}strength"].append(max((r.strength for r in own), default=0.0))
                found[f"{name}p"].append(min((r.p for r in own), default=1.0))
            if share is None and number < 3:
                powers["power"].append(power(every.content, every.partitions, LEVEL))
                powers["column_power"].append(planted(column.codes, column.codes[None], LEVEL))
        row: dict[str, Any] = {"share": share, **found}
        for name, some in powers.items():
            if some:
                shares = map(str, some[0].shares)
                row[name] = dict(zip(shares, np.mean([p.found for p in some], 0).round(4).tolist()))
        rows.append(row)
        print(share, np.mean(np.array(found["p"]) <= LEVEL), np.mean(np.array(found["column_p"]) <= LEVEL), flush=True)
    return rows


def duplicates(options: argparse.Namespace) -> list[dict]:
    """Sets in which one image is replaced by a copy of another with noise, in levels; None: no copy."""
    rows = []
    for noise in (None, 0.0, 0.5, 1.0):
        found, others = 0, 0
        for number in range(options.sets):
            images, _ = coloured(options.images, None, 5000 + number)
            if noise is not None:
                generator = torch.Generator().manual_seed(number)
                copy = images[1].float() + noise * torch.randn(images[1].shape, generator=generator)
                images[0] = copy.round().clamp(0, LEVELS - 1).to(torch.uint8)
            pairs = near_duplicates(pixel_features(images, LEVELS), level=LEVEL / 2).pairs.tolist()
            found += [0, 1] in pairs
            others += len([pair for pair in pairs if noise is None or pair != [0, 1]])
        rows.append({"noise": noise, "found": found, "others": others})
        print(rows[-1], flush=True)
    return rows


def shifts(options: argparse.Namespace) -> list[dict]:
    """Two halves of the digits, the second with a share of its images replaced by other images of one digit."""
    rows = []
    for share in SHIFTED:
        found, smallest = 0, []
        for number in range(options.sets):
            images, y = coloured(options.images, None, 7000 + number)
            half, generator = len(images) // 2, torch.Generator().manual_seed(number)
            rest = y[half:]
            source = half + (rest == number % 10).nonzero()[:, 0]
            swapped = torch.rand(len(rest), generator=generator) < share
            draws = source[torch.randint(len(source), (len(rest),), generator=generator)]
            second = torch.where(swapped, draws, half + torch.arange(len(rest)))
            features = pixel_features(torch.cat((images[:half], images[second])), LEVELS)
            none = torch.zeros(half, 1), torch.zeros(len(rest), 1)
            shift = shift_of(("a", "b"), features, half, none, (0,), LEVEL, number)
            found += shift.test.p <= LEVEL
            smallest.append(shift.smallest)
        known = [value for value in smallest if value is not None]
        rows.append({"share": share, "found": int(found), "smallest": float(np.median(known)) if known else None})
        print(rows[-1], flush=True)
    return rows


def small_vae(size: int, levels: int) -> VAE:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"channels": 3, "height": size, "width": size, "levels": levels}
    return VAE(VAEConfig(**shape, latent=8, hidden=16, layers=1)).eval()


def clean(options: argparse.Namespace) -> dict:
    """Whole audits of clean sets, without and with the digits as a column whose order is shuffled."""
    model, counts = small_vae(8, LEVELS), []
    for number in range(options.sets):
        images, y = coloured(options.images, None, 9000 + number)
        order = torch.from_numpy(np.random.default_rng(number).permutation(len(y)))
        column = Column("shuffled", y[order], tuple("0123456789"))
        found = audit(model, images, columns=[column], seed=number)
        counts.append({"findings": len(found.findings), "told": sum(row.q <= 0.05 for row in found.groups[0].told)})
        print(counts[-1], flush=True)
    return {"sets": counts}


def timed(options: argparse.Namespace) -> dict:
    """One audit of 28x28 images, made of the digits, with noise so that none is a copy of another."""
    v, y = digits()
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(0, len(v), options.timed))
    large = torch.nn.functional.interpolate(v[rows][:, None], size=28, mode="bilinear")
    colour = torch.tensor([[1.0, 0.2, 0.2], [0.2, 0.2, 1.0]])[torch.from_numpy(rng.integers(0, 2, options.timed))]
    noise = torch.from_numpy(rng.normal(0, 0.1, large.shape)).float()
    images = (255 * colour[:, :, None, None] * (large + noise).clamp(0, 1)).round().to(torch.uint8)
    model, columns = small_vae(28, 256), [Column("digit", y[rows], tuple("0123456789"))]
    wall, cpu = time.perf_counter(), time.process_time()
    audit(model, images, columns=columns)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "images": options.timed,
        "size": 28,
        "threads": torch.get_num_threads(),
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
    }


if __name__ == "__main__":
    main()
