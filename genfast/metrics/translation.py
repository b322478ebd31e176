"""How far translations are from the images that they should be, beside what knows less."""

from genfast.metrics.distortion import psnr
from genfast.tasks.translate import translate


def translation_errors(model, training, held_out, *, seed=0):
    """Mean absolute error and PSNR of translations of held-out sources, and of two images that need no model.

    Args: model (`genfast.models.Pix2Pix`); training, held_out (`genfast.data.PairData` of one size); seed (of the noise
    of "model"; "model, no noise" has none).
    Returns: {name: (mean absolute error in per cent of the range of levels, PSNR in dB)}, also of the mean target of
        training, and of the source taken as it is.
    """
    device, levels, truth = next(model.parameters()).device, held_out.levels, held_out.target
    source = held_out.source.to(device)
    mean = training.target.double().mean(0)
    # Grey for three equal channels, and their mean for grey.
    plain = held_out.source if truth.shape[1] > 1 else held_out.source.double().mean(1, keepdim=True)
    guesses = {
        "model": translate(model, source, seed=seed).cpu(),
        "model, no noise": translate(model, source, noise=False).cpu(),
        "mean target": mean.expand(truth.shape),
        "source as it is": plain.expand(truth.shape),
    }
    return {name: (_percent(images, truth, levels), psnr(images, truth, levels)) for name, images in guesses.items()}


def _percent(images, truth, levels):
    return float((images.double() - truth.double()).abs().mean()) * 100 / (levels - 1)
