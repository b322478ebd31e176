"""What a model is given of the data, and the refusal of data that are not the model's."""


def inputs(model, data):
    """The tensors that `log_prob` takes: (images,), or (images, labels) for a model conditional on labels.

    Raises: ValueError for images of another shape or levels than the model's config names, or for labels that
        a conditional model needs and the data lack, or that are none of its classes.
    """
    config = getattr(model, "config", None)
    if config is None:
        return (data.images,)
    expected = (config.channels, config.height, config.width, config.levels)
    got = (*data.images.shape[1:], data.levels)
    if got != expected:
        raise ValueError(f"{data.name}: expected (channels, height, width, levels) {expected}; got {got}")
    classes = getattr(config, "classes", 0)
    if not classes:
        return (data.images,)
    if data.labels is None:
        raise ValueError(f"{data.name}: expected labels for a model of {classes} classes; got images without labels")
    if data.labels.shape != (len(data),) or data.labels.is_floating_point():
        got = f"{data.labels.dtype} {tuple(data.labels.shape)}"
        raise ValueError(f"{data.name}: expected {len(data)} whole labels; got {got}")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{data.name}: expected labels from 0 to {classes - 1}; got {low} to {high}")
    return data.images, data.labels


def batches(parts, size):
    """The tensors of `inputs` in batches: a list of tuples."""
    return list(zip(*(part.split(size) for part in parts), strict=True))
