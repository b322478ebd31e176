"""Whether a program does what the model does from which it was made."""

import torch

from genfast.sample import stepped
from genfast.sample.plan import NotCausal, NotIncremental

TOLERANCE = 1e-4  # of the largest output
IMAGES, PIXELS, BATCH = 2, 32, 16


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
    if not expected.isfinite().all():
        raise ValueError("sample: the model must return finite numbers; got some that are not, for random images")
    known = torch.ones(images.shape, dtype=torch.bool)
    got = stepped.run(program, IMAGES, seed=0, given=images, known=known, want=("parameters",)).parameters
    scale = float(expected.abs().max()) or 1.0
    error = float((got - expected).abs().max()) / scale
    if not error <= TOLERANCE:
        raise NotIncremental(
            f"sample: the program must equal the model's forward to {TOLERANCE:.0e} of its largest output; got a "
            f"difference of {error:.1e}: does forward depend on anything but its input and its weights?"
        )
    _perturb(program, model, order, images[:1], expected[:1], scale, generator)


def _perturb(program, model, order, image, expected, scale, generator):
    """Change single values of an image: no output at or before them may move."""
    channels, width, pixels = program.channels, program.width, program.height * program.width
    chosen = torch.randperm(pixels, generator=generator)[:PIXELS] if pixels > PIXELS else torch.arange(pixels)
    counts = torch.tensor([read.count for read in program.parameters])
    draw = torch.repeat_interleave(torch.arange(program.draws), counts)
    values = [(int(p), k) for p in chosen for k in range(channels)]
    for start in range(0, len(values), BATCH):
        part = values[start : start + BATCH]
        changed = image.repeat(len(part), 1, 1, 1)
        for row, (p, k) in zip(changed, part):
            row[k, p // width, p % width] = (int(row[k, p // width, p % width]) + program.levels // 2) % program.levels
        # The same batch unchanged: sums of another batch size may be rounded otherwise.
        before = _forward(program, model, order, image.repeat(len(part), 1, 1, 1))
        moved = ((_forward(program, model, order, changed) - before).abs() > 1e-5 * scale).flatten(2)
        for one, (p, k) in zip(moved, part):
            early = one[:, :p].any() or one[draw <= min(k, program.draws - 1), p].any()
            if early:
                raise NotCausal(
                    f"sample: the model must be causal; got an output that moves with the later channel {k} of the "
                    f"pixel ({p // width}, {p % width})"
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
