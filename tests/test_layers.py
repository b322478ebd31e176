"""The house: a room imports from the rooms below it and never from one above, and no two modules import each other."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "genfast"
# From the ground up; docs/architecture.md has the picture. What stands in one line does not import one another.
LAYERS = (
    ("_version", "_registry", "_config", "io"),
    ("random",),
    ("_native",),
    ("reference",),
    ("ops",),
    ("losses", "data", "testing"),
    ("nn",),
    ("likelihoods",),
    ("engine",),
    ("kernels", "explain"),
    ("tasks",),
    ("models",),
    ("metrics",),
    ("train",),
    ("cli",),
    ("__init__", "__main__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}
# Packages that are imported where they are needed, as they need not be installed.
OPTIONAL = {
    *("PIL", "datasets", "huggingface_hub", "matplotlib", "pyarrow", "safetensors", "sklearn", "torch_fidelity"),
    *("torchmetrics", "tqdm", "triton"),
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
} | {
    f"genfast.kernels.{path.stem}".removesuffix(".__init__"): path for path in sorted((ROOT / "kernels").glob("*.py"))
}


def statements(node, inside=False):
    """(import statement, whether it stands within a function), but for those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, inside
        yield from statements(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))


def imported(statement):
    """The modules that a statement names: of `from package import name` the module `package.name` if it is one."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    names = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return [name if name in MODULES else statement.module for name in names]


@functools.cache
def all_imports(module):
    """(name of an imported module, whether within a function) of a module."""
    tree = ast.parse(MODULES[module].read_text())
    return [(name, within) for statement, within in statements(tree) for name in imported(statement)]


def imports(module, inside=None):
    return [name for name, within in all_imports(module) if inside is None or within == inside]


def room(module):
    return (module.split(".") + ["__init__"])[1]


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_from_the_rooms_below_it(module):
    own = room(module)
    guilty = [
        name
        for name in imports(module)
        if name.split(".")[0] == "genfast" and room(name) != own and FLOOR[room(name)] >= FLOOR[own]
    ]
    assert not guilty, f"{module} on floor {FLOOR[own]} imports {guilty}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_within_functions_are_of_optional_packages(module):
    guilty = [name for name in imports(module, inside=True) if name.split(".")[0] not in OPTIONAL]
    assert not guilty, guilty


def test_nobody_imports_the_root_package():
    guilty = [m for m in MODULES if m not in ("genfast", "genfast.__main__") and "genfast" in imports(m)]
    assert not guilty, guilty


def test_no_circle():
    """Depth-first: a module that is met again while it is being visited closes a circle. A package and its modules
    count as what they import, but for the package's own list of its modules."""
    graph = {
        module: [n for n in imports(module) if n in MODULES and n != module and not module.startswith(f"{n}.")]
        for module in MODULES
    }
    state, circles = {}, []

    def visit(module, path):
        state[module] = "open"
        for name in graph[module]:
            if state.get(name) == "open":
                circles.append([*path[path.index(name) :], name] if name in path else [name])
            elif name not in state:
                visit(name, [*path, name])
        state[module] = "done"

    for module in graph:
        if module not in state:
            visit(module, [module])
    assert not circles, circles
