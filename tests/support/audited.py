"""Calls of what an audit is made of: rows of `support.public`."""

import tempfile
from pathlib import Path

import torch
from support.pieces import image_set, integers, levels, normal

from genfast import audit, data, metrics, models
from genfast._defaults import plain_defaults


def audited():
    """What an audit finds of noise in two colours."""
    shape, red = levels(120, 1, 8, 8, levels=2), integers(120, below=2)[:, None, None, None]
    images = 15 * torch.cat((red * shape, (1 - red) * shape, 0 * shape), 1)
    torch.manual_seed(0)
    with plain_defaults():
        sizes = {"channels": 3, "height": 8, "width": 8, "levels": 16}
        model = models.VAE(models.VAEConfig(**sizes, latent=3, hidden=4, layers=0)).eval()
    found = audit.audit(model, images.to(torch.uint8), columns=[audit.column("a", ["x", "y"] * 60)])
    return [tie.result.null for tie in found.ties], found.weights.values


def read_column():
    images = data.ImageData(levels(2, 1, 2, 2), 256, "two")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text("index,b\n0,x\n1,y\n")
        return audit.read_column(path, "b", images).codes


AUDITED = {
    "audit.audit": audited,
    "audit.balance": lambda: audit.balance("two", integers(20, below=3), integers(20, below=2, seed=1)).values,
    "audit.column": lambda: audit.column("a", ["x", "y", "x"]).codes,
    "audit.label_column": lambda: audit.label_column(image_set("projection-gan")).codes,
    "audit.read_column": read_column,
    "audit.weights_csv": lambda: audit.weights_csv(audit.balance("one", integers(9, below=3)), ()),
    "metrics.benjamini_hochberg": lambda: metrics.benjamini_hochberg(normal(5).sigmoid()),
    "metrics.dependence": lambda: (
        metrics.dependence(integers(30, below=3), integers(30, below=4)[None], permutations=9).null
    ),
    "metrics.near_duplicates": lambda: metrics.near_duplicates(normal(40, 2)).pairs,
    "metrics.pairwise_dependence": lambda: metrics.pairwise_dependence(normal(40, 3), permutations=3).p,
    "metrics.share_test": lambda: metrics.share_test(integers(30, 2, below=3), 12, permutations=9),
    "metrics.total_correlation": lambda: metrics.total_correlation(normal(40, 3), permutations=3),
    "metrics.two_sample_test": lambda: metrics.two_sample_test(normal(12, 3), normal(10, 3, seed=1), permutations=9).p,
}
