"""Whether a program does what the model does from which it was made."""

import torch

from genfast.sampling import stepped
from genfast.sampling.capture.plan import NotCausal, NotIncremental

TOLERANCE = 1e-4  # of the largest output
IMAGES, PLACES = 2, 16


def prove(program, model, order):
    """Run a program and the forward of its model on random images; change pixels and see that no earlier output moves.

    Args: program; model, a module on floats [B, C, H, W]; order, (dims, features): how the dimensions of the output
        are permuted to [B, .., H, W], and in which order its features are the parameters of the program.
    Raises: NotIncremental if they differ by more than 1e-4 of the largest output; NotCausal if an output moves.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            _prove(program, model, order)
    finally:
        for module in training:
            module.training = True


def _prove(program, model, order):
    shape = program.channels, program.height, program.width
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, program.levels, (IMAGES, *shape), generator=generator, dtype=torch.uint8)
    expected = _forward(program, model, order, images)
    again = _forward(program, model, order, images)
    if not expected.isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for random images")
    known = torch.ones(images.shape, dtype=torch.bool)
    got = stepped.run(program, IMAGES, seed=0, given=images, known=known, want=("parameters",)).parameters
    scale = float(expected.abs().max()) or 1.0
    error = max(float((got - output).abs().max()) for output in (expected, again)) / scale
    if not error <= TOLERANCE:
        raise NotIncremental(
            f"sample: the program must equal the model's forward to {TOLERANCE:.0e} of its largest output; got a "
            f"difference of {error:.1e}: does forward depend on anything but its input and its weights?"
        )
    _perturb(program, model, order, images[:1], scale, generator)


def _perturb(program, model, order, image, scale, generator):
    """Change an image from some value on: no output up to that value may move."""
    channels, width, pixels = program.channels, program.width, program.height * program.width
    values = torch.randperm(pixels * channels, generator=generator)[:PLACES].tolist()
    images = image.repeat(len(values), 1, 1, 1)
    changed = images.clone()
    for one, value in zip(changed, values):
        flat = one.flatten(1).T.flatten()
        other = torch.randint(1, program.levels, flat[value:].shape, generator=generator) + flat[value:]
        flat[value:] = (other % program.levels).to(torch.uint8)
        one.copy_(flat.view(pixels, channels).T.view_as(one))
    before, after = (_forward(program, model, order, batch) for batch in (images, changed))
    moved = ((after - before).abs() > 1e-5 * scale).flatten(2)
    counts = torch.tensor([read.count for read in program.parameters])
    draw = torch.repeat_interleave(torch.arange(program.draws), counts)
    for one, value in zip(moved, values):
        pixel, channel = divmod(value, channels)
        if one[:, :pixel].any() or one[draw <= min(channel, program.draws - 1), pixel].any():
            place = divmod(pixel, width)
            raise NotCausal(
                f"sample: the model must be causal; got an output that moves with what comes after it, from channel "
                f"{channel} of the pixel {place} on"
            )


def _forward(program, model, order, images):
    """The outputs of a model as parameters [B, P, H, W], on the CPU."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    dims, features = order
    output = model(images.to(device, torch.float32) * program.scale + program.shift)
    if isinstance(output, (list, tuple)):
        output = output[0]
    output = output.permute(dims).float().cpu()
    return output.flatten(1, -3)[:, torch.from_numpy(features)] if output.dim() > 3 else output[:, None]
