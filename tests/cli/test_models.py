"""`genfast models`."""

import json

from genfast import cli
from genfast.models import MODELS, load
from genfast.models._pretrained import SHIPPED
from genfast.train.presets import PRESETS


def test_every_model_preset_and_weight_is_listed(capsys):
    assert cli.main(["models", "--json", "-"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries.keys() == MODELS.keys()
    for name, entry in entries.items():
        assert entry["text"] and entry["presets"] == {recipe.name: recipe.data for recipe in PRESETS[name].values()}
    listed = {weights: count for entry in entries.values() for weights, count in entry["weights"].items()}
    assert listed == {path.name: sum(p.numel() for p in load(path).parameters()) for path in SHIPPED.iterdir()}


def test_the_commands_it_names_are_commands(capsys, tmp_path):
    assert cli.main(["models"]) == 0
    lines = [line.split(":")[0].split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    (sampled,) = (line for line in lines if line[1] == "sample")
    assert cli.main([*sampled[1:], "-n", "2", "--out", str(tmp_path / "two.png")]) == 0
    trained = [line for line in lines if line[1] == "train"]
    assert len(trained) == sum(map(len, PRESETS.values()))
    assert cli.main([*trained[0][1:], "--print-config"]) == 0
