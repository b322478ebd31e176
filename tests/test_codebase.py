"""The rules that a program can check, read from the checkout; the package under test is the installed one."""

import ast
import inspect
import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from support import stubs

import genfast
from genfast._native import backends
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "genfast").rglob("*.py"))
KERNELS = sorted((ROOT / "kernels").glob("*.py"))
CSRC = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp", ".def"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
SCRIPTS = sorted([*(ROOT / "tests").rglob("*.py"), *BENCHMARKS])
# Of the benchmarks, what a wheel holds: the scripts need a checkout.
INSTALLED = [path for path in BENCHMARKS if 'if __name__ == "__main__":\n    main()' not in path.read_text()]
OPS = sorted([*SPECS, *SAMPLERS, *NON_DIFFERENTIABLE])
STEMS = sorted({backends.stem(op) for op in OPS})
ISAS = ("plain", "v3", "v4", "v4_bf16", "neon")
# The file of kernels -> its entries, as csrc/ops.def lists them; and those with a version for bfloat16 instructions.
LISTED = dict(re.findall(r"^(?:KERNEL|PAIRED)\(([\w/]+), (.*)\)$", (ROOT / "csrc/ops.def").read_text(), re.MULTILINE))
LISTED = {file: re.findall(r"OP\((\w+), \w+\)", entries) for file, entries in LISTED.items()}
PAIRED = set(re.findall(r"^PAIRED\(([\w/]+),", (ROOT / "csrc/ops.def").read_text(), re.MULTILINE))
C_HEADERS = {"stdint.h", "stdlib.h", "string.h", "stddef.h", "arm_neon.h", "immintrin.h"}


def name(path):
    return str(path.relative_to(ROOT))


def tree(path):
    return ast.parse(path.read_text())


def imports(path):
    """Dotted names that a file imports, wherever in it, `importlib.import_module("...")` included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node.args[0]).strip("f'\"")


def test_one_importer_of_native_code():
    guilty = [
        (name(path), module)
        for path in PACKAGE
        if path.name != "backends.py"
        for module in imports(path)
        if module.startswith(("triton", "genfast._C", "genfast.kernels", "kernels"))
    ]
    assert not guilty
    assert any(module == "genfast._C" for module in imports(ROOT / "genfast/_native/backends.py"))


def test_kernels_import_themselves_as_part_of_the_package():
    """A bare `kernels` belongs to another project."""
    guilty = [(name(path), module) for path in KERNELS for module in imports(path) if module.startswith("kernels")]
    assert not guilty


def test_one_reader_of_the_environment():
    readers = [name(path) for path in [*PACKAGE, *KERNELS] if re.search(r"\benviron\b|\bgetenv\b", path.read_text())]
    assert readers == ["genfast/_native/backends.py"]
    read = re.findall(r"environ\S*\(?[\"'](\w+)", (ROOT / "genfast/_native/backends.py").read_text())
    assert read == ["GENFAST_REQUIRE"]
    assert not [name(path) for path in CSRC if re.search(r"\bgetenv\b", path.read_text())]


def native_functions(op):
    return [f"{op}_forward", f"{op}_backward"] if op in SPECS else [op]


@pytest.mark.parametrize("op", OPS)
def test_one_stem_in_every_place(op):
    stem = backends.stem(op)
    places = ("genfast/reference/{}.py", "genfast/ops/{}.py", "csrc/ops/{}.h", "csrc/ops/{}.cpp")
    kernels = ["kernels/{}.py"] if backends.dtypes(op, "triton") else []
    if not kernels:
        assert "There is no Triton kernel" in getattr(genfast.ops, op).__doc__, "the docstring says why"
    files = [place.format(stem) for place in (*places, *kernels, "tests/ops/test_{}.py")]
    assert not [file for file in files if not (ROOT / file).is_file()]
    entries = native_functions(op)
    assert set(entries) <= set(LISTED[f"ops/{stem}"])
    for place in (f"csrc/ops/{stem}.cpp", *(kernel.format(stem) for kernel in kernels)):
        text = (ROOT / place).read_text()
        assert all(entry in text for entry in entries), place
    assert f"`genfast.{op}`" in (ROOT / "docs/ops.md").read_text(), "make docs lists the op"
    users = [
        path for path in PACKAGE if path.parent.name in ("nn", "models", "metrics", "tasks", "chains", "likelihoods")
    ]
    assert any(f"ops.{op}(" in path.read_text() for path in users), "no layer, model, likelihood or metric uses the op"
    assert getattr(genfast.ops, op) is getattr(genfast, op)


def test_stubs():
    """Type checkers know the ops that running code finds."""
    for path, text in stubs.texts().items():
        assert (ROOT / path).read_text() == text, f"{path}: run `make stubs`"


def test_no_file_without_its_op():
    of_triton = {backends.stem(op) for op in OPS if backends.dtypes(op, "triton")}
    for folder, expected in (("genfast/ops", set(STEMS)), ("kernels", of_triton), ("genfast/reference", set(STEMS))):
        stems = {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")}
        # An engine for whole models, not an op.
        assert stems - {"pixel_program"} == expected, folder
    others = {file for file in LISTED if file.startswith(("engine/", "core/"))}
    assert {f"ops/{path.stem}" for path in (ROOT / "csrc/ops").iterdir()} == set(LISTED) - others
    assert set(LISTED) - others == {f"ops/{stem}" for stem in STEMS}


@pytest.mark.parametrize("path", [*PACKAGE, *KERNELS, *CSRC, *SCRIPTS], ids=name)
def test_length(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", [*PACKAGE, *KERNELS, *SCRIPTS], ids=name)
def test_functions_fit_a_screen(path):
    """At most 70 lines, docstring and the functions inside not counted."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            inner = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            uncounted = sum(n.end_lineno - n.lineno + 1 for n in inner)
            if ast.get_docstring(node):
                uncounted += node.body[0].end_lineno - node.body[0].lineno + 1
            length = node.end_lineno - node.lineno + 1 - uncounted
            assert length <= 70, f"{node.name} has {length} lines"


def test_words():
    """Names say what a thing is: never fast, new, old, v2, impl."""
    banned = {"fast", "new", "old", "v2", "impl", "helper", "helpers", "utils", "util", "misc"}
    guilty = []
    for path in [*PACKAGE, *KERNELS, *CSRC, *SCRIPTS]:
        names = [path.stem]
        if path in [*PACKAGE, *KERNELS]:
            names += [n.name for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        guilty += [(name(path), n) for n in names if banned & set(n.lower().split("_"))]
    assert not guilty


def test_no_loose_ends():
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|^\s*(#|//)\s*[-=*#/]{4,}|NotImplementedError\(\)", re.MULTILINE)
    paths = [path for path in [*PACKAGE, *KERNELS, *CSRC, *SCRIPTS] if path != Path(__file__)]
    assert not [name(path) for path in paths if pattern.search(path.read_text())]


def test_no_pickle():
    pattern = re.compile(r"\bpickle\b|torch\.(load|save)\(|\bjoblib\b|\bdill\b|allow_pickle=True|weights_only")
    guilty = {
        (name(path), match.group())
        for path in [*PACKAGE, *KERNELS]
        for match in pattern.finditer(re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text()))
    }
    assert not guilty


FACTORIES = {
    *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal"),
    *("ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor", "tril_indices"),
    *("triu_indices", "zeros"),
}


def unnamed(path):
    """The lines that make a tensor without its dtype or its device. The parameters and buffers of a new module are left
    out: they follow the user's defaults, as those of torch.nn do."""
    nodes, free = list(ast.walk(tree(path))), set()
    for node in nodes:
        constructor = isinstance(node, ast.FunctionDef) and node.name in ("__init__", "networks")
        if constructor and path.parent.name in ("nn", "models", "compat"):
            free.update(map(id, ast.walk(node)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "nn.Parameter":
            free.update(map(id, ast.walk(node)))
    for node in nodes:
        if not isinstance(node, ast.Call) or id(node) in free:
            continue
        call, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        if call == "torch.Generator" and not node.args:
            yield node.lineno
        if call.removeprefix("torch.") in FACTORIES and call.startswith("torch.") and None not in keywords:
            if not {"dtype", "device"} <= keywords:
                yield node.lineno


@pytest.mark.parametrize("path", [*PACKAGE, *KERNELS, *INSTALLED], ids=name)
def test_every_tensor_names_its_dtype_and_device(path):
    """The defaults of both are the user's, who may have made them float64 or meta."""
    assert not list(unnamed(path))


def includes(path):
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def test_includes():
    """What is compiled for a newer CPU takes no inline code from the C++ library; pybind11 stays in one file."""
    seen, queue = set(), [f"{file}.cpp" for file in LISTED]
    while queue:
        file = queue.pop()
        seen.add(file)
        for kind, header in includes(ROOT / "csrc" / file):
            if kind == "<":
                assert header in C_HEADERS, f"{file} includes <{header}>"
            elif header not in seen:
                queue.append(header)
    assert "core/common.h" in seen
    everything = {str(path.relative_to(ROOT / "csrc")): [header for _, header in includes(path)] for path in CSRC}
    assert [file for file, headers in everything.items() if any("pybind" in h for h in headers)] == ["bindings.cpp"]
    banned = ("torch/", "ATen/", "c10/", "Python.h", "omp.h", "thread")
    assert not [(file, h) for file, headers in everything.items() for h in headers if h.startswith(banned)]


def test_no_loose_arithmetic():
    flags = (ROOT / "CMakeLists.txt").read_text()
    assert "-ffp-contract=off" in flags
    assert not re.search(r"fast-math|-Ofast|unsafe-math|associative-math|march=native", flags)


def objects():
    """(isa, file) -> the object of a kernel, as far as they were built."""
    folder = ROOT / "build/cmake/CMakeFiles"
    of = {(isa, file): folder / f"kernels_{isa}.dir/csrc/{file}.cpp.o" for isa in ISAS for file in (*LISTED, "table")}
    return {key: path for key, path in of.items() if path.exists()}


def symbols(path):
    """(kind, name) of every symbol of an object file."""
    listing = subprocess.run(["nm", "-C", path], check=True, capture_output=True, text=True).stdout
    return [(line[17:18], line[19:]) for line in listing.splitlines()]


def test_kernel_objects_share_no_code():
    """A weak symbol of a file compiled for a newer CPU may be the one that the linker keeps for everybody."""
    paths = objects()
    if not os.environ.get("GENFAST_REQUIRE") and not (paths and shutil.which("nm")):
        pytest.skip("needs the object files that make test leaves in build/cmake")
    for isa in {isa for isa, _ in paths}:
        expected = PAIRED if isa == "v4_bf16" else set(LISTED)
        assert {file for of, file in paths if of == isa} == {*expected, "table"}, "make test leaves them in build/cmake"
    for (isa, file), path in paths.items():
        listed = symbols(path)
        names = LISTED.get(file, ["kKernels"])
        entry = re.compile(rf"genfast::{isa}::({'|'.join(names)})(\(|$)")
        public = [text for kind, text in listed if kind in "TDB"]
        assert {match[1] for match in map(entry.match, public) if match} == set(names), (isa, file)
        assert not [text for text in public if not entry.match(text)], (isa, file)
        assert not [text for kind, text in listed if kind in "VvWwu"], (isa, file)
        assert not [text for kind, text in listed if kind == "U" and "std::" in text], (isa, file)


def test_weak_symbols_are_seen(tmp_path):
    """The test above looks in the right column: a plain inline function is a weak symbol."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if not os.environ.get("GENFAST_REQUIRE") and not compiler:
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "weak.cpp"
    source.write_text("inline int shared(int x) { return x; } int (*use())(int) { return &shared; }")
    subprocess.run([compiler, "-c", source, "-o", tmp_path / "weak.o"], check=True)
    assert ("W", "shared(int)") in symbols(tmp_path / "weak.o")


def public(path):
    """Top-level functions and classes of a module without a leading underscore."""
    nodes = tree(path).body
    return [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.stem != "__main__"], ids=name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.stem == "__init__"], ids=name)
def test_docstrings_of_what_is_exported(path):
    module = import_module(".".join(path.parent.relative_to(ROOT).parts))
    for exported in getattr(module, "__all__", []):
        value = getattr(module, exported)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, exported


@pytest.mark.parametrize("op", OPS)
def test_docstring_of_an_op(op):
    doc = inspect.getdoc(getattr(genfast.ops, op))
    headings = ["Args:", "Returns:", "Raises:", "Gradients:", "Paper:", "Example:"]
    places = [doc.find(f"\n{heading}\n") for heading in headings]
    assert -1 not in places and places == sorted(places), dict(zip(headings, places, strict=True))
    assert "::\n" in doc[: places[0]], "the formula comes before the arguments"
    arguments = doc[places[0] : places[1]]
    for argument in inspect.signature(getattr(genfast.ops, op)).parameters:
        assert f"    {argument}: " in arguments, argument
    assert re.search(r"arXiv[: ]\d{4}\.\d{4,5}", (SPECS | SAMPLERS | NON_DIFFERENTIABLE)[op].paper)


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.parent.name == "nn" and p.stem != "__init__"], ids=name)
def test_docstring_of_a_layer(path):
    for node in public(path):
        if isinstance(node, ast.ClassDef):
            doc = ast.get_docstring(node)
            assert all(f"{heading}:" in doc for heading in ("Args", "Shape", "Paper", "Example")), node.name
            assert any(isinstance(n, ast.FunctionDef) and n.name == "extra_repr" for n in node.body), node.name


def tracked():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode == 0:
        return [ROOT / file for file in listing.stdout.decode().split("\0") if file]
    skipped = {".git", ".venv", "build", "runs", "dist", "__pycache__"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not skipped & set(p.relative_to(ROOT).parts)]


def test_nothing_of_one_machine():
    """No paths of somebody's machine and no package index: an install uses what its user has configured."""
    roots = "|".join(("work", "home", "root", "opt", "Users", "tmp/w"))
    hosts = "|".join(("pypi" + r"\.org", "pythonhosted" + r"\.org", "index-" + "url", "find-" + "links"))
    pattern = re.compile(rf"(?<![\w./*-])/(?:{roots})/\w|{hosts}")
    guilty = {}
    for path in tracked():
        if path.is_file() and path.suffix not in (".png", ".safetensors", ".npz"):
            match = pattern.search(path.read_text())
            if match:
                guilty[name(path)] = match.group()
    assert not guilty
    assert pattern.search(" /" + "home/user") and pattern.search("https://" + "pypi" + ".org")


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert genfast.__version__ == project["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == project["version"]


def test_everything_installed_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    exact = re.compile(r"[a-z0-9-]+==[\w.]+(; python_version [<>=]=? \"3\.\d+\")?")
    assert not [line for line in pins if not exact.fullmatch(line)]
    pinned = {line.split("==")[0] for line in pins}
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], *sum(extras.values(), [])]
    names = {re.match(r"[\w-]+", requirement).group().lower().replace("_", "-") for requirement in wanted}
    assert names - {"genfast"} <= pinned


def test_the_installed_package_is_this_checkout():
    """A stale installation would test yesterday's code."""
    installed = Path(genfast.__file__).parent
    for path in PACKAGE:
        assert (installed / path.relative_to(ROOT / "genfast")).read_bytes() == path.read_bytes(), name(path)
    if installed != ROOT / "genfast":
        for path in [*KERNELS, *INSTALLED]:
            assert (installed / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), name(path)


def test_a_wheel_leaves_out_what_needs_a_checkout():
    excluded = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]["exclude"]
    needing = [path for path in BENCHMARKS if path not in INSTALLED] + [ROOT / "benchmarks" / "gpu_check.sh"]
    assert sorted(excluded) == sorted(f"genfast/{name(path)}" for path in [ROOT / "benchmarks" / "results", *needing])
