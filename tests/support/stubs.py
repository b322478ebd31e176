"""The names of what is found when genfast is imported, for type checkers: `make stubs` writes them.

An op is exported by `genfast.ops` and `genfast.reference` because its `Spec` is there, a model by `genfast.models`
because its file is: only running code sees that. The functions of the C++ module are those of csrc/ops.def.
"""

from pathlib import Path

from genfast import models
from genfast._native import backends
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

HEADER = "# Written by `make stubs`: type checkers do not see what is found at import.\n"


def texts():
    """Path below the checkout -> the text of the stub."""
    specs = sorted((SPECS | SAMPLERS | NON_DIFFERENTIABLE).values(), key=lambda spec: (spec.stem, spec.name))
    functions = [(f"genfast.ops.{spec.stem}", spec.name) for spec in specs]
    references = [(spec.reference.__module__, spec.reference.__name__) for spec in specs]
    kinds = "".join(f"{kind}: dict[str, Spec]\n" for kind in ("SPECS", "SAMPLERS", "NON_DIFFERENTIABLE"))
    imports = [("genfast.reference._spec", "Spec"), *references]
    return {
        "genfast/ops/__init__.pyi": f"{HEADER}{exports(functions)}\n{listed(functions)}",
        "genfast/reference/__init__.pyi": f"{HEADER}{exports(imports)}\n{kinds}",
        "genfast/models/__init__.pyi": f"{HEADER}{exports(of_models())}\n{listed(of_models())}",
        "genfast/_C.pyi": f"{HEADER}{native()}",
    }


def of_models():
    """(module, name) of what `genfast.models` exports."""
    values = [getattr(models, name) for name in models.__all__]
    where = {"MODELS": "genfast.models.base"}
    pairs = [(where.get(name) or value.__module__, name) for name, value in zip(models.__all__, values)]
    # The order in which ruff sorts imports: constants, classes, functions.
    return sorted(pairs, key=lambda pair: (pair[0], not pair[1].isupper(), not pair[1][0].isupper(), pair[1]))


def native():
    """The functions of the C++ module: addresses are ints, numbers are ints and floats."""
    text = "def isa() -> str: ...\ndef isas() -> list[str]: ...\ndef set_isa(name: str) -> None: ...\n"
    text += "def set_parallel_for(address: int) -> None: ...\ndef signatures() -> dict[str, list[str]]: ...\n"
    text += "def exchange_float_modes(modes: list[int], threads: int) -> list[int]: ...\n"
    entries = sorted(backends.cpp.signatures())
    return text + "".join(f"def {entry}(dtype: str, *values: int | float) -> None: ...\n" for entry in entries)


def exports(names):
    """Imports that type checkers take for exports."""
    return "".join(f"from {module} import {name} as {name}\n" for module, name in names)


def listed(names):
    """`__all__` as `from module import *` reads it, as ruff formats it."""
    return "__all__ = [\n" + "".join(f'    "{name}",\n' for _, name in names) + "]\n"


if __name__ == "__main__":
    for path, text in texts().items():
        (Path(__file__).resolve().parents[2] / path).write_text(text)
