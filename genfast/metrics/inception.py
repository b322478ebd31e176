"""The inception score, by any classifier."""

from __future__ import annotations

import torch
from torch import Tensor


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """Inception score by any classifier: `exp(E KL(p(y|x) || p(y)))`, p(y) the mean of p(y|x).

    It is 1 if all samples look the same to the classifier, and K if it is certain of each and all K classes are equally
    frequent. The paper averages it over ten parts of the samples. It is biased low for small parts, so `splits=1` is
    better for few samples (Barratt and Sharma 2018, arXiv 1801.01973).

    Args:
        probabilities: p(y|x), float [N, K]: at least 0, each row of sum 1; N at least `splits`.
        splits: parts of consecutive samples, whose sizes differ by at most one.
    Returns: (mean, standard deviation) over the parts, floats.
    Raises: TypeError or ValueError for values that are no probabilities, or fewer samples than splits.
    Paper: Improved Techniques for Training GANs, Salimans et al. 2016, section 4, arXiv 1606.03498.
    """
    if not isinstance(probabilities, torch.Tensor) or not probabilities.is_floating_point():
        got = probabilities.dtype if isinstance(probabilities, torch.Tensor) else type(probabilities).__name__
        raise TypeError(f"inception_score: probabilities must be a float tensor; got {got}")
    if probabilities.ndim != 2 or not probabilities.shape[1]:
        raise ValueError(f"inception_score: probabilities must have shape [N, K]; got {tuple(probabilities.shape)}")
    if not 1 <= splits <= len(probabilities):
        raise ValueError(f"inception_score: splits must lie in 1..N with N={len(probabilities)}; got {splits}")
    p = probabilities.detach().double()
    furthest = float((p.sum(1) - 1).abs().max())
    if not (p >= 0).all() or not furthest < 1e-2:
        raise ValueError(
            f"inception_score: probabilities must be at least 0, each row of sum 1; got a row {furthest} off"
        )
    parts = p.tensor_split(splits)
    entropies = torch.special.entr(torch.stack([part.mean(0) for part in parts])).sum(1)
    given = torch.stack([torch.special.entr(part).sum(1).mean() for part in parts])
    scores = (entropies - given).exp()
    return float(scores.mean()), float(scores.std(correction=0))
