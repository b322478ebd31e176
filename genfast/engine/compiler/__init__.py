"""The compiler from a model to its pixel program: `compile_program(model)`.

`compile` traces the model. `reader` reads the graph, operation by operation, with the handlers in `handlers`,
`arithmetic`, `sums` and `scans` on symbolic `values`, into the steps of `plan`. `fuse` simplifies the steps, `schedule`
orders them, `lower` turns them into buffers and instructions. `proof` verifies the program of a foreign model.
"""

from genfast.engine.compiler.compile import compile_program
from genfast.engine.compiler.plan import NotCausal, NotIncremental

__all__ = ["NotCausal", "NotIncremental", "compile_program"]
