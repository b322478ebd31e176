"""The adversarial family on a GPU: checked against float64, timed beside torch, with what was asked for.

gpu.py runs it with the others; alone, `python benchmarks/gpu_adversarial.py` prints every row and every target, and
ends with 1 where a result is wrong or a target missed.
"""

import sys
from functools import partial

import rivals_adversarial as rivals
import torch
from gpu_timing import forward_and_both, launches, median
from torch import nn

from genfast import losses, ops, testing
from genfast import nn as layers
from genfast.reference import SPECS

OPS = ("minibatch_discrimination", "minibatch_stddev", "bias_act", "upfirdn2d", "spectral_norm")
RIVALS = ("good eager", "torch.compile")
# How many times as fast as either rival, in either mode, a case was asked to be.
WANTED = {
    "minibatch_discrimination N=256 B=100 C=5": 20, "minibatch_stddev 64x512x4x4": 4,
    "bias_act 16x128x64x64 leaky relu": 3, "upfirdn2d up 2, 4 taps, 16x64x64x64": 4,
    "spectral_norm 20 layers 128x1152": 3, "spectral_norm 20 layers 64x576": 3,
}  # fmt: skip
STEP, MOST_WITH_R1 = "discriminator step, B=64 3x64x64", 2.2


def rows():
    for op in OPS:
        for case, sizes in SPECS[op].bench.items():
            for dtype in (torch.float32, torch.bfloat16):
                torch._dynamo.reset()
                name = f"{op} {case}"
                wanted = {"wanted_times_rivals": WANTED[name]} if name in WANTED else {}
                about = {"case": name, "dtype": str(dtype)}
                if op == "spectral_norm":
                    contenders = _normalizations(sizes, dtype)
                else:
                    contenders = _contenders(op, sizes, dtype)
                for contender, (run, leaves) in contenders.items():
                    for mode, took in forward_and_both(run, leaves):
                        row = about | {"contender": contender, "mode": mode, "us": took}
                        if contender == "genfast":
                            row |= wanted | ({"launches": launches(run)} if mode == "forward" else {})
                        yield row
    for dtype in (torch.float32, torch.bfloat16):
        yield from _steps(dtype)


def _contenders(op, sizes, dtype):
    """Contender -> the call, and what it has gradients of."""
    inputs = SPECS[op].inputs(sizes, dtype=dtype, device="cuda")
    leaves = tuple(tensor.requires_grad_() for tensor in testing.learned(inputs).values())
    eager = getattr(rivals, f"{op}_eager")
    functions = partial(getattr(ops, op), backend="triton"), eager, torch.compile(eager, dynamic=False)
    return {name: (partial(f, **inputs), leaves) for name, f in zip(("genfast", *RIVALS), functions)}


def _normalizations(sizes, dtype):
    """One step of the power method and the weights of all layers, as a forward pass in training has it."""
    inputs = SPECS["spectral_norm"].inputs(sizes, dtype=dtype, device="cuda")
    weight, u, v = inputs["weight"].requires_grad_(), inputs["u"], inputs["v"]

    def ours():
        left, right = ops.power_iteration(weight, u, v, backend="triton")
        normalized = ops.spectral_norm(weight, left.to(dtype), right.to(dtype), backend="triton")
        u.copy_(left)
        v.copy_(right)
        return normalized

    theirs = rivals.Normalized(*(tensor.detach().cpu() for tensor in (weight, u, v))).to("cuda", dtype)
    eager = partial(_stacked, theirs)
    made = {"genfast": (ours, (weight,))}
    return made | {
        name: (f, tuple(theirs.leaves())) for name, f in zip(RIVALS, (eager, torch.compile(eager, dynamic=False)))
    }


def _stacked(normalized):
    """As one tensor, for one incoming gradient."""
    return torch.stack(normalized())


class Discriminator(nn.Module):
    """Four blocks of a convolution, a bias with its activation, and a filter that halves the size."""

    def __init__(self, features=64):
        super().__init__()
        widths = [3, *(features * 2**stage for stage in range(4))]
        self.blocks = nn.Sequential()
        for before, after in zip(widths, widths[1:]):
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            self.blocks.append(layers.BiasAct(after, "leaky_relu"))
            self.blocks.append(layers.Downsample2d())
        self.stddev = layers.MinibatchStddev()
        self.head = nn.Conv2d(widths[-1] + 1, 1, 4)

    def forward(self, x):
        return self.head(self.stddev(self.blocks(x))).flatten()


def _steps(dtype):
    """Loss, gradients and update, with the R1 penalty and without, eager and with what is compiled in one graph."""
    torch.manual_seed(0)
    critic = Discriminator().to("cuda")
    optimizer = torch.optim.Adam(critic.parameters(), fused=True)
    real, fake = (torch.randn(64, 3, 64, 64, device="cuda") for _ in range(2))

    def objective(penalised):
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = losses.non_saturating_discriminator(critic(real), critic(fake))
            return loss + 5 * losses.r1_penalty(critic, real) if penalised else loss

    def step(objective, penalised):
        objective(penalised).backward()
        optimizer.step()
        optimizer.zero_grad()

    for contender, function in (("genfast", objective), ("genfast, torch.compile", torch.compile(objective))):
        took = {}
        for mode, penalised in (("step", False), ("step with R1", True)):
            torch._dynamo.reset()
            took[mode] = median(partial(step, function, penalised))
            row = {"case": STEP, "dtype": str(dtype), "contender": contender, "mode": mode, "us": took[mode]}
            if penalised:
                row |= {"times_without": took[mode] / took["step"], "most_times_without": MOST_WITH_R1}
            yield row


def check():
    """Results and gradients of every benchmarked case against float64, in float32 and bfloat16; and their bits."""
    for op in OPS:
        for case, sizes in SPECS[op].bench.items():
            for dtype in (torch.float32, torch.bfloat16):
                inputs = SPECS[op].inputs(sizes, dtype=dtype, device="cuda")
                function, reference = getattr(ops, op), SPECS[op].reference
                with testing.poisoned():
                    got, again = (testing.evaluate(function, inputs, backend="triton") for _ in range(2))
                truth = testing.evaluate(reference, testing.doubled(inputs))
                rival = testing.evaluate(reference, inputs)
                for name, value in got.items():
                    label = f"{op} {case} {dtype} {name}"
                    testing.assert_identical(again[name], value, name=label)
                    if dtype == torch.float32:
                        # Sums of many terms round: the error scales with the largest.
                        largest = max(1.0, truth[name].abs().max().item())
                        testing.assert_matches(value, truth[name], name=label, atol=1e-5 * largest)
                    else:
                        testing.assert_no_worse(value, rival[name], truth[name], name=label)
                del got, again, truth, rival


def verdicts(rows):
    """What was asked for, what was measured, and whether it is enough."""
    took = {(r["case"], r["dtype"], r["contender"], r["mode"]): r["us"] for r in rows}
    for row in rows:
        name = " ".join((row["case"], row["dtype"], row["mode"]))
        if "most_times_without" in row:
            yield (
                f"{name}, {row['contender']}, times that without",
                row["times_without"],
                row["most_times_without"],
                (row["times_without"] <= row["most_times_without"]),
            )
        for rival in RIVALS if "wanted_times_rivals" in row else ():
            times = took[row["case"], row["dtype"], rival, row["mode"]] / row["us"]
            yield f"{name}, {rival} in ours", times, row["wanted_times_rivals"], times >= row["wanted_times_rivals"]


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    check()
    print("every result matches float64, twice with the same bits", flush=True)
    found = []
    for row in rows():
        found.append(row)
        print(*(f"{v:.1f}" if isinstance(v, float) else v for v in row.values()), sep=" | ", flush=True)
    enough = True
    for name, times, wanted, reached in verdicts(found):
        enough &= reached
        print(f"{'reached' if reached else 'MISSED'}: {name}: {times:.1f}, target {wanted}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
