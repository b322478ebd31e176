"""The machine: its limits, its cores, and when nothing should be measured on it."""

import pytest
import torch

from genfast._native.peak import fma_loop
from genfast.benchmarks import machine


def test_limits_are_measured():
    torch.set_num_threads(1)
    limits = machine.limits(0.05)
    assert limits.fma_gflops > 1 and limits.sgemm_gflops > 1 and min(limits.copies_gbytes.values()) > 0.05
    assert limits.gflops >= limits.sgemm_gflops
    assert limits.gbytes(1) == limits.copies_gbytes[min(limits.copies_gbytes)]
    assert limits.gbytes(2**40) == limits.copy_gbytes == limits.copies_gbytes[max(limits.copies_gbytes)]


def test_the_loop_of_multiply_adds_does_what_it_counts():
    """Twice the rounds are twice the FLOPs, of which a vector of 4 to 16 numbers has 24 in each round of a chain."""
    torch.set_num_threads(1)
    (run, flops), (_, twice) = fma_loop(1000), fma_loop(2000)
    run()
    assert twice == 2 * flops and flops % (1000 * 24) == 0 and flops // (1000 * 24) in (4, 8, 16)
    torch.set_num_threads(2)
    assert fma_loop(1000)[1] == 2 * flops


def test_more_threads_than_cores_are_refused():
    cores = machine.usable_cores()
    why = machine.refusal(cores + 1)
    assert why.startswith(f"threads: expected at most {cores}") and f"got {cores + 1}" in why and "--anyway" in why


@pytest.mark.parametrize("busy, refused", [(0.0, False), (0.15, False), (0.5, True), (None, False)])
def test_a_busy_machine_is_refused(monkeypatch, busy, refused):
    monkeypatch.setattr(machine, "LOOKED", 0.0)
    monkeypatch.setattr(machine.Neighbours, "cores", lambda self: busy)
    why = machine.refusal(1)
    assert (why is not None) == refused
    assert not refused or why.startswith("load: expected a machine at rest; got 0.5 of ")


def test_neighbours_are_the_others(monkeypatch):
    """Of 3 busy seconds in 2, 1.8 are our own."""
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    busy, own = iter([10.0, 13.0]), iter([5.0, 6.8])
    monkeypatch.setattr(machine, "_busy", lambda: next(busy))
    monkeypatch.setattr(machine, "_own", lambda: next(own))
    assert machine.Neighbours().cores() == pytest.approx(0.6)


@pytest.mark.parametrize("quota, cores", [("max 100000", 8), ("150000 100000", 2), ("1000 100000", 1), ("junk", 8)])
def test_cores_are_those_that_the_group_pays_for(monkeypatch, quota, cores):
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine.Path, "read_text", lambda path: quota)
    assert machine.usable_cores() == cores


def test_a_name_of_a_machine_is_that_of_its_kind():
    told = machine.describe(2, 2)
    assert told["allocator"] and told["cpu"] and told["isa"] in told["isas"] and told["gpu"]
    assert machine.slug({"cpu": "AMD EPYC(R) 7 64-Core Processor @ 2GHz", "isa": "x86-64-v4-bf16", "threads": 2}) == (
        "amd-epyc-7-v4_bf16-2t"
    )
