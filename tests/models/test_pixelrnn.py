import copy
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from support.sampled import every_image

from genfast import testing
from genfast.models import MODELS, PixelRNN, PixelRNNConfig, _pretrained, build, load
from genfast.random import inverse_cdf, philox4x32, uniform


def awake(std=0.8, **config):
    """A small model with all its weights at work: the output projections of a new one are zero."""
    model = build("pixelrnn", **{"hidden": 3, "layers": 2, "head": 6, **config})
    return testing.awake(model, std).float()


def influence(model):
    """Which value moves the logits of which: bool [n, n] in raster order, colours inside pixels, by changing each."""
    c = model.double().config
    n = c.height * c.width * c.channels
    moved = torch.zeros(n, n, dtype=torch.bool)
    for _ in range(4):
        base = torch.randint(0, c.levels, (1, c.height, c.width, c.channels), dtype=torch.uint8)
        changed = (base.view(1, n) + torch.eye(n, dtype=torch.uint8) * (c.levels // 2)) % c.levels
        batch = torch.cat((base.view(1, n), changed)).view(n + 1, c.height, c.width, c.channels)
        with torch.no_grad():
            logits = model(batch.permute(0, 3, 1, 2)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        change = (logits[1:] - logits[:1]).abs().amax(2)
        # Rounding that differs between the images of a batch stays below; what is read moves more.
        moved |= change > 1e-12
    return moved


def expected_influence(config):
    """Every earlier value moves every later one, but for the blind spot of the paper."""
    n = config.height * config.width * config.channels
    expected = torch.ones(n, n).triu(1).bool()
    if not config.virtual_column:
        # The last colour of the last pixel of a row, to the next row's pixels left of the 7x7 window.
        spot = expected.view(config.height, config.width, config.channels, config.height, config.width, -1)
        for row in range(config.height - 1):
            spot[row, -1, -1, row + 1, : max(0, config.width - 4)] = False
    return expected


@pytest.mark.parametrize("layers", [1, 7])
@pytest.mark.parametrize("channels, levels, width", [(1, 2, 7), (1, 5, 3), (3, 4, 6)])
@pytest.mark.parametrize("virtual_column", [False, True])
def test_causal_and_complete_but_for_the_known_blind_spot(layers, channels, levels, width, virtual_column):
    sizes = {"height": 4, "width": width, "channels": channels, "levels": levels, "virtual_column": virtual_column}
    # With fewer head features all ReLUs of one colour may be off, which hides what they read.
    model = awake(std=0.4, hidden=6, head=24, layers=layers, **sizes)
    expected = expected_influence(model.config)
    blind = ~expected.triu(1) & torch.ones_like(expected).triu(1)
    assert blind.sum() == (0 if virtual_column else 3 * max(0, width - 4) * channels)
    moved = influence(model)
    wrong = (moved != expected).nonzero().tolist()
    assert not wrong, f"(changed value, moved logits) in raster order: {wrong[:10]}"


def test_levels_are_scaled_to_one_and_minus_one():
    model = awake(height=1, width=2, levels=5)
    seen = []
    model.input.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.tensor([[[[0, 4]]], [[[2, 1]]]], dtype=torch.uint8))
    assert seen[0].flatten().tolist() == [-1, 1, 0, -0.5]


# The known answers of Random123 1.14, file kat_vectors, philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    assert tuple(int(word) for word in philox4x32(counter, key)) == expected


def test_uniform_places():
    seed, image = 0x299F31D0A4093822, 0x0370734413198A2E
    u = uniform(seed, image, 0x85A308D3, 0x243F6A88)
    assert u == (0xD16CFE09 >> 8) / 2**24
    grid = uniform(1, np.arange(300)[:, None], np.arange(100))
    assert grid.shape == (300, 100) and grid.min() >= 0 and grid.max() < 1
    assert grid[7, 9] == uniform(1, 7, 9)
    assert stats.kstest(grid.ravel(), "uniform").pvalue > 1e-3
    assert len(np.unique(grid)) > 0.99 * grid.size
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=str(seed)):
            uniform(seed, 0, 0)


def test_inverse_cdf_at_its_steps():
    logits = torch.tensor([0.25, 0.5, 0.25]).double().log().expand(6, 3)
    u = torch.tensor([0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-24]).double()
    assert inverse_cdf(logits, u).tolist() == [0, 0, 1, 1, 2, 2]
    assert inverse_cdf(torch.full((3, 1), math.log(3)), torch.tensor([0.2499, 0.2501, 0.9])).tolist() == [0, 1, 1]
    assert inverse_cdf(torch.full((2, 1), -100.0), torch.tensor([0, 1 - 2**-24])).tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("config", [{"height": 2, "width": 2}, {"height": 1, "width": 1, "channels": 3, "levels": 3}])
def test_samples_follow_the_distribution(config, temperature):
    n = 20_000
    model = awake(**config)
    images = every_image(model)
    p = torch.ones(len(images), dtype=torch.float64)
    logits = model(images).double() / temperature
    if model.config.levels == 2:
        logits = torch.cat((torch.zeros_like(logits), logits), 2)
    p = logits.log_softmax(2).gather(2, images.long()[:, :, None]).flatten(1).sum(1).exp().detach()
    x = model.sample(n, seed=5, temperature=temperature)
    assert x.dtype == torch.uint8 and x.shape == (n, *images.shape[1:])
    index = (x.flatten(1).long() * model.config.levels ** torch.arange(x[0].numel()).flip(0)).sum(1)
    count = index.bincount(minlength=len(images)).double()
    common = p * n > 5
    observed = torch.cat((count[common], count[~common].sum()[None]))
    expected = torch.cat((p[common], p[~common].sum()[None])) * n
    keep = expected > 0
    assert keep.sum() > 4
    assert stats.chisquare(observed[keep].numpy(), (expected[keep] / expected[keep].sum() * n).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    "config, error, message",
    [
        ({"hidden": "16"}, TypeError, "hidden must be an int; got '16'"),
        ({"layers": True}, TypeError, "layers must be an int; got True"),
        ({"channels": 3, "hidden": 2}, ValueError, "hidden must be at least 3; got 2"),
        ({"virtual_column": 1}, TypeError, "virtual_column must be a bool; got 1"),
    ],
)
def test_bad_config(config, error, message):
    with pytest.raises(error, match=message):
        PixelRNNConfig(**config)


def test_registry():
    model = build("pixelrnn", hidden=4, layers=1)
    assert isinstance(model, PixelRNN) and model.config == PixelRNNConfig(hidden=4, layers=1)
    assert MODELS["pixelrnn"] == (PixelRNN, PixelRNNConfig)
    with pytest.raises(ValueError, match=r"\[.*'pixelrnn'.*\]; got 'pixel'"):
        build("pixel")


@pytest.fixture
def saved(tmp_path):
    model = awake(height=3, width=4, virtual_column=True, dropout=0.1)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    return SimpleNamespace(model=model.eval(), folder=folder)


def test_save_and_load(saved):
    assert sorted(path.name for path in saved.folder.iterdir()) == ["config.json", "model.safetensors"]
    x = torch.randint(0, 2, (4, 1, 3, 4), dtype=torch.uint8)
    for model in (
        PixelRNN.from_pretrained(saved.folder),
        PixelRNN.from_pretrained(str(saved.folder)),
        load(saved.folder),
    ):
        assert model.config == saved.model.config and not model.training
        assert torch.equal(model.log_prob(x), saved.model.log_prob(x))
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_loading_keeps_the_dtype(saved):
    saved.model.double().save_pretrained(saved.folder)
    model = PixelRNN.from_pretrained(saved.folder)
    for key, value in saved.model.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def rewrite_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rewrite_weights(folder, change):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, r"config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, r"model\.safetensors; got none"),
        (lambda f: truncate(f / "model.safetensors"), ValueError, r"model\.safetensors: expected a whole safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), ValueError, "expected a whole safetensors file"),
        (lambda f: (f / "config.json").write_text('{"model": '), ValueError, r"expected JSON in .*config\.json"),
        (lambda f: (f / "config.json").write_text('{"vocab_size": 5}'), ValueError, "expected the config of a genfast"),
        (lambda f: rewrite_config(f, model="bert"), ValueError, "expected .*'pixelrnn'.*; got 'bert'"),
        (lambda f: rewrite_config(f, heads=2), ValueError, "expected fields of PixelRNNConfig; got heads"),
        (lambda f: rewrite_config(f, levels=0), ValueError, "levels must be at least 2; got 0"),
        (lambda f: rewrite_config(f, levels="2"), ValueError, "levels must be an int; got '2'"),
        (lambda f: rewrite_config(f, hidden=4), ValueError, r"expected \S+ of float32 \[.*\]; got float32 \["),
        (lambda f: rewrite_config(f, layers=3), ValueError, r"expected a tensor blocks\.2\.\S+ and \d more; got none"),
        (
            lambda f: rewrite_config(f, layers=1),
            ValueError,
            r"expected only the \d+ tensors that belong there; got also blocks\.1\.\S+ and \d more",
        ),
        (
            lambda f: rewrite_weights(f, lambda s: s["blocks.1.c0"][0].fill_(float("nan"))),
            ValueError,
            r"blocks\.1\.c0 must be finite; got 3 values",
        ),
        (
            lambda f: rewrite_weights(f, lambda s: s.update({"head.0.bias": s["head.0.bias"].int()})),
            ValueError,
            r"one floating-point dtype; got torch\.float32, torch\.int32",
        ),
    ],
)
def test_broken_checkpoints_get_one_error(saved, damage, error, message):
    damage(saved.folder)
    for from_folder in (PixelRNN.from_pretrained, load):
        with pytest.raises(error, match=message) as caught:
            from_folder(saved.folder)
        assert str(saved.folder) in str(caught.value)


def test_missing_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "nothing", "nothing", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"got {name}"):
            PixelRNN.from_pretrained(name)


def test_model_ids_go_to_the_hub(saved, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repo_id, revision, allow_patterns):
        asked.append((repo_id, revision))
        if repo_id == "nobody/nothing":
            raise OSError("404 Client Error\nsecond line")
        return str(saved.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert PixelRNN.from_pretrained("somebody/digits", revision="v1").config == saved.model.config
    with pytest.raises(FileNotFoundError, match=r"got nobody/nothing \(404 Client Error\)$"):
        PixelRNN.from_pretrained("nobody/nothing")
    assert load("somebody/digits").config == saved.model.config
    assert asked == [("somebody/digits", "v1"), ("nobody/nothing", None), ("somebody/digits", None)]


def test_push_to_hub_uploads_the_two_files(saved, monkeypatch):
    import huggingface_hub

    uploaded = []

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, folder_path, **_):
            uploaded.extend(sorted(path.name for path in folder_path.iterdir()))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    saved.model.push_to_hub("somebody/digits")
    assert uploaded == ["config.json", "model.safetensors"]


def test_local_folders_need_no_hub(saved):
    code = f"""
import sys
sys.modules["huggingface_hub"] = None
import torch
from genfast.models import PixelRNN
model = PixelRNN.from_pretrained({str(saved.folder)!r})
model.save_pretrained({str(saved.folder / "again")!r})
try:
    model.push_to_hub("somebody/digits")
except ImportError as error:
    assert "huggingface_hub" in str(error)
else:
    raise AssertionError("uploaded without huggingface_hub")
try:
    PixelRNN.from_pretrained("somebody/digits")
except FileNotFoundError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "got somebody/digits" in result.stdout
    for name in ("config.json", "model.safetensors"):
        assert (saved.folder / "again" / name).read_bytes() == (saved.folder / name).read_bytes()


def test_only_writing_needs_safetensors(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        saved.model.save_pretrained(saved.folder)
    assert PixelRNN.from_pretrained(saved.folder).config == saved.model.config


def test_a_failed_save_keeps_the_old_weights(saved, monkeypatch):
    before = (saved.folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        saved.model.input.bias.add_(1)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        saved.model.save_pretrained(saved.folder)
    assert (saved.folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in saved.folder.iterdir()) == ["config.json", "model.safetensors"]


def test_shipped_weights(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(_pretrained, "SHIPPED", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match=r"PixelRNN\.pretrained: expected one of \[\].*; got 'mnist'"):
        PixelRNN.pretrained("mnist")
    saved.model.save_pretrained(tmp_path / "weights" / "pixelrnn-mnist")
    assert PixelRNN.pretrained("mnist").config == saved.model.config
    with pytest.raises(FileNotFoundError, match=r"expected one of \['mnist'\].*; got '\.\./secret'"):
        PixelRNN.pretrained("../secret")


def test_a_deep_copy_is_independent():
    model = awake(height=2, width=2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.input.bias.add_(1)
    assert not torch.equal(model.input.bias, twin.input.bias) and twin.config == model.config
