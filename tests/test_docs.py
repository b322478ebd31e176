"""README.md and docs/: generated parts are up to date, links lead somewhere, tables are whole, and code blocks run."""

import gzip
import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from support.files import idx_bytes

import genfast
from genfast import models
from genfast.cli.main import make_parser
from genfast.engine.engine import BACKENDS
from genfast.nn import MaskedConv2d
from genfast.train import PRESETS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
WIDTH = 120
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What makes a command small; an option given twice takes its last value.
SMALL = {
    "train": "--steps 2 --batch 2 --threads 1",
    "sample": "-n 3",
    "inpaint": "-n 1 --steps 1 --results 1",
    "denoise": "-n 1 --steps 1",
    "evaluate": "--images 4 --samples 2",
}
SMALL_LOOP = "--eval-every 2 --eval-batch 64"
SMALL_MODELS = {
    "pixelrnn": f"{SMALL_LOOP} --hidden 4 --layers 1 --head 4",
    "pixelcnn": f"{SMALL_LOOP} --hidden 4 --layers 1 --head 4",
    "gated-pixelcnn": f"{SMALL_LOOP} --hidden 4 --layers 1 --head 4",
    "pixelsnail": f"{SMALL_LOOP} --hidden 4 --blocks 1 --layers 1 --depth 2 --value 2 --head 4",
    "pixelcnn++": f"{SMALL_LOOP} --filters 4 --blocks 1 --mixtures 1",
    "vae": f"{SMALL_LOOP} --latent 2 --hidden 4 --layers 1",
    "iwae": f"{SMALL_LOOP} --latent 2 --hidden 4 --layers 1 --samples 2",
    "vq-vae": f"{SMALL_LOOP} --features 4 --hidden 4 --layers 1 --codes 8",
    "projection-gan": "--features 4 --latent 4 --coverage-every 0",
    "pix2pix": "--features 4",
}
# Pages whose commands are run one after another; those of the others are parsed.
RUN = {
    *("README.md", "docs/data.md", "docs/install.md", "docs/sampling.md", "docs/start.md", "docs/tasks.md"),
    *("docs/training.md", "docs/your_own_folder.md"),
}
LONG = {"genfast evaluate runs/gan", "genfast equilibrium runs/gan --gap"}  # each trains a classifier


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path, *languages):
    return [text for language, text in FENCE.findall(path.read_text()) if language in languages]


def commands(path):
    """The lines of the shell blocks of a page, without comments, as lists of words."""
    lines = "\n".join(blocks(path, "sh")).splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with the data that the pages speak of: images, tiny files of MNIST, a picture."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, count, size in (("my-images", 12, (40, 36, 3)), ("folder-of-outlines", 2, (32, 32))):
        (tmp_path / folder).mkdir()
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / folder / f"{index}.png")
    Image.fromarray(rng.integers(0, 256, (8, 12), np.uint8)).save(tmp_path / "picture.png")
    (tmp_path / "mnist-files").mkdir()
    for part, count in (("train", 24), ("t10k", 12)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        files = {"images-idx3": images, "labels-idx1": np.arange(count, dtype=np.uint8) % 10}
        for kind, array in files.items():
            (tmp_path / "mnist-files" / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_generated_parts(generated):
    stale = [path for path, text in generated.items() if (ROOT / path).read_text() != text]
    assert not stale, "make docs writes them"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_links(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", linked.read_text()), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_tables_are_whole(path):
    """A table has a header, a line of dashes, and rows of as many cells; an empty line would end it."""
    for table in re.findall(r"(?:^\|.*\n?)+", FENCE.sub("", path.read_text()), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in table.splitlines()]
        assert len(rows) > 2 and all(re.fullmatch(r":?-{3,}:?", cell.strip()) for cell in rows[1]), table
        assert {len(row) for row in rows} == {len(rows[0])}, table


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_blocks_have_a_language(path):
    assert {language for language, _ in FENCE.findall(path.read_text())} <= {"python", "sh", "text"}


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=name)
def test_python_blocks(path, folder, monkeypatch):
    """All of a page in one namespace; what it compiles is traced, which takes no C++ compiler."""
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *args, **kwargs: compiled(*args, **(kwargs | {"backend": "aot_eager"}))
    )
    source = folder / "page.py"
    source.write_text("\n\n".join(blocks(path, "python")))
    exec(compile(source.read_text(), source, "exec"), {"__name__": "page"})


@pytest.mark.parametrize("path", [path for path in PROSE if blocks(path, "sh")], ids=name)
def test_shell_blocks(path, folder, genfast):
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    parser = make_parser()
    for words in commands(path):
        if words[0] == "make":
            assert words[1] in targets, words
        elif words[:2] == ["pip", "install"]:
            assert set(re.findall(r"\w+", words[2])) <= extras.keys(), words
        elif words[0] == "genfast":
            parser.parse_args(words[1:])
            line = " ".join(words)
            if name(path) in RUN and line not in LONG:
                small = f"{SMALL.get(words[1], '')} {SMALL_MODELS.get(words[2], '')}" if words[2:] else ""
                code, _, error = genfast(*words[1:], *small.split())
                assert code == 0, f"{line}: {error}"
        else:
            assert (ROOT / words[1]).is_file(), words


def test_presets_that_the_pages_name():
    pattern = re.compile(r"([a-z0-9+-]+) --preset ([a-z-]+)")
    named = [pair for path in PAGES for pair in pattern.findall(path.read_text())]
    assert len(named) > 9 and [name for model, name in named if name not in PRESETS[model]] == []


def test_every_model_has_a_row_in_the_readme():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    assert [model for model in models.MODELS if not any(f"`{model}`" in row for row in rows)] == []


def tiny(model, **sizes):
    images = {"channels": 1, "height": 8, "width": 8, "levels": 4}
    return models.build(model, **(images | sizes)).eval()


def with_prior(model):
    model.set_prior(tiny("pixelcnn", height=4, width=4, levels=8, hidden=4, layers=1, head=4))
    return model


COLUMNS = {
    "PixelRNN, PixelCNN": lambda: tiny("pixelrnn", hidden=4, layers=1, head=4),
    "your own PixelCNN": lambda: torch.nn.Sequential(MaskedConv2d(1, 8, 3, mask="A"), torch.nn.Conv2d(8, 4, 1)),
    "VAE, IWAE": lambda: tiny("vae", latent=2, hidden=4, layers=1),
    "VQ-VAE": lambda: with_prior(tiny("vq-vae", codes=8, features=4, hidden=4, layers=1, downsampling=1)),
    "GAN": lambda: tiny("sngan", features=4, latent=4, stages=1, network="strided"),
    "pix2pix": lambda: tiny("pix2pix", height=32, width=32, features=4),
}


def calls(model, x, known, options):
    noise = genfast.BitFlipNoise(0.1)

    def coder():
        return genfast.Engine(model, **options) if options else model

    return {
        "sample": lambda: genfast.sample(model, 2, **options),
        "log_prob": lambda: genfast.log_prob(model, x, **options),
        "inpaint": lambda: genfast.inpaint(model, x, known, steps=1, **options),
        "denoise": lambda: genfast.denoise(model, noise.corrupt(x, 4), noise, steps=1, **options),
        "reconstruct": lambda: genfast.reconstruct(model, x),
        "embed": lambda: genfast.embed(model, x),
        "interpolate": lambda: genfast.interpolate(model, torch.zeros(1, 2), torch.ones(1, 2), 3),
        "traverse": lambda: genfast.traverse(model, x[:1], steps=2, reference=x),
        "compress": lambda: genfast.compress(coder(), x),
        "decompress": lambda: genfast.decompress(genfast.compress(coder(), x), coder()),
        "translate": lambda: genfast.translate(model, torch.zeros(1, 1, 32, 32, dtype=torch.uint8)),
    }


def tasks():
    """(column, call, whether its cell says that the model can do it) of the README's table of tasks."""
    lines = (ROOT / "README.md").read_text().splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("| task |"))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[begin:]]
    header, rows = cells[0], cells[2 : cells.index([])]
    for row in rows:
        for call in re.findall(r"`(\w+)`", row[1]):
            yield from ((column, call, bool(cell)) for column, cell in zip(header[2:], row[2:]))


@pytest.mark.parametrize("column", COLUMNS)
def test_the_table_of_tasks(column):
    """What a cell says a model can do runs; what it leaves empty is refused."""
    model = COLUMNS[column]()
    x, known = torch.randint(4, (2, 1, 8, 8), dtype=torch.uint8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    options = {"shape": (1, 8, 8), "levels": 4, "input_range": (0, 1)} if column == "your own PixelCNN" else {}
    functions = calls(model, x, known, options)
    said = {call: can for of, call, can in tasks() if of == column}
    assert said.keys() == functions.keys()
    for call, can in said.items():
        if can:
            functions[call]()
        else:
            with pytest.raises((TypeError, ValueError)):
                functions[call]()


def test_versions_of_torch():
    """The pages and pyproject.toml state one range; the results are of versions in it, and all of them good."""
    lowest = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    (highest,) = {
        highest
        for page in ("README.md", "docs/install.md")
        for highest in re.findall(rf"PyTorch {lowest} to ([\d.]+\d)", (ROOT / page).read_text())
    }
    results = json.loads((ROOT / "benchmarks" / "results" / "torch_versions.json").read_text())
    minor = [int(version.split(".")[1]) for version in (lowest, *results, highest)]
    assert min(minor) == minor[0] and max(minor) == minor[-1] and len(results) >= 1
    for version, result in results.items():
        assert result["failed"] == 0 and result["passed"] > 7000, version


def test_citation():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["version"] == genfast.__version__
    assert {"message", "title", "type", "authors", "license", "repository-code"} <= cited.keys()


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_lines_of_prose_fit(page):
    """Not those of code, tables and generated parts, nor a line that is one long link."""
    text = FENCE.sub("", page.read_text())
    text = re.sub(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", "", text, flags=re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith("|") and page.name != "cli.md"]
    assert not [line for line in prose if len(line) > WIDTH and " " in line.strip("- ")]


def test_the_backends_of_the_engine_are_those_of_the_page():
    table = (ROOT / "docs/sampling.md").read_text().partition("| backend | how |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(BACKENDS)


def test_every_promise_is_held_by_a_test():
    """Each row names a test that there is, and no two rows the same one."""
    lines = [line for line in (ROOT / "docs/promises.md").read_text().splitlines() if line.startswith("| ")]
    rows = [re.fullmatch(r"\| .+ \| `(tests/\S+\.py)::(test_\w+)` \|", line) for line in lines]
    named = [row.groups() for row in rows if row]
    assert len(named) > 40 and len(set(named)) == len(named)
    assert {line for line, row in zip(lines, rows) if not row} == {"| promise | test |"}
    assert not [(file, test) for file, test in named if f"\ndef {test}(" not in (ROOT / file).read_text()]
