"""What a model is given of the data, and the refusal of data that are not the model's."""


def inputs(model, data):
    """The tensors that `log_prob` takes, on the model's device: (images,), or (images, labels) if it has classes.

    Raises: ValueError for images of another shape or levels than the model's config names, or for labels that
        a conditional model needs and the data lack, or that are none of its classes.
    """
    check(model, data)
    device = next(model.parameters()).device
    conditional = getattr(getattr(model, "config", None), "classes", 0)
    return tuple(part.to(device) for part in ((data.images, data.labels) if conditional else (data.images,)))


def check(model, data):
    """Refuse data that are not the model's, as `inputs` says."""
    config = getattr(model, "config", None)
    if config is None:
        return
    expected = (config.channels, config.height, config.width, config.levels)
    got = (*data.images.shape[1:], data.levels)
    if got != expected:
        raise ValueError(f"{data.name}: expected (channels, height, width, levels) {expected}; got {got}")
    classes = getattr(config, "classes", 0)
    if not classes:
        return
    if data.labels is None:
        raise ValueError(f"{data.name}: expected labels for a model of {classes} classes; got images without labels")
    if data.labels.shape != (len(data),) or data.labels.is_floating_point():
        got = f"{data.labels.dtype} {tuple(data.labels.shape)}"
        raise ValueError(f"{data.name}: expected {len(data)} whole labels; got {got}")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{data.name}: expected labels from 0 to {classes - 1}; got {low} to {high}")


def batches(parts, size):
    """The tensors of `inputs` in batches: a list of tuples."""
    return list(zip(*(part.split(size) for part in parts), strict=True))
