"""How sure a classifier is of generated samples, and how evenly they spread over its classes."""

import torch


def inception_score(probabilities, splits=10):
    """Inception score by any classifier: `exp(E KL(p(y|x) || p(y)))`, p(y) the mean of p(y|x).

    1 where all samples look the same to the classifier, K where it is sure of every one and they spread evenly over
    all K classes. The paper takes it of each tenth of the samples; a small part underestimates it, so `splits=1` is
    better for few samples (Barratt and Sharma 2018, arXiv 1801.01973).

    Args:
        probabilities: p(y|x), float [N, K]: at least 0, each row of sum 1; N at least `splits`.
        splits: parts of consecutive samples, the sizes differ by one at most.
    Returns: (mean, standard deviation) over the parts, floats.
    Raises: TypeError or ValueError for what are no probabilities, or fewer samples than splits.
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
