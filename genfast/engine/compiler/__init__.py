"""The compiler from a model to its pixel program: `compile_program(model)`.

`compile` traces the model. `reader` reads the graph, operation by operation, with handlers on symbolic `values`, into
the steps of `plan`. Handlers are in `handlers` and `rearrange` (moving features), `arithmetic`, `choices` and
`functions` (element by element), `sums`, `statistics` and `products` (over features and neighbours), and `scans`.
`fuse` simplifies the steps, `schedule` orders them, `lower` turns them into buffers and instructions. `proof` verifies
the program of a foreign model.
"""

from genfast.engine.compiler.compile import compile_program
from genfast.engine.compiler.plan import NotCausal, NotIncremental

__all__ = ["NotCausal", "NotIncremental", "compile_program"]
