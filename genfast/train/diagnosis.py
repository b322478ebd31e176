"""What to look at when a loss is not finite."""

import torch

from genfast.engine.protocols import Trainable


def loss_of(model, batch):
    """What training minimises of a batch, [B] nats: `model.loss(*batch)`, or `-model.log_prob(*batch)`."""
    return model.loss(*batch) if isinstance(model, Trainable) else -model.log_prob(*batch)


def first_non_finite(model, batch, random=None, loss=loss_of):
    """The first tensor with a value that is not finite: parameters first, then what modules give, then gradients.

    Runs the loss of the batch once more and backwards, in the mode that the model is in; gradients of the parameters
    and torch's random state are afterwards what they were.

    Args:
        model: a `torch.nn.Module` as `genfast.train.fit` takes it.
        batch: tuple of the arguments of its loss.
        random: state of torch's generator of the CPU with which to run it; None: the present one.
        loss: function (model, batch) -> tensor; the mean of it is what was minimised.
    Returns: for example "parameter encoder.input.weight", "output of decoder.output (ConvDecoder)", "the loss",
        "gradient of decoder.output.weight"; "nothing on a second look" where all is finite now.
    Raises: what the loss raises.
    """
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in tensors:
            if _is_wrong(tensor):
                return f"{kind} {name}"
    found, hooks = [], []
    for name, module in model.named_modules():
        label = f"output of {name or 'the model'} ({type(module).__name__})"
        hooks.append(module.register_forward_hook(_watch(found, label)))
    # Where the generator of a GPU draws, as its dropout does, another number may be drawn than in the failed step.
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            if random is not None:
                torch.set_rng_state(random)
            value = loss(model, batch)
            if not found and not _is_wrong(value):
                learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
                gradients = torch.autograd.grad(value.mean(), tuple(learned.values()), allow_unused=True)
                found += [f"gradient of {name}" for name, grad in zip(learned, gradients) if _is_wrong(grad)]
            elif not found:
                found.append("the loss")
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else "nothing on a second look"


def _watch(found, label):
    def hook(module, arguments, output):
        parts = output if isinstance(output, (tuple, list)) else (output,)
        if not found and any(_is_wrong(part) for part in parts):
            found.append(label)

    return hook


def _is_wrong(tensor):
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all())
