"""The user's defaults are the user's: torch's default dtype and device, flushing of denormal numbers and the number of
threads change nothing of what the package computes from models and tensors that exist."""

import contextlib

import pytest
import torch
from support import public
from support.pieces import LAYERS, MODELS, new_layer, plain
from support.public import CALLS, IDLE

import genfast
from genfast import testing

PLAIN = (torch.float32, "cpu", False)
# (default dtype, default device, whether denormal numbers are flushed, threads): every value beside several others, and
# two threads in one of them, as they take many times as long where the tests have all cores.
SETTINGS = (
    (torch.float32, "meta", True, 1),
    (torch.float64, "cpu", False, 1),
    (torch.float64, "meta", True, 1),
    (torch.bfloat16, "cpu", True, 1),
    (torch.float16, "meta", False, 1),
    (torch.bfloat16, "meta", True, 2),
)
# Torch's own convolutions and sums, whose order depends on the threads: there only the settings of one count are equal.
OF_TORCH = {
    *("likelihoods.LogisticMixture", "metrics.duality_gap", "metrics.train_classifier"),
    *("metrics.find_faults", "train.fit", "train.fit_adversarial"),
    *("reference.masked_conv2d_ref", "reference.pixelcnn_block_ref"),
}


@contextlib.contextmanager
def defaults(dtype, device, flushing, threads):
    before = torch.get_default_dtype()
    with testing.threads(threads):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        torch.set_flush_denormal(flushing)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_default_device(None)
            torch.set_default_dtype(before)


def result(call):
    torch.manual_seed(0)
    return plain(call())


@pytest.mark.parametrize("name", CALLS)
def test_nothing_depends_on_the_defaults(name):
    call, expected = CALLS[name], {}
    call()  # makes what the rows share
    for threads in (1, 2):
        with defaults(*PLAIN, threads):
            expected[threads] = result(call)
    if name.partition(".")[0] not in ("nn", "models") and name not in OF_TORCH:
        assert expected[1] == expected[2], "1 and 2 threads"
    different = []
    for *setting, threads in SETTINGS:
        with defaults(*setting, threads):
            if result(call) != expected[threads]:
                different.append((*setting, threads))
    assert not different, "(dtype, device, flush denormals, threads)"


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_new_modules_follow_the_default_dtype(name):
    """As those of torch.nn do."""
    with defaults(torch.float64, "cpu", False, 1):
        module = genfast.models.build(name, **MODELS[name]) if name in MODELS else new_layer(name)
    assert {parameter.dtype for parameter in module.parameters()} <= {torch.float64}


def test_a_model_from_a_file_does_not_follow_them():
    """It is what was stored, on the CPU."""
    with defaults(torch.float64, "meta", False, 1):
        loaded = genfast.models.PixelRNN.pretrained("mnist")
        assert {(p.dtype, p.device.type) for p in loaded.parameters()} == {(torch.float32, "cpu")}
        assert genfast.sample(loaded, 1).device.type == "cpu"


def test_everything_public_has_a_call():
    named = set(public.names())
    assert named - IDLE - set(CALLS) == set(), "a row in tests/support/public.py, or in IDLE if it computes nothing"
    assert IDLE - named == set()
