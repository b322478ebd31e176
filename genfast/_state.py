"""Buffers of modules that are more than tensors to move: running state, and constants that follow from arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from genfast._native.checks import wide

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Stateful(nn.Module):
    """Base class of modules with running state or constants.

    Running state, which a subclass names in `running`, is what a module counts, sums or averages. It is float32 or
    wider, whatever dtype the module is cast to: a half type does not count beyond 2048, and an average with a decay of
    0.999 stands still in it.

    Constants, which `constants` returns, are masks and filters. They are no part of the state dict. They are computed
    again after each move, so they are right after `to_empty` on a module that was made on the meta device.
    """

    running: tuple[str, ...] = ()

    def constants(self) -> dict[str, Tensor | None]:
        """The values of the constants by name, which follow from attributes alone; None where there is none."""
        return {}

    def register_constants(self, like: Tensor) -> None:
        """Make a buffer of each constant, of the device and dtype of a parameter; `__init__` calls it."""
        for name, value in self._computed().items():
            self.register_buffer(name, value if value is None else value.to(like), persistent=False)

    def _computed(self) -> dict[str, Tensor | None]:
        with torch.device("cpu"):  # the default device may be meta, where nothing has a value
            return self.constants()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name in self.running:
            old, new = before[name], self._buffers[name]
            if old is not None and new is not None and new.dtype != wide(new.dtype):
                self._buffers[name] = old.to(new.device, wide(new.dtype))  # of the old one, which has all its digits
        for name, value in self._computed().items():
            new = self._buffers[name]
            if value is not None and new is not None and new is not before[name]:
                self._buffers[name] = value.to(new.device, new.dtype)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        if not local_metadata.get("assign_to_params_buffers"):
            return
        # The tensors of the state dict have taken the place of the module's own.
        for name in self.running:
            if (buffer := self._buffers[name]) is not None:
                self._buffers[name] = buffer.to(wide(buffer.dtype))
        tensors = (*self._parameters.values(), *self._buffers.values())
        device = next((t.device for t in tensors if t is not None and not t.is_meta), torch.device("cpu"))
        for name, value in self._computed().items():
            old = self._buffers[name]
            if value is not None and old is not None and old.is_meta:
                self._buffers[name] = value.to(device, old.dtype)


def running_state(module: nn.Module) -> set[str]:
    """The names, in the state dict of a module, of its running state: float32 beside parameters of a half type."""
    layers = ((path, layer) for path, layer in module.named_modules() if isinstance(layer, Stateful))
    return {f"{path}.{name}".removeprefix(".") for path, layer in layers for name in layer.running}


def rank() -> tuple[int, int]:
    """(rank, number of ranks) of this process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def summed(tensor: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    if rank()[1] > 1:
        distributed.all_reduce(tensor)
    return tensor


def recomputed() -> bool:
    """Whether this forward pass repeats an earlier one within a backward pass, for `torch.utils.checkpoint`."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def zero_of_first_pass(like: Tensor, layer: str) -> Tensor:
    """0, [], of the dtype of `like`, for a compiled forward pass with state to add to what it returns.

    Raises: RuntimeError, when it runs, in a pass that `torch.utils.checkpoint` repeats. The repetition would begin with
    the state that the pass has changed, and so give another gradient.
    """
    zero: Tensor = torch.ops.genfast.zero_of_first_pass(like.detach(), layer)
    return zero


def _zero(like: Tensor, layer: str) -> Tensor:
    if torch._C._current_graph_task_id() != -1:
        expected = "a pass that is not repeated, where torch.compile is at work"
        raise RuntimeError(f"{layer}: expected {expected}; got torch.utils.checkpoint: leave one of the two out")
    return like.new_zeros(())


_LIBRARY = torch.library.Library("genfast", "FRAGMENT")
_LIBRARY.define("zero_of_first_pass(Tensor like, str layer) -> Tensor")
for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("zero_of_first_pass", _zero, _device)
torch.library.register_fake("genfast::zero_of_first_pass", lambda like, layer: like.new_empty(()), lib=_LIBRARY)


class Passes:
    """The state that each forward pass of a layer used, for its repetition by `torch.utils.checkpoint`.

    A repetition has the inputs and the random numbers of its forward pass, bit for bit: by them it finds its state,
    which may have changed since. Without it the repetition is an error, never a wrong gradient. Of several passes with
    equal inputs and random numbers, one backward pass repeats the latest first.

    Nothing is kept outside of `torch.utils.checkpoint`, except of passes without gradients: those may be its as well.
    """

    LIMIT = 16

    def __init__(self) -> None:
        # (fingerprint, state, the backward pass that asked last)
        self._held: deque[list[Any]] = deque(maxlen=self.LIMIT)

    def __reduce__(self) -> tuple[Any, ...]:
        return Passes, ()  # a copy of the layer begins without

    def keep(self, key: Iterable[Any], state: Any) -> None:
        """Keep the state of this pass. `key`: what tells it from others; what is no tensor in it is ignored."""
        if not torch.compiler.is_compiling() and _may_be_repeated():
            self._held.append([_fingerprint(key), state, None])

    def recall(self, layer: str, key: Iterable[Any]) -> Any:
        """The state of the pass that this one repeats. Raises: RuntimeError without it."""
        wanted, task = _fingerprint(key), torch._C._current_graph_task_id()
        for entry in reversed(self._held):
            if entry[2] != task and entry[0].device == wanted.device and torch.equal(entry[0], wanted):
                entry[2] = task
                return entry[1]
        raise RuntimeError(
            f"{layer}: within a backward pass, expected the repetition of one of the last {self.LIMIT} forward passes, "
            "with the same inputs and random numbers (preserve_rng_state) as torch.utils.checkpoint; got another"
        )


def _may_be_repeated() -> bool:
    # The two kinds of torch.utils.checkpoint run a forward pass without gradients, or with hooks for what it saves.
    hooks = vars(torch._C._autograd).get("_top_saved_tensors_default_hooks")
    return not torch.is_grad_enabled() or hooks is None or hooks(False) is not None


@torch.no_grad()
def _fingerprint(values: Iterable[Any]) -> Tensor:
    """A number of the bits of tensors and of their order, int64 []. It stays on the device of the first."""
    total: Tensor | None = None
    for value in values:
        if not isinstance(value, Tensor):
            continue
        tensor = torch.view_as_real(value) if value.is_complex() else value
        bits = tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()]).flatten().to(torch.int64)
        sum_ = (bits * torch.arange(1, 2 * len(bits), 2, dtype=torch.int64, device=bits.device)).sum()
        total = sum_ if total is None else 31 * total + sum_.to(total.device)
    return torch.zeros((), dtype=torch.int64, device="cpu") if total is None else total
