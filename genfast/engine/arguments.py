"""Checks of the arguments of a call about images, before any work; each raises one error."""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast._native.checks import check_range
from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Likelihood
from genfast.random.levels import level_dtype

# Every float32 divided or multiplied by such a temperature is a finite float64.
COLDEST, HOTTEST = 1e-250, 1e250
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# torch stores these, and computes next to nothing with them.
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def check_count(call: str, n: Any, first: Any = 0, seed: Any = 0, temperature: float = 1.0) -> tuple[int, int, int]:
    """`n` and `first` count images, `seed` has 64 bits, `temperature` is in its range.

    Returns: (n, first, seed) as ints; any type of integer is taken.
    """
    n, first, seed = (_whole(call, name, value) for name, value in (("n", n), ("first", first), ("seed", seed)))
    if n < 0 or first < 0:
        raise ValueError(f"{call}: n and first must not be negative; got n={n}, first={first}")
    if first + n > 2**63:
        raise ValueError(f"{call}: first + n must be at most 2**63; got first={first}, n={n}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"{call}: seed must lie in [0, 2**64); got {seed}")
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise TypeError(f"{call}: temperature must be a number; got {type(temperature).__name__}")
    if not 0 < temperature <= sys.float_info.max:
        got = temperature if temperature <= 0 or isinstance(temperature, float) else "an int that is no float"
        raise ValueError(f"{call}: temperature must be positive and finite; got {got}")
    if not COLDEST <= temperature <= HOTTEST:
        raise ValueError(f"{call}: temperature must lie in {COLDEST} .. {HOTTEST}; got {temperature}")
    return n, first, seed


def _whole(call: str, name: str, value: Any) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{call}: {name} must be an int; got {type(value).__name__}")


def check_int(call: str, name: str, value: Any, low: int, high: int = 2**31) -> None:
    """`value` is an int in low .. high - 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{call}: {name} must be an int; got {type(value).__name__}")
    if not low <= value < high:
        raise ValueError(f"{call}: {name} must lie in {low} .. {high - 1}; got {value}")


def check_batch_size(call: str, batch_size: Any, default: int) -> int:
    """`batch_size` is an int of at least 1, or None: the default."""
    if batch_size is None:
        return default
    check_int(call, "batch_size", batch_size, 1)
    return batch_size


def check_images(
    call: str, name: str, images: Any, spec: ImageSpec, n: int | None = None, levels: bool = True
) -> Tensor:
    """`images` are levels, integers [n, C, H, W], or one image for all, [1, C, H, W].

    Returns: expanded to n, and of `spec.dtype`. `levels` False: the values are neither checked nor of that dtype.
    """
    images = check_integers(call, name, images)
    n = len(_expanded(call, name, images, n, spec.shape))
    images = as_levels(call, name, images, spec.levels) if levels else images
    return images.expand(n, -1, -1, -1)


def check_integers(call: str, name: str, images: Any) -> Tensor:
    """`images` is a tensor of integers of any dtype, but no bool. Returns: in a dtype that torch computes with."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{call}: {name} must be a torch.Tensor; got {type(images).__name__}")
    if images.dtype not in (*INTEGERS, *UNSIGNED):
        raise TypeError(f"{call}: {name} must hold levels as integers; got {images.dtype}")
    return images.to(torch.int64) if images.dtype in UNSIGNED else images


def as_levels(call: str, name: str, images: Tensor, levels: int) -> Tensor:
    """The images of `check_integers`, which must lie in 0 .. levels - 1 (ValueError), in `level_dtype(levels)`."""
    bytes_ = images.dtype == torch.uint8
    if images.numel() and not (bytes_ and levels >= 256):
        least, greatest = (0, int(images.max())) if bytes_ else (int(value) for value in images.aminmax())
        if least < 0 or greatest >= levels:
            got = least if least < 0 else greatest
            raise ValueError(f"{call}: {name} must lie in 0..{levels - 1}; got {got}")
    return images.to(level_dtype(levels))


def check_batch(
    call: str, name: str, x: Any, spec: ImageSpec, device: torch.device, size: tuple[int, int] | None = None
) -> None:
    """`x` is a batch for a model: levels, uint8 [B, C, H, W], on its device. `size`: (H, W), if not those of `spec`.

    The values are checked as `check_range` does.
    """
    height, width = size or (spec.height, spec.width)
    if not isinstance(x, Tensor):
        raise TypeError(f"{call}: {name} must be a torch.Tensor; got {type(x).__name__}")
    if x.dtype != torch.uint8:
        raise TypeError(f"{call}: {name} must hold levels as torch.uint8; got {x.dtype}")
    if x.dim() != 4 or x.shape[1:] != (spec.channels, height, width):
        expected = f"[B, C, H, W] with C={spec.channels}, H={height}, W={width}"
        raise ValueError(f"{call}: {name} must have shape {expected}; got {tuple(x.shape)}")
    if x.device != device:
        raise ValueError(f"{call}: {name} must be on the model's device {device}; got {x.device}")
    if spec.levels < 256:
        check_range(call, name, x, 0, spec.levels - 1, f"lie in 0..{spec.levels - 1}")


def check_mask(call: str, mask: Any, spec: ImageSpec, likelihood: Likelihood | None, n: int) -> Tensor:
    """`mask` is bool [n or 1, C or 1, H, W]. Returns: expanded to [n, C, H, W]."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{call}: mask must be a torch.Tensor; got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{call}: mask must be torch.bool, True where a value is known; got {mask.dtype}")
    if mask.dim() == 4 and mask.shape[1] == 1:
        mask = mask.expand(-1, spec.channels, -1, -1)
    mask = _expanded(call, "mask", mask, n, spec.shape)
    couples = likelihood is not None and likelihood.couples_channels
    if couples and not torch.equal(mask, mask[:, :1].expand_as(mask)):
        expected = "equal over the channels of a pixel, which a mixture draws together"
        raise ValueError(f"{call}: mask must be {expected}; got a pixel known in part")
    return mask


def _expanded(call: str, name: str, tensor: Tensor, n: int | None, sizes: tuple[int, int, int]) -> Tensor:
    batch = tensor.shape[0] if tensor.dim() == 4 else None
    n = batch if n is None else n
    if n is None or tensor.shape[1:] != sizes or batch not in (n, 1):
        count = "n" if n is None else n
        expected = f"[n, C, H, W] with n={count} or 1, C={sizes[0]}, H={sizes[1]}, W={sizes[2]}"
        raise ValueError(f"{call}: {name} must have shape {expected}; got {tuple(tensor.shape)}")
    return tensor.expand(n, -1, -1, -1)


def check_known(
    call: str, given: Any, mask: Any, spec: ImageSpec, likelihood: Likelihood | None, n: int
) -> tuple[Tensor | None, Tensor | None]:
    """Both or neither of `given` and `mask`. Returns: (given, known), as an engine takes them."""
    if (given is None) != (mask is None):
        missing = "mask" if mask is None else "given"
        raise ValueError(f"{call}: given and mask must come together; got no {missing}")
    if given is None:
        return None, None
    return check_partly_known(call, "given", given, mask, spec, likelihood, n)


def check_partly_known(
    call: str, name: str, images: Any, mask: Any, spec: ImageSpec, likelihood: Likelihood | None, n: int | None = None
) -> tuple[Tensor, Tensor]:
    """Images whose values under the mask are known. Returns: (images, mask), both expanded to n.

    Unknown values may be any integers, and are returned as 0.
    """
    expanded = check_images(call, name, images, spec, n, levels=False)
    known, n = check_mask(call, mask, spec, likelihood, len(expanded)), len(expanded)
    one_for_all = len(images) == len(mask) == 1  # then only one is computed, and expanded
    images = expanded[:1] if one_for_all else expanded
    part = mask if one_for_all else known
    images = torch.where(part.to(images.device), images, 0)
    return check_images(call, name, images, spec, n), known


def check_labels(
    call: str, labels: Any, spec: ImageSpec, n: int, device: torch.device, *, may_move: bool = True
) -> Tensor | None:
    """The labels, one int or integers [n], as int64 [n] on `device`; None for an unconditional model.

    `may_move`: whether labels on the CPU are moved to another device.
    """
    classes = spec.classes
    if not classes:
        if labels is not None:
            expected = "None for a model without classes (a foreign one has those of the keyword classes)"
            raise ValueError(f"{call}: labels must be {expected}; got {kind_of(labels)}")
        return None
    if type(labels) is int:
        if not 0 <= labels < classes:
            raise ValueError(f"{call}: labels must lie in 0..{classes - 1}; got {labels}")
        return torch.full((n,), labels, device=device, dtype=torch.int64)
    expected = f"integers [B] with B={n}"
    if labels is None:
        raise ValueError(f"{call}: labels must be {expected} for a model of {classes} classes; got None")
    if not isinstance(labels, Tensor) or labels.dtype not in INTEGERS:
        raise TypeError(f"{call}: labels must be {expected}; got {kind_of(labels)}")
    if labels.shape != (n,):
        raise ValueError(f"{call}: labels must have shape [B] with B={n}; got {tuple(labels.shape)}")
    if labels.device != device and not (may_move and labels.device.type in ("cpu", device.type)):
        place = f"the CPU or the model's device {device}" if may_move else f"the model's device {device}"
        raise ValueError(f"{call}: labels must be on {place}; got {labels.device}")
    check_range(call, "labels", labels, 0, classes - 1, f"lie in 0..{classes - 1}")
    return labels.to(device, torch.int64)


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is; any other array on the CPU, in its own dtype, whatever the user's default of either is."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))


def kind_of(value: Any) -> str:
    """The dtype of a tensor, or the class of another value, for an error."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
