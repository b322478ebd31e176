"""The names of what is found when genfast is imported, for type checkers: `make stubs` writes them.

An op is exported by `genfast.ops` and `genfast.reference` because its `Spec` is there, which only running code sees.
"""

from pathlib import Path

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
        "genfast/ops/__init__.pyi": f"{HEADER}{exports(functions)}",
        "genfast/reference/__init__.pyi": f"{HEADER}{exports(imports)}\n{kinds}",
    }


def exports(names):
    """Imports that type checkers take for exports."""
    return "".join(f"from {module} import {name} as {name}\n" for module, name in names)


if __name__ == "__main__":
    for path, text in texts().items():
        (Path(__file__).resolve().parents[2] / path).write_text(text)
