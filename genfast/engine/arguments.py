"""Checks of what a sampling call is given, each with one error, before any work."""

import operator
import sys

import torch

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_count(call, n, first, seed, temperature=1.0):
    """`n` and `first` count images, `seed` has 64 bits, `temperature` is positive and finite.

    Returns: (n, first, seed) as ints, of whole numbers of any kind.
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
    return n, first, seed


def _whole(call, name, value):
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{call}: {name} must be an int; got {type(value).__name__}")


def check_whole(call, name, value, low, high=2**31):
    """`value` is an int in low .. high - 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{call}: {name} must be an int; got {type(value).__name__}")
    if not low <= value < high:
        raise ValueError(f"{call}: {name} must lie in {low} .. {high - 1}; got {value}")


def check_images(call, name, images, network, n=None, levels=True):
    """`images` are levels, uint8 [n, C, H, W] (or one image, [1, C, H, W], for all): expanded to n.

    `levels` False: what the values are is not looked at.
    """
    c = network
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"{call}: {name} must be a torch.Tensor; got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(f"{call}: {name} must hold levels as torch.uint8; got {images.dtype}")
    images = _expanded(call, name, images, n, (c.channels, c.height, c.width))
    if levels and c.levels < 256 and images.numel() and (top := int(images.max())) >= c.levels:
        raise ValueError(f"{call}: {name} must lie in 0..{c.levels - 1}; got {top}")
    return images


def check_mask(call, mask, network, n):
    """`mask` is bool [n or 1, C or 1, H, W]: expanded to [n, C, H, W]."""
    c = network
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"{call}: mask must be a torch.Tensor; got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{call}: mask must be torch.bool, True where a value is known; got {mask.dtype}")
    if mask.dim() == 4 and mask.shape[1] == 1:
        mask = mask.expand(-1, c.channels, -1, -1)
    mask = _expanded(call, "mask", mask, n, (c.channels, c.height, c.width))
    if c.head == "mixture" and c.channels > 1 and not torch.equal(mask, mask[:, :1].expand_as(mask)):
        expected = "equal over the channels of a pixel, which a mixture draws together"
        raise ValueError(f"{call}: mask must be {expected}; got a pixel known in part")
    return mask


def _expanded(call, name, tensor, n, sizes):
    batch = tensor.shape[0] if tensor.dim() == 4 else None
    n = batch if n is None else n
    if tensor.dim() != 4 or tensor.shape[1:] != sizes or batch not in (n, 1):
        count = "n" if n is None else n
        expected = f"[n, C, H, W] with n={count} or 1, C={sizes[0]}, H={sizes[1]}, W={sizes[2]}"
        raise ValueError(f"{call}: {name} must have shape {expected}; got {tuple(tensor.shape)}")
    return tensor.expand(n, -1, -1, -1)


def check_known(call, given, mask, network, n):
    """Both or neither of the known values and where they are: (given, known), as an engine takes them."""
    if (given is None) != (mask is None):
        missing = "mask" if mask is None else "given"
        raise ValueError(f"{call}: given and mask must come together; got no {missing}")
    if given is None:
        return None, None
    return check_partly(call, "given", given, mask, network, n)


def check_partly(call, name, images, mask, network, n=None):
    """Images of which the values under the mask are known: (images, mask), both expanded to n.

    What is unknown may be any byte, and comes back as 0.
    """
    expanded = check_images(call, name, images, network, n, levels=False)
    known, n = check_mask(call, mask, network, len(expanded)), len(expanded)
    one_for_all = len(images) == len(mask) == 1  # and stays one in memory
    images = images if one_for_all else expanded
    part = mask if one_for_all else known
    images = torch.where(part.to(images.device), images, 0)
    return check_images(call, name, images, network, n), known


def check_labels(call, labels, network, n, device):
    """The labels as int64 [n] on `device`, of one int or integers [n]; None for an unconditional model."""
    classes = network.classes
    if not classes:
        if labels is not None:
            raise ValueError(f"{call}: labels must be None for an unconditional model; got {_kind(labels)}")
        return None
    if type(labels) is int:
        _check_range(call, labels, labels, classes)
        return torch.full((n,), labels, device=device)
    expected = f"integers [B] with B={n}"
    if labels is None:
        raise ValueError(f"{call}: labels must be {expected} for a model of {classes} classes; got None")
    if not isinstance(labels, torch.Tensor) or labels.dtype not in INTEGERS:
        raise TypeError(f"{call}: labels must be {expected}; got {_kind(labels)}")
    if labels.shape != (n,):
        raise ValueError(f"{call}: labels must have shape [B] with B={n}; got {tuple(labels.shape)}")
    if labels.device.type not in ("cpu", device.type):
        raise ValueError(f"{call}: labels must be on the CPU or the model's device {device}; got {labels.device}")
    if n:
        _check_range(call, *(int(value) for value in labels.aminmax()), classes)
    return labels.to(device, torch.int64)


def _check_range(call, low, high, classes):
    if low < 0 or high >= classes:
        raise ValueError(f"{call}: labels must lie in 0..{classes - 1}; got {low if low < 0 else high}")


def _kind(value):
    return str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
