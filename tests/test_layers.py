"""The rooms: one imports from those below it, never from one above; no two modules import each other; what a file adds
stands in that file alone."""

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genfast import _registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "genfast"
# From the ground up; docs/architecture.md has the picture. What stands in one line does not import one another.
LAYERS = (
    ("_interrupt", "_version", "_registry", "_text", "_defaults"),
    ("_config", "io"),
    ("_tensors", "folders"),
    ("random",),
    ("_native",),
    ("_state",),
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
    ("compat",),
    ("train",),
    ("reports",),
    ("audit",),
    ("benchmarks",),
    ("cli",),
    ("__init__", "__main__"),
)
UNSEEN = ("_interrupt", "_version", "_registry", "_config", "_defaults", "_text", "_tensors")
FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}
# Packages that are imported where they are needed, as they need not be installed.
OPTIONAL = {
    *("PIL", "datasets", "huggingface_hub", "imagecodecs", "matplotlib", "pyarrow", "safetensors", "sklearn"),
    "soundfile",
    *("torch_fidelity", "torchmetrics", "tqdm", "triton"),
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# What a checkout has beside the package, and a wheel in it; not the scripts of the benchmarks, which have a checkout.
SCRIPT = 'if __name__ == "__main__":\n    main()'
MODULES |= {
    ".".join(("genfast", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for folder in ("kernels", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if SCRIPT not in path.read_text()
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


def test_the_picture_shows_the_rooms():
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = re.findall(r"^(\w+)  +\w", text.split("```text\n")[1].split("```")[0], re.MULTILINE)
    assert {*rooms, "kernels", *UNSEEN, "__init__", "__main__"} == set(FLOOR)
    floors = [FLOOR[room] for room in rooms]
    assert floors == sorted(floors, reverse=True), "from the roof down"


LIKELIHOODS = ("bernoulli", "categorical", "gaussian", "mixture")


def compares_a_name(node):
    """Whether a comparison is one with the name of a likelihood."""
    sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
    constants = [c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)]
    return any(constant in LIKELIHOODS for constant in constants)


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) != "likelihoods"])
def test_nobody_asks_a_likelihood_for_its_name(module):
    """`genfast.kernel_sum` has a kernel that is called gaussian."""
    if module.rpartition(".")[2] in ("kernel_sum", "distances"):
        return
    tree = ast.parse(MODULES[module].read_text())
    assert not [node.lineno for node in ast.walk(tree) if compares_a_name(node)]


# Of objects that are not ours: torch's, the C library's.
PROBES = {
    *(m for m in MODULES if m.startswith("genfast.engine.compiler")),  # of the nodes of a graph of torch
    "genfast.ops.importance_bound",  # of a node of the autograd graph
    "genfast.train.memory",
    "genfast._native.backends",
}


@pytest.mark.parametrize("module", [m for m in MODULES if m not in PROBES])
def test_a_protocol_is_asked_instead_of_an_attribute(module):
    text = MODULES[module].read_text()
    assert not re.search(r"\bhasattr\(|getattr\([^()]*, [\"']\w+[\"'], ", text)


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) != "cli"])
def test_the_command_line_alone_prints(module):
    tree = ast.parse(MODULES[module].read_text())
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]


def is_annotated(function):
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    arguments += [a for a in (function.args.vararg, function.args.kwarg) if a]
    return function.returns is not None and all(a.annotation for a in arguments if a.arg not in ("self", "cls"))


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) != "kernels"])
def test_public_functions_are_annotated(module):
    tree = ast.parse(MODULES[module].read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    assert not [function.name for function in functions if not is_annotated(function)]


SLOW = ("torch._dynamo", "matplotlib", "sklearn", "huggingface_hub", "pyarrow", "scipy", "triton")
IMPORT = """
import sys, time
start = time.process_time()
import torch
torch_alone, before = time.process_time() - start, {{*sys.modules}}
import genfast, genfast.cli
from genfast.cli.main import make_parser
make_parser()
share = (time.process_time() - start) / torch_alone - 1
assert genfast.models.VAE and genfast.nn.MaskedConv2d and genfast.tasks.sample and genfast.train.fit
print(share, *[name for name in {slow} if name in {{*sys.modules}} - before])
"""


def test_an_import_is_cheap(tmp_path):
    """The whole command line costs half of what torch's import costs at most (0.25 to 0.36 measured; a share, as the
    seconds of one machine are not another's), and drags in nothing that it may not need."""
    # The first run compiles every module, and the others read what it wrote.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True, check=True)
    runs = [run([sys.executable, "-c", IMPORT.format(slow=SLOW)]).stdout.split() for _ in range(4)]
    cheapest = min(runs, key=lambda words: float(words[0]))
    assert cheapest[1:] == [] and float(cheapest[0]) < 0.5, cheapest


def test_a_command_does_not_import_what_others_need():
    code = "import sys; from genfast.cli import main; main(['backends']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "genfast.cli.backends" in modules and not {"genfast.cli.bench", "genfast.benchmarks", "jinja2"} & {*modules}


def test_a_name_that_is_taken_is_refused():
    """Another module's entry would be replaced without a word; the same module may define its own again."""
    registry = {}
    _registry.add(registry, "toy", "twice", 1, "a")
    _registry.add(registry, "toy", "twice", 2, "a")
    with pytest.raises(ValueError, match=r"^toy twice: expected a name that is not taken; got that of a$"):
        _registry.add(registry, "toy", "twice", 3, "b")
    assert registry == {"twice": 2}
