"""Writes the parts of README.md and docs/ that are made of the code and of measured results: `make docs`.

A part stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->` and is never written by hand; docs/cli.md and
docs/llms.txt are such parts as wholes. tests/test_docs.py compares the pages with what this file makes.
"""

import argparse
import inspect
import json
import re
from pathlib import Path

from genfast import data, losses, metrics, nn, ops
from genfast._native import backends
from genfast.cli.main import make_parser
from genfast.models import MODELS
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS
from genfast.train import PRESETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SPEED, SAMPLING = RESULTS / "amd-epyc-v4_bf16-2t.json", RESULTS / "amd-epyc-v4_bf16-2t-sampling.json"
BLOB = "https://github.com/genfast/genfast/blob/main"
EAGER, COMPILED = "good eager", ("torch.compile", "torch.compile of its step")
WHOLE, ROWS, CACHED = "whole image for each pixel", "rows so far for each pixel", "cached, eager torch"

# What README.md shows of the speeds: (its words, group, case, mode) of a result.
SHOWN = (
    ("Diagonal BiLSTM scan, 64 images of 28x28, 16 units", "the scan, one direction", "B=64 28x28 C=16 D=1"),
    ("Mixture of logistics, 16 RGB images of 32x32", "logistic mixture", "B=16 3x32x32 K=10 L=256 contiguous"),
    ("Vector quantisation, 65,536 vectors, 1024 codes", "vector quantisation with its losses", "N=65536 D=64 K=1024"),
    ("Minibatch discrimination, 256 images", "minibatch discrimination", "N=256 B=100 C=5"),
    (
        "Spectral normalisation of 20 layers",
        "spectral normalisation, one power iteration",
        "20 layers 128x1152",
    ),
)
SHOWN_MODE = "forward+backward"
SHOWN_SAMPLING = ("Sampling, PixelCNN of 7 layers and 64 features, 64 images", "PixelCNN, 7 layers of 3x3", "C=64", 64)


def pages():
    """Every page with a generated part: its path -> its whole text as it should be."""
    generated = {
        "README.md": {"speed": shown_speeds},
        "docs/ops.md": {"ops": op_tables},
        "docs/models.md": {"models": model_table, "layers": lambda: exported(nn)},
        "docs/data.md": {"datasets": dataset_table},
        "docs/training.md": {"presets": preset_table, "losses": lambda: exported(losses)},
        "docs/metrics.md": {"metrics": lambda: exported(metrics)},
        "docs/speed.md": {"speed": speed_table, "sampling": sampling_table},
    }
    texts = {"docs/cli.md": command_page(), "docs/llms.txt": overview()}
    for path, parts in generated.items():
        text = (ROOT / path).read_text()
        for name, part in parts.items():
            text = filled(text, name, part(), path)
        texts[path] = text
    return texts


def overview():
    """The pages with what each is about, for programs that read: https://llmstxt.org."""
    index = (ROOT / "docs" / "index.md").read_text()
    lines = ["# genfast", "", f"> {' '.join(index.split(chr(10) * 2)[1].split())}"]
    for caption, names in re.findall(r":caption: ([^\n]+)\n:hidden:\n\n(.+?)\n:::", index, re.DOTALL):
        lines += ["", f"## {caption}", ""]
        for name in names.split():
            path = next(path for path in (ROOT / "docs").glob(f"{name}.*") if path.suffix in (".md", ".rst"))
            title, text = _head(path)
            lines.append(f"- [{title}]({BLOB}/docs/{name}{path.suffix}): {text}")
    return "\n".join([*lines, ""])


def _head(path):
    """The title of a page and the first sentence of its first paragraph, as plain text."""
    parts = [part for part in path.read_text().split("\n\n") if not part.startswith("<!--")]
    text = " ".join(parts[1].replace("**", "").replace("``", "`").split())
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    return parts[0].lstrip("# ").split("\n")[0], re.split(r"(?<=[.:])\s+", text)[0]


def filled(text, name, part, path):
    """`text` with what stands between the markers of `name` replaced by `part`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{path}: expected {begin} and {end} once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{part.rstrip()}\n{end}{rest.split(end)[1]}"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def sentence(value):
    """The first sentence of a docstring."""
    paragraph = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s+|::|\s+(?=Args:|Returns:)", paragraph)[0]


def op_tables():
    kinds = (
        ("Ops with gradients", SPECS),
        ("Samplers: one uniform number a draw, no gradient", SAMPLERS),
        ("Measures and updates, without a gradient", NON_DIFFERENTIABLE),
    )
    return "\n\n".join(f"## {title}\n\n{_op_table(specs)}" for title, specs in kinds)


def _op_table(specs):
    rows = []
    for name, spec in specs.items():
        dtypes = (_dtypes(name, backend) for backend in ("cpp", "triton"))
        rows.append((f"`genfast.{name}`", sentence(getattr(ops, name)), *dtypes, _arxiv(spec.paper)))
    return table(("op", "what it computes", "CPU, C++", "GPU, Triton", "paper"), rows)


def _dtypes(op, backend):
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in backends.dtypes(op, backend))


def _arxiv(text):
    """The papers of a text as links."""
    numbers = dict.fromkeys(re.findall(r"\d{4}\.\d{4,5}", text))
    return ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in numbers)


def model_table():
    rows = []
    for name, (model, config) in MODELS.items():
        module = inspect.getdoc(inspect.getmodule(model)).split("\n")[0]
        paper = (inspect.getdoc(model) or "").partition("Paper:")[2]
        rows.append((f"`{name}`", f"`{model.__name__}`, `{config.__name__}`", module, _arxiv(paper)))
    return table(("name", "class and config, of `genfast.models`", "what it is", "papers"), rows)


def dataset_table():
    rows = []
    for dataset in data.datasets():
        options = ", ".join(f"`--{option}`" for option in dataset.options)
        rows.append((dataset.name if dataset.matches else f"`{dataset.name}`", dataset.help, options))
    rows.append(("`codes:RUN`", "the codes of the VQ-VAE in a run folder, to train its prior", ""))
    return table(("`--data`", "what it is", "options"), rows)


def preset_table():
    rows = [
        (f"`{model}`", f"`{name}`", recipe.data or "codes of a vq-vae", f"{recipe.train['steps']:,}",
         recipe.train["batch"], "yes" if _is_conditional(model, recipe) else "")
        for model, recipes in PRESETS.items() for name, recipe in recipes.items()
    ]  # fmt: skip
    return table(("model", "preset", "data", "updates", "images each", "given the label"), rows)


def _is_conditional(model, recipe):
    always = MODELS[model][1].is_always_conditional()
    return always if recipe.conditional is None else recipe.conditional


def exported(module):
    rows = [(f"`{name}`", sentence(getattr(module, name))) for name in sorted(module.__all__, key=str.lower)]
    return table((f"`{module.__name__}`", ""), rows)


def command_page():
    parser = make_parser()
    commands = _subparsers(parser)
    lines = [
        "# The command line",
        "",
        "This page is made by `make docs` of the parser itself; `genfast COMMAND --help` prints the same.",
        "",
        "| exit code | meaning |",
        "| --- | --- |",
        "| 0 | done; of `train`, also after `--minutes` |",
        "| 1 | nobody reads the output any more, as where `head` has ended |",
        "| 2 | it cannot be done; one line says why |",
        "| 129, 130, 143 | stopped by SIGHUP, Ctrl-C or SIGTERM; `train` has saved a whole checkpoint |",
        "",
        "`--debug` shows the traceback of an error.",
        "",
        table(
            ("command", "what it does"), [(f"[`{c.prog}`](#genfast-{n})", c.description) for n, c in commands.items()]
        ),
    ]
    for name, command in commands.items():
        lines += ["", f"## genfast {name}", "", f"{command.description[0].upper()}{command.description[1:]}."]
        models = _subparsers(command)
        lines += _train_section(models) if models else ["", *_command_section(command)]
    return "\n".join([*lines, ""])


def _subparsers(parser):
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return actions[0].choices if actions else {}


def _command_section(command):
    rows = [_option(action) for action in _actions(command)]
    needed = " ".join(_cell(action).strip("`") for action in _actions(command) if action.required)
    usage = ["```text", f"{command.prog} {needed} [OPTIONS]".replace("  ", " "), "```"]
    return [*usage, "", table(("", "meaning (default)"), rows)] if rows else usage[:1] + [command.prog, "```"]


def _actions(command):
    return [a for a in command._actions if not {"--help", "--debug"} & set(a.option_strings)]


def _option(action):
    return _cell(action), (action.help or "") % vars(action)


def _cell(action):
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    values = ""
    if action.nargs != 0:
        metavar = action.metavar or ("{" + ", ".join(map(str, action.choices)) + "}" if action.choices else "N")
        values = f" {' '.join([metavar] * (action.nargs if isinstance(action.nargs, int) else 1))}"
    return f"`{', '.join(action.option_strings)}{values}`"


def _train_section(models):
    """What all models take, what those of one kind of training take, and what is each one's own."""
    groups = {name: _grouped(command) for name, command in models.items()}
    everything = {name: [row for rows in options.values() for row in rows] for name, options in groups.items()}
    shared = [row for row in next(iter(everything.values())) if all(row in rows for rows in everything.values())]
    lines = ["", "```text", "genfast train MODEL --out RUN [OPTIONS]", "```", "", "Options of every model:", ""]
    lines += [table(("", "meaning (default)"), shared)]
    kinds = {}
    for name, options in groups.items():
        own = tuple(row for row in options.get("training", ()) if row not in shared)
        kinds.setdefault(own, []).append(name)
    for rows, names in kinds.items():
        title = f"Training of {', '.join(f'`{name}`' for name in names)}:"
        lines += ["", title, "", table(("", "meaning (default)"), rows)]
    for name, options in groups.items():
        rows = [row for title, part in options.items() if title != "training" for row in part if row not in shared]
        lines += ["", f"### genfast train {name}", "", table(("", "meaning (default)"), rows)]
    return lines


def _grouped(command):
    """The options of a command by the group that they are in."""
    kept = _actions(command)
    options = {group.title: [_option(a) for a in group._group_actions if a in kept] for group in command._action_groups}
    return {title: rows for title, rows in options.items() if rows}


def shown_speeds():
    result, rows = json.loads(SPEED.read_text()), []
    for words, group, case in SHOWN:
        times = {row["contender"]: row for row in result["rows"] if _key(row) == (group, case, SHOWN_MODE)}
        compiled = next(times[name] for name in COMPILED if name in times)
        rows.append((words, f"{_ms(times['genfast'])} ms", _beside(times[EAGER]), _beside(compiled)))
    words, group, case, batch = SHOWN_SAMPLING
    sampled = json.loads(SAMPLING.read_text())["rows"]
    rates = {row["contender"]: row for row in sampled if _sampling_key(row) == (group, case, batch, 2)}
    rate = f"{_rate(rates['genfast'])} images/s"
    cached = f"{_rate(rates[CACHED])} images/s, {_times(rates[CACHED])} (cached features)"
    whole = f"{_rate(rates[WHOLE])} images/s, {_times(rates[WHOLE])} (whole image for each pixel)"
    rows.append((words, rate, f"{whole}; {cached}", ""))
    return table(("", "genfast", "plain PyTorch", "torch.compile"), rows)


def speed_table():
    """A section for each group of cases, with a column for every rival in it."""
    result = json.loads(SPEED.read_text())
    results, parts = result["rows"], [_conditions(result)]
    for group in dict.fromkeys(row["group"] for row in results):
        title = group if "(" in group.split()[0] else f"{group[0].upper()}{group[1:]}"
        parts += [f"### {title}", _group_table([row for row in results if row["group"] == group])]
    return "\n\n".join([*parts, *_shares(results)])


def _group_table(results):
    rivals = dict.fromkeys(row["contender"] for row in results if not row["contender"].startswith("genfast"))
    rows = []
    for first in (row for row in results if row["contender"] == "genfast"):
        times = {row["contender"]: _beside(row) for row in results if _key(row) == _key(first)}
        rows.append((first["case"], first["mode"], f"{_ms(first)} ms", *(times.get(rival, "") for rival in rivals)))
    return table(("case", "", "genfast", *rivals), rows)


def _shares(results):
    """Where a share of the machine's matrix products was measured, or memory."""
    yield "### Shares of the machine"
    shares = [row for row in results if "share_of_sgemm" in row and row["contender"].startswith("genfast")]
    peaks = [row for row in results if "peak_bytes" in row]
    rows = [(f"{row['group']}: {row['case']}", "bfloat16" if "bfloat16" in row["contender"] else "float32", row["mode"],
             f"{row['gflops']:.0f}", f"{row['share_of_sgemm']:.0%}") for row in shares]  # fmt: skip
    yield table(("case", "dtype", "", "GFLOP/s", "of torch's float32 sgemm"), rows)
    yield "### Memory"
    rows = [(f"{row['group']}: {row['case']}", row["contender"], f"{row['peak_bytes'] / 1e6:,.0f} MB") for row in peaks]
    yield table(("case", "", "memory at most, torch included"), rows)


def sampling_table():
    result, rows = json.loads(SAMPLING.read_text()), []
    for first in (row for row in result["rows"] if row["contender"] == "genfast"):
        same = [row for row in result["rows"] if _sampling_key(row) == _sampling_key(first)]
        rates = {row["contender"]: f"{_rate(row)}, {_times(row)}" for row in same}
        spread = "-".join(_number(first[f"{q}_images_per_s"]) for q in ("q20", "q80"))
        share = f"{first['gflops']:.0f}, {first['share_of_sgemm']:.0%}"
        case = ", ".join(part for part in (first["group"], first["case"]) if part)
        rows.append((case, f"{first['batch']}, {first['threads']}", f"**{_rate(first)}** ({spread})", share,
                     *(rates.get(name, "") for name in (WHOLE, ROWS, CACHED))))  # fmt: skip
    header = ("model, 28x28 unless said", "batch, threads", "images/s", "GFLOP/s, of sgemm", WHOLE, ROWS, CACHED)
    drawing = [
        f"Drawing takes {row['share_of_drawing']:.1%} of the time: {row['group']}, {row['case']}, beside the same with "
        "every pixel known."
        for row in result["rows"]
        if "share_of_drawing" in row
    ]
    return "\n\n".join([_sampling_conditions(result), table(header, rows), *drawing])


def _conditions(result):
    sgemm, copy = f"{result['sgemm_gflops']:.0f} GFLOP/s", f"{result['copy_gbytes']:.1f} GB/s"
    return f"{_machine(result)}. In the same run torch's sgemm reached {sgemm}, and a copy of memory {copy}."


def _sampling_conditions(result):
    two, one = (f"{result['sgemm_gflops'][threads]:.0f}" for threads in "21")
    return f"{_machine(result)}. In the same run torch's sgemm reached {two} GFLOP/s on two threads, {one} on one."


def _machine(result):
    m = result["machine"]
    return (
        f"{m['cpu']}, {m['threads']} threads of {m['cores']} cores, instruction set {m.get('isa') or m['level']}; "
        f"genfast {m['genfast']}, torch {m['torch']}, Python {m['python']}; {m['date']}"
    )


def _key(row):
    return row["group"], row["case"], row["mode"]


def _sampling_key(row):
    return row["group"], row["case"], row["batch"], row["threads"]


def _beside(row):
    return f"{_ms(row)} ms, {_times(row)}"


def _ms(row):
    return f"{row['median_ms']:.3g}" if row["median_ms"] < 100 else f"{row['median_ms']:,.0f}"


def _times(row):
    times = row["times_genfast"]
    return f"{times:,.0f}x" if times >= 20 else f"{times:.1f}x" if times >= 1 else f"{times:.2f}x"


def _rate(row):
    return _number(row["images_per_s"])


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    for path, text in pages().items():
        if not (ROOT / path).is_file() or (ROOT / path).read_text() != text:
            (ROOT / path).write_text(text)
            print(f"wrote {path}")
