"""The compiler from a model to its pixel program: `compile_program(model)`.

`trace` makes a graph of a forward. `reader` reads it, operation by operation, with handlers on symbolic `values`,
into the steps of `plan`: those that rearrange features (`handlers`, `rearrange`), compute element by element
(`arithmetic`, `functions`, `choices`), sum over features or neighbours (`sums`, `products`, `statistics`), scan
(`scans`), or turn levels into numbers (`entrance`). `nodes` tells whose memory a tensor shares, `memory` what a write
changes. `known` keeps what depends on labels and conditions alone, `exit` takes off what turns logits into
probabilities. `fuse` simplifies the steps, `schedule` orders them, `lower` turns them into buffers and instructions.
`proof` verifies the program of a foreign model.
"""

from genfast.engine.compiler.compile import chosen, compile_program, compile_traced, trace_model
from genfast.engine.compiler.entrance import inferred, shown
from genfast.engine.compiler.plan import NotCausal, NotIncremental

__all__ = [
    "NotCausal",
    "NotIncremental",
    "chosen",
    "compile_program",
    "compile_traced",
    "inferred",
    "shown",
    "trace_model",
]
