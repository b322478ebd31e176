"""Every op of the C++ backend gives the same bits for any threads, instruction set, split of the batch and process."""

import multiprocessing
import threading

import torch
from support.op_matrix import (
    CPP,
    CPP_OPS,
    crowded,
    first_differentiable,
    outputs,
    parametrize,
    raw_arguments,
    run,
    run_kernels,
    sample,
    small,
)

import genfast
from genfast import testing
from genfast.reference import SPECS


@parametrize("shape", (3, 5, 6, 7, 8))
@parametrize("op, backend, dtype", CPP)
def test_same_bits_for_threads_and_isas(op, backend, dtype, shape):
    inputs = sample(op, backend, dtype, min(shape, len(SPECS[op].shapes) - 1))
    evaluate = run
    if op == "minibatch_discrimination":  # the product before it is torch's, and depends on the threads
        evaluate, inputs = run_kernels, raw_arguments(op, inputs, backend)
    with testing.threads(1):
        expected = evaluate(op, inputs, backend)
    active = genfast.backends()["cpp"]
    for count, isa in [(2, active.isa), *((1, isa) for isa in active.isas), (3, active.isas[0])]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = evaluate(op, inputs, backend)
        finally:
            genfast.set_isa(active.isa)
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=f"{name} ({isa}, {count} threads)")


@parametrize("op, backend, dtype", [entry for entry in CPP if not SPECS[entry[0]].coupled])
def test_same_bits_for_batch_splits(op, backend, dtype):
    inputs = sample(op, backend, dtype, crowded(op))
    first, leaf = first_differentiable(inputs)
    split = [name for name in SPECS[op].batched or (first,) if inputs[name] is not None]

    def of_images(inputs):
        """The outputs that have something of every image, and the gradient through them."""
        changed = inputs[first].clone().requires_grad_()
        results = [output for output in outputs(op, {**inputs, first: changed}, backend) if output.ndim]
        smooth = [output for output in results if output.is_floating_point()]
        incoming = [torch.ones_like(output) for output in smooth]
        return *(output.detach() for output in results), *torch.autograd.grad(smooth, changed, incoming)

    expected = of_images(inputs)
    for size in (1, 7, 16, 32):
        parts = []
        for start in range(0, len(leaf), size):
            part = {**inputs, **{name: inputs[name][start : start + size] for name in split}}
            if "first_index" in part:
                part["first_index"] += start
            parts.append(of_images(part))
        for i, got in enumerate(zip(*parts, strict=True)):
            testing.assert_identical(torch.cat(got), expected[i], name=f"result {i}, parts of {size}")


@parametrize("op, backend", CPP_OPS)
def test_several_python_threads(op, backend):
    inputs = sample(op, shape=crowded(op))
    expected = run(op, inputs, backend)
    results = []

    def work():
        results.extend(run(op, inputs, backend) for _ in range(10))

    workers = [threading.Thread(target=work) for _ in range(4)]
    with testing.threads(2):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(results) == 40
    for got in results:
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=name)


def in_child(op, backend, inputs, connection):
    connection.send([output.numpy().tobytes() for output in outputs(op, inputs, backend)])


@parametrize("op, backend", CPP_OPS)
def test_after_fork(op, backend):
    """The parent has used its threads; the child must neither hang nor differ."""
    inputs = sample(op, shape=crowded(op))
    with testing.threads(2):
        expected = [output.numpy().tobytes() for output in outputs(op, inputs, backend)]
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(op, backend, inputs, there))
        child.start()
        answered = here.poll(60)
        child.kill() if not answered else child.join()
    assert answered, "the forked child hangs"
    assert here.recv() == expected


class Scanned(torch.utils.data.Dataset):
    def __init__(self, op, backend):
        self.op, self.backend = op, backend

    def __len__(self):
        return 4

    def __getitem__(self, index):
        inputs = sample(self.op, self.backend, shape=small(self.op))
        return outputs(self.op, inputs, self.backend)[0][0] + index


@parametrize("op, backend", CPP_OPS)
def test_in_loader_workers(op, backend):
    expected = torch.stack([Scanned(op, backend)[i] for i in range(4)])
    loader = torch.utils.data.DataLoader(Scanned(op, backend), batch_size=2, num_workers=2)
    testing.assert_identical(torch.cat(list(loader)), expected)
