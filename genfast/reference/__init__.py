"""Every op in plain PyTorch: the specification, differentiable to any order; and what has no derivative, samplers that
draw and statistics that do not.

What a module of this folder calls a `Spec` is found here. `<op>_ref` of every op is exported.
"""

from __future__ import annotations

import importlib
import pkgutil

from genfast.reference._spec import Spec

_STEMS = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
_FOUND = [
    spec
    for stem in _STEMS
    for spec in vars(importlib.import_module(f"{__name__}.{stem}")).values()
    if isinstance(spec, Spec)
]
# By the name of the op: what has a derivative, what draws, and the others.
SPECS: dict[str, Spec] = {spec.name: spec for spec in _FOUND if spec.kind == "differentiable"}
SAMPLERS: dict[str, Spec] = {spec.name: spec for spec in _FOUND if spec.kind == "sampler"}
NON_DIFFERENTIABLE: dict[str, Spec] = {spec.name: spec for spec in _FOUND if spec.kind == "non_differentiable"}

globals().update({spec.reference.__name__: spec.reference for spec in _FOUND})
__all__ = ["NON_DIFFERENTIABLE", "SAMPLERS", "SPECS", "Spec", *sorted(spec.reference.__name__ for spec in _FOUND)]
