"""Ahead-of-time compilation of the Triton interpreter of pixel programs, without a GPU, within a budget.
Run by test_triton.py as triton_compiled.py is."""

import pytest
import torch
from support import triton_aot
from support.pixel_programs import CASES, images_of, known_of, labels_of
from triton_compiled import CAPABILITIES, REGISTERS_OF_A_PROCESSOR, SHARED

from genfast.kernels import pixel_program

# Bytes that one thread may spill to its stack: a few addresses, outside the products.
STACK = 32


def recorded(case, full):
    """The launch for the program, alone or with all that may be given and wanted."""
    p, n, options = case.program, 3, {}
    if full:
        options = {"given": images_of(p, n), "known": known_of(p, n), "want": ("parameters",)}
        if p.head != "mixture":
            options["evidence"] = torch.zeros(n, p.channels, p.height, p.width, p.levels)
    with triton_aot.record_launches() as launches:
        pixel_program.pixel_program(p, n, seed=2**64 - 1, labels=labels_of(p, n), device="cpu", **options)
    (launch,) = launches
    return launch


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("full, count", [(False, 16), (True, 64)], ids=["alone", "full"])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4]], ids=str)
def test_pixel_program(case, full, count, capability):
    kernel, arguments, options = recorded(case, full)
    width = pixel_program.width_of(count)
    options = {name: width[name] for name in options}
    compiled = triton_aot.compile_launch(kernel, {**arguments, "BLOCK_N": width["BLOCK_N"]}, options, capability)
    registers, stack, shared = triton_aot.resources(compiled)
    used = (registers, stack, shared)
    assert registers * compiled.metadata.num_warps * 32 <= REGISTERS_OF_A_PROCESSOR, used
    assert shared <= SHARED[capability] and stack <= STACK, used
    # The cache of constant data would not see what other threads of the program have written.
    assert "ld.global.nc" not in compiled.asm["ptx"]
