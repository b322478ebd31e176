"""Diagnosis of a loss that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genfast.engine.protocols import Trainable


def loss_of(model: Any, batch: Sequence[Tensor]) -> Tensor:
    """The training loss of a batch, [B] nats: `model.loss(*batch)`, or `-model.log_prob(*batch)`."""
    loss: Tensor = model.loss(*batch) if isinstance(model, Trainable) else -model.log_prob(*batch)
    return loss


def first_non_finite(
    model: Any,
    batch: Sequence[Tensor],
    random: Tensor | None = None,
    loss: Callable[[Any, Sequence[Tensor]], Tensor] = loss_of,
) -> str:
    """The first tensor with a value that is not finite, among parameters, buffers, outputs of modules, and gradients.

    Runs the loss of the batch forwards and backwards once more, in the present mode of the model. The gradients of the
    parameters and the random state of torch do not change.

    Args:
        model: a `torch.nn.Module` as `genfast.train.fit` takes it.
        batch: tuple of the arguments of its loss.
        random: state of torch's CPU generator for the forward pass; None: the present one.
        loss: function (model, batch) -> tensor, whose mean was minimised.
    Returns: for example "parameter encoder.input.weight", "output of decoder.output (ConvDecoder)", "the loss",
        "gradient of decoder.output.weight"; "nothing on a second look" if all is finite now.
    Raises: what the loss raises.
    """
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in tensors:
            if _is_wrong(tensor):
                return f"{kind} {name}"
    places: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        label = f"output of {name or 'the model'} ({type(module).__name__})"
        hooks.append(module.register_forward_hook(_watch(places, label)))
    # Dropout on a GPU may differ from that of the failed step: only the CPU generator is restored.
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            if random is not None:
                torch.set_rng_state(random)
            value = loss(model, batch)
            if not places and not _is_wrong(value):
                learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
                gradients = torch.autograd.grad(value.mean(), tuple(learned.values()), allow_unused=True)
                places += [f"gradient of {name}" for name, grad in zip(learned, gradients) if _is_wrong(grad)]
            elif not places:
                places.append("the loss")
    finally:
        for hook in hooks:
            hook.remove()
    return places[0] if places else "nothing on a second look"


def _watch(places: list[str], label: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, (tuple, list)) else (output,)
        if not places and any(_is_wrong(part) for part in parts):
            places.append(label)

    return hook


def _is_wrong(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all())
