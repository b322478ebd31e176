"""Evaluation of what a model has, and no more."""

import torch
from torch import nn

from genfast import data, metrics
from genfast.engine.protocols import ImageSpec, ImportanceSampled, LatentModel
from genfast.likelihoods import Bernoulli
from genfast.train.evaluate import nll_table


class Exact(nn.Module):
    """p(x | z) without z: the log-likelihood is exact, and there is no bound."""

    spec = ImageSpec(1, 8, 8, 2)
    likelihood = Bernoulli(1, 2)
    latent_size = 3

    def encode(self, x, labels=None):
        return torch.zeros(len(x), 3), torch.zeros(len(x), 3)

    def decode(self, z, labels=None):
        return torch.full((len(z), 1, 8, 8), 0.5)

    def log_prob(self, x, labels=None, *, first=0):
        return -self.likelihood.nll(x, self.decode(x))


def test_a_model_with_latents_need_not_be_importance_sampled():
    model = Exact()
    assert isinstance(model, LatentModel) and not isinstance(model, ImportanceSampled)
    images = torch.randint(2, (30, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    held_out = data.ImageData(images, 2, "random")
    table = nll_table(model, held_out, held_out, batch=7)
    logits = torch.full((30, 1, 8, 8), 0.5)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, images.float()) * 64
    torch.testing.assert_close(torch.tensor(table["model"]), expected, check_dtype=False)
    assert int(metrics.active_units(model, [images]).sum()) == 0
