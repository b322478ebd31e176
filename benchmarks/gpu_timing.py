"""How calls are timed on a GPU: medians of CUDA events, in microseconds."""

import torch
import triton


def median(run):
    """Microseconds."""
    return 1e3 * triton.testing.do_bench(run, warmup=100, rep=500, return_mode="median")


def forward_and_both(function, leaves):
    """`function()` alone, and with the gradients of `leaves`, of all of its outputs that have one."""

    def smooth():
        made = function()
        return [t for t in (made if isinstance(made, tuple) else (made,)) if t.requires_grad]

    incoming = [torch.randn_like(output) for output in smooth()]
    with torch.no_grad():
        yield "forward", median(function)
    yield "forward+backward", median(lambda: torch.autograd.grad(smooth(), leaves, incoming, allow_unused=True))


def launches(run):
    """How many kernels one call of `run` starts on the GPU."""
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if not event.key.startswith(("Mem", "cuda")))
