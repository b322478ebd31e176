"""The two memory layouts of an image that kernels read in place: `torch.contiguous_format` and `channels_last`."""


def channels_innermost(tensor):
    """Whether [B, ..., H, W] lies in memory as [B, H, W, ...], as a channels_last convolution leaves it."""
    return tensor.ndim > 3 and not tensor.is_contiguous() and tensor.movedim((-2, -1), (1, 2)).is_contiguous()


def in_place_or_copy(tensor):
    """The tensor itself where its layout is one of the two, else a contiguous copy."""
    return tensor if channels_innermost(tensor) else tensor.contiguous()


def empty_like(tensor):
    """An empty tensor of the same layout, or contiguous where the layout is neither of the two."""
    if not channels_innermost(tensor):
        return tensor.new_empty(tensor.shape)
    batch, *channels, height, width = tensor.shape
    return tensor.new_empty((batch, height, width, *channels)).movedim((1, 2), (-2, -1))
