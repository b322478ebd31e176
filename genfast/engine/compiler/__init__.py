"""From a model to its pixel program: `compile_program(model)`.

`compile` traces the model and `reader` reads the graph, op by op with the handlers of `handlers`, `arithmetic`, `sums`
and `scans` on symbolic `values`, into the steps of `plan`. `fuse` and `schedule` simplify and order them, `lower` makes
them buffers and instructions, and `proof` compares the program with a model that is not ours.
"""

from genfast.engine.compiler.compile import compile_program
from genfast.engine.compiler.plan import NotCausal, NotIncremental

__all__ = ["NotCausal", "NotIncremental", "compile_program"]
