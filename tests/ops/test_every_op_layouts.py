"""Every op of the C++ backend gives the same bits wherever its tensors lie, and for any images of such a batch."""

import pytest
import torch
from support.op_matrix import CPP, NATIVE, first_differentiable, innermost, outputs, parametrize, sample

import genfast
from genfast import testing
from genfast._native import backends
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

LAYOUTS = [testing.transposed, testing.channels_last, innermost, testing.sliced, testing.expanded]
# What is of several channels, and no whole number of blocks.
SIZES = {"bernoulli_nll": {"B": 4, "C": 3, "H": 29, "W": 31, "M": 1}, "gaussian_nll": {"C": 3, "M": 1}}
SIZES |= {"categorical_nll": {"B": 4, "C": 3, "L": 17, "H": 11, "W": 13}}


def of_images(op, inputs, changes=lambda tensor: tensor):
    """What has something of every image: outputs, and the gradient of the first argument; `changes` its layout."""
    first, _ = first_differentiable(inputs)
    batched = [name for name in SPECS[op].batched or (first,) if inputs[name] is not None]
    inputs = {**inputs, **{name: changes(inputs[name]) for name in batched}}
    inputs[first].requires_grad_()
    results = [output for output in outputs(op, inputs, "cpp") if output.ndim]
    smooth = [output for output in results if output.is_floating_point()]
    gradients = torch.autograd.grad(smooth, inputs[first], [torch.ones_like(output) for output in smooth])
    return *(result.detach() for result in results), *gradients


@parametrize("layout", LAYOUTS)
@parametrize("op, backend, dtype", CPP)
def test_layouts_and_images_of_them(op, backend, dtype, layout):
    inputs = sample(op, backend, dtype, {**SPECS[op].shapes[3], **SIZES.get(op, {})})
    placed = of_images(op, inputs, lambda tensor: layout(tensor.detach()))
    copied = of_images(op, inputs, lambda tensor: layout(tensor.detach()).contiguous())
    for i, (a, b) in enumerate(zip(placed, copied, strict=True)):
        testing.assert_identical(a, b, name=f"result {i}, contiguous")
    if SPECS[op].coupled or "first_index" in inputs or inputs[first_differentiable(inputs)[0]].shape[0] < 3:
        return
    some = of_images(op, inputs, lambda tensor: layout(tensor.detach())[::2])
    for i, (a, b) in enumerate(zip(some, placed, strict=True)):
        testing.assert_identical(a, b[::2], name=f"result {i}, every other image")


@parametrize("layout", LAYOUTS)
@parametrize("op", [*SAMPLERS, *NON_DIFFERENTIABLE])
def test_layouts_of_what_has_no_gradient(op, layout):
    spec = (SAMPLERS | NON_DIFFERENTIABLE)[op]
    for dtype in backends.dtypes(op, "cpp"):
        inputs = testing.each_tensor(layout, spec.inputs(spec.shapes[3], dtype=dtype))
        copied = testing.each_tensor(torch.Tensor.contiguous, inputs)
        results = (testing.outputs_of(getattr(genfast, op)(**given, backend="cpp")) for given in (inputs, copied))
        for i, (a, b) in enumerate(zip(*results, strict=True)):
            testing.assert_identical(a, b, name=f"result {i}, {dtype}")


LIKELIHOODS = ["bernoulli_nll", "categorical_nll", "logistic_mixture_nll"]


@pytest.mark.interpreted
@parametrize("op, backend, dtype", [entry for entry in NATIVE if entry[0] in LIKELIHOODS])
def test_every_other_image_of_a_likelihood(op, backend, dtype):
    """On every backend; nats of half types are float32."""
    inputs = sample(op, backend, dtype, {"B": 3, "C": 3, "K": 2, "L": 5, "H": 3, "W": 5, "M": 0})
    for layout in (torch.Tensor.contiguous, innermost, testing.transposed):
        placed = testing.each_tensor(layout, inputs)
        (whole,) = outputs(op, placed, backend)
        (some,) = outputs(op, testing.each_tensor(lambda tensor: tensor[::2], placed), backend)
        assert whole.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        testing.assert_identical(some, whole[::2])


@pytest.mark.parametrize("op", LIKELIHOODS)
def test_single_pixels_and_rows(op):
    """Where several layouts are one."""
    for height, width in ((1, 1), (1, 5), (5, 1)):
        sizes = {**SPECS[op].shapes[3], "B": 3, "H": height, "W": width}
        inputs = sample(op, "cpp", torch.float64, sizes)
        expected = of_images(op, inputs)
        for a, b in zip(of_images(op, inputs, lambda tensor: innermost(tensor.detach())), expected, strict=True):
            testing.assert_identical(a, b)
