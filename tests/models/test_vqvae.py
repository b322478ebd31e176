"""VQ-VAE: codes and images, its bound, training by `genfast.train`, and the prior that draws its codes."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import genfast as package
from genfast import metrics, models
from genfast.data import ImageData
from genfast.likelihoods import likelihood as likelihood_of
from genfast.train import TrainConfig, fit
from genfast.train.metrics_log import read_metrics

SIZES = {"height": 8, "width": 12, "levels": 16, "codes": 8, "features": 4, "hidden": 8, "layers": 1, "downsampling": 1}


def model(**changes):
    torch.manual_seed(0)
    net = models.build("vq-vae", **(SIZES | changes))
    net.quantizer.train()
    with torch.no_grad():
        net.loss(images(net, 20))  # gives the codes their values
    return net.eval()


def images(model, n, seed=0):
    c = model.config
    generator = torch.Generator().manual_seed(seed)
    shape = (n, c.channels, c.height, c.width)
    return torch.randint(0, c.levels, shape, generator=generator, dtype=torch.uint8)


def prior(model, **changes):
    torch.manual_seed(1)
    height, width = model.config.grid
    sizes = {"height": height, "width": width, "levels": model.config.codes, "hidden": 8, "layers": 1, "head": 8}
    net = models.build(changes.pop("kind", "gated-pixelcnn"), **(sizes | changes))
    with torch.no_grad():
        for parameter in net.parameters():  # far from uniform
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"levels": 2, "likelihood": "bernoulli"},
        {"channels": 3, "likelihood": "gaussian", "downsampling": 2},
        {"channels": 3, "codebooks": 2},
        {"codebook_update": "gradient", "downsampling": 0},
    ],
    ids=str,
)
def test_images_to_codes_and_back(changes):
    net = model(**changes)
    c, x = net.config, images(net, 5)
    codes = net.encode(x)
    step = 2**c.downsampling
    assert codes.shape == (5, *c.grid) == (5, 8 // step, 12 // step * c.codebooks) and codes.dtype == torch.int64
    assert 0 <= codes.min() and codes.max() < c.codes
    parameters = net.decode(codes)
    assert parameters.shape == (5, net.likelihood.parameters, 8, 12)
    torch.testing.assert_close(net(x), parameters)
    torch.testing.assert_close(net.expected(parameters).round().to(torch.uint8), net.reconstruct(x))
    assert net.nll(x, parameters).shape == net.bound(x).shape == (5,)
    assert torch.equal(net.bound(x), net.bound(x, seed=3, first=7)) and torch.equal(net.log_prob(x), net.bound(x))
    drawn = net.draw(parameters, 3, first=2)
    assert drawn.dtype == torch.uint8 and drawn.shape == x.shape and drawn.max() < c.levels
    assert torch.equal(net.draw(parameters[2:], 3, first=4), drawn[2:])
    for count in (0, 1):
        assert net.reconstruct(x[:count]).shape == x[:count].shape and net.bound(x[:count]).shape == (count,)
        assert net.loss(x[:count]).shape == (count,)


def test_loss_is_its_two_terms():
    net = model(commitment=0.5)
    x = images(net, 5)
    z = net._features(x)
    nearest = net.quantizer.lookup(net.quantizer.encode(z))
    expected = net.nll(x, net.decode(net.encode(x))) + x[0].numel() * 0.5 * (z - nearest).square().mean()
    torch.testing.assert_close(net.loss(x), expected)


def test_bound_is_that_of_an_enumerated_model():
    """Four images of codes in all: the bound of each image is a part of the sum that makes its probability."""
    net = model(codes=2, codebooks=1, height=2, width=4, levels=2, likelihood="bernoulli").double()
    net.set_prior(prior(net).double())
    x = images(net, 6)
    grids = torch.tensor([[[a, b]] for a in range(2) for b in range(2)])
    weights = net.code_log_prob(grids).detach()
    assert float(weights.exp().sum()) == pytest.approx(1, abs=1e-9)
    exact = torch.stack([weights - net.nll(one.expand(4, -1, -1, -1), net.decode(grids)) for one in x]).logsumexp(1)
    bound = net.bound(x)
    assert (bound <= exact).all() and (bound > exact - 20).all() and not torch.allclose(bound, exact)
    net.set_prior(None)
    torch.testing.assert_close(net.bound(x), -2 * math.log(2) - net.nll(x, net.decode(net.encode(x))))


def test_every_parameter_learns():
    for update in ("ema", "gradient"):
        net = model(codebook_update=update, codebooks=2, channels=3, likelihood="gaussian").train()
        net.loss(images(net, 6)).mean().backward()
        assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_any_size():
    net = model()
    x = torch.randint(0, 16, (2, 1, 20, 6), dtype=torch.uint8)
    codes = net.encode(x, any_size=True)
    assert codes.shape == (2, 10, 3) and net.decode(codes, any_size=True).shape[2:] == (20, 6)
    for refused in (lambda: net.encode(x), lambda: net.decode(codes)):
        with pytest.raises(ValueError, match="must have shape"):
            refused()
    with pytest.raises(ValueError, match="H=4, W=2; got"):
        net.encode(torch.zeros(1, 1, 5, 3, dtype=torch.uint8), any_size=True)


def test_samples_are_decoded_codes_of_the_prior():
    net = model()
    net.set_prior(prior(net))
    drawn = package.sample(net, 7, seed=5)
    codes = package.sample(net.prior, 7, seed=5)[:, 0].long()
    assert torch.equal(drawn, net.decode_images(codes)) and len(codes.unique(dim=0)) == 7
    assert torch.equal(package.sample(net, 3, seed=5, first=4), drawn[4:])
    assert torch.equal(net.sample(7, seed=5, batch_size=2), drawn)
    assert torch.equal(torch.cat(list(package.stream(net, 7, seed=5, batch_size=3))), drawn)
    assert not torch.equal(net.sample(7, seed=6), drawn) and net.sample(0).shape == (0, 1, 8, 12)
    cold, warm = (package.sample(net, 7, seed=5, temperature=t) for t in (0.1, 1.0))
    assert torch.equal(warm, drawn) and not torch.equal(cold, drawn)


def test_images_do_not_depend_on_how_they_are_split():
    net = model(hidden=32)
    codes = net.encode(images(net, 100))
    whole = net.decode_images(codes, first=10)
    for start, end in ((0, 1), (40, 70), (99, 100)):
        assert torch.equal(net.decode_images(codes[start:end], first=10 + start), whole[start:end])


def test_labels_are_the_priors():
    net = model()
    net.set_prior(prior(net, classes=3))
    x, labels = images(net, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    assert net.config.classes == 3
    assert not torch.equal(net.bound(x, labels), net.bound(x, labels.flip(0)))
    assert package.sample(net, 6, labels=labels).shape == x.shape
    with pytest.raises(ValueError, match="labels must be"):
        package.sample(net, 6)


@pytest.mark.parametrize("with_prior", ["none", "pixelcnn", "gated-pixelcnn", "pixelrnn"])
def test_one_folder_holds_both(with_prior, tmp_path):
    net = model(codebooks=2, likelihood="gaussian")
    if with_prior != "none":
        net.set_prior(prior(net, kind=with_prior))
    net.save_pretrained(tmp_path)
    loaded = models.load(tmp_path)
    x = images(net, 4)
    assert type(loaded) is models.VQVAE and loaded.config == net.config
    assert torch.equal(loaded.bound(x), net.bound(x)) and (loaded.prior is None) == (with_prior == "none")
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("codes", 1, "codes must be at least 2"),
        ("codes", 65537, "codes must be at most 65536"),
        ("height", 9, "multiples of 2, for downsampling 1, such as 8x12 or 10x12; got 9 and 12"),
        ("likelihood", "bernoulli", "bernoulli must have 2 levels; got 16"),
        ("likelihood", "poisson", "likelihood must be one of"),
        ("codebook_update", "adam", "codebook_update must be one of ema, gradient"),
        ("decay", 1.0, "decay must lie in"),
        ("prior", {"model": "pixelcnn++"}, "prior must be a pixelcnn, a gated-pixelcnn, a pixelrnn"),
        ("prior", {"model": "pixelcnn", "channels": 1, "height": 4, "width": 5, "levels": 8}, "the grid of codes"),
        ("prior", {"model": "pixelcnn", "layers": 10**9}, "prior: PixelCNNConfig: layers must be at most 1000"),
        ("prior", {"model": "pixelcnn", "depth": 3}, "prior: expected fields of PixelCNNConfig; got depth"),
    ],
)
def test_bad_configs(field, value, text):
    with pytest.raises(ValueError, match=text):
        models.build("vq-vae", **(SIZES | {field: value}))


def test_bad_arguments():
    net = model()
    x = images(net, 2)
    for wrong, error in ((x.float(), TypeError), (x[:, :, :4], ValueError), (x + 240, ValueError)):
        for method in (net.encode, net.loss, net.bound, net.reconstruct):
            with pytest.raises(error, match="x must"):
                method(wrong)
    for wrong, error in (
        (torch.zeros(1, 4, 6), TypeError),
        (torch.zeros(1, 4, 5, dtype=torch.int64), ValueError),
        (torch.full((1, 4, 6), 8), ValueError),
    ):
        with pytest.raises(error, match="codes must"):
            net.decode(wrong)
    with pytest.raises(ValueError, match="sampling needs a prior.*codes:RUN"):
        package.sample(net, 1)
    with pytest.raises(ValueError, match="the grid of codes"):
        net.set_prior(prior(net, levels=9))
    with pytest.raises(ValueError, match="prior must be a"):
        net.set_prior(model())
    assert net.prior is None and net.config.prior is None


def test_a_prior_of_another_size_in_a_file(tmp_path):
    net = model()
    net.set_prior(prior(net))
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"levels": 9}, {"hidden": 0}, {"unknown": 1}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"prior": config["prior"] | change}))
        with pytest.raises(ValueError, match="config.json"):
            models.load(tmp_path)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "mixture"])
@pytest.mark.parametrize("channels", [1, 3])
def test_likelihoods_against_their_draws(kind, channels):
    """The mean is that of many draws, and the mass of all levels of one pixel is one."""
    levels = 2 if kind == "bernoulli" else 11
    likelihood = likelihood_of(kind, channels, levels, mixtures=2)
    torch.manual_seed(0)
    # Narrow and around the middle, so that rounding and clipping move the mean little.
    parameters = 0.2 * torch.randn(1, likelihood.parameters, 2, 2)
    if kind == "gaussian":
        parameters[:, channels:] -= 3
    if kind == "mixture":
        parameters[:, 2 * (1 + channels) : 2 * (1 + 2 * channels)] -= 2
    draws = likelihood.draw(parameters.expand(20_000, -1, -1, -1), 1).double()
    tolerance = 0.02 if kind == "bernoulli" else 0.08
    torch.testing.assert_close(draws.mean(0), likelihood.expected(parameters)[0].double(), atol=tolerance, rtol=0)
    if kind == "gaussian":
        spread = (parameters[0, channels:] / 2).exp().double() * 5
        torch.testing.assert_close(draws.std(0), spread, atol=0.1, rtol=0.05)
    one = parameters[:, :, :1, :1].expand(levels**channels, -1, -1, -1)
    grid = torch.cartesian_prod(*[torch.arange(levels)] * channels).view(-1, channels, 1, 1).to(torch.uint8)
    mass = float((-likelihood.nll(grid, one).double()).exp().sum())
    assert mass == pytest.approx(1, abs=2e-2 if kind == "gaussian" else 1e-4)


def test_a_mixture_weighs_the_channels_of_a_pixel_alike():
    likelihood = likelihood_of("mixture", 3, 4, mixtures=2)
    torch.manual_seed(0)
    parameters, x = torch.randn(2, likelihood.parameters, 2, 2), torch.randint(0, 4, (2, 3, 2, 2), dtype=torch.uint8)
    weight = (torch.rand(2, 1, 2, 2) < 0.5).expand(-1, 3, -1, -1).contiguous()
    assert (likelihood.nll(x, parameters, weight) < likelihood.nll(x, parameters)).all()
    weight[1, 2, 0, 1] ^= True
    with pytest.raises(ValueError, match="^nll: weight must be equal over the channels of a pixel"):
        likelihood.nll(x, parameters, weight)
    separate = likelihood_of("gaussian", 3, 4)
    assert separate.nll(x, torch.randn(2, 6, 2, 2), weight).isfinite().all()


TRAINING = {"steps": 12, "batch": 4, "log_every": 4, "eval_every": 6, "save_every": 5, "ema": 0.5, "device": "cpu"}


def test_training_keeps_the_codebook_that_was_trained(tmp_path):
    net = models.build("vq-vae", **SIZES)
    data = ImageData(images(net, 24), 16, "noise")
    fit(net, data, data, TrainConfig(**TRAINING), tmp_path / "a")
    kept = models.load(tmp_path / "a" / "model")
    best = min(
        (r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if "valid_nats" in r), key=lambda r: r["valid_nats"]
    )
    assert -float(kept.log_prob(data.images).mean()) == pytest.approx(best["valid_nats"], rel=1e-5)
    if best["step"] == 12:
        assert torch.equal(kept.quantizer.codebook, net.quantizer.codebook)
    assert float(kept.quantizer.counts.sum()) > 0


def test_resumed_training_is_the_same(tmp_path):
    whole, halves = (models.build("vq-vae", **SIZES) for _ in range(2))
    halves.load_state_dict(whole.state_dict())
    data = ImageData(images(whole, 24), 16, "noise")
    config = TrainConfig(**TRAINING)
    fit(whole, data, data, config, tmp_path / "a")
    fit(halves, data, data, config, tmp_path / "b", minutes=1e-9)
    again = models.build("vq-vae", **SIZES)
    fit(again, data, data, config, tmp_path / "b", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert (tmp_path / "a/model/model.safetensors").read_bytes() == (
        tmp_path / "b/model/model.safetensors"
    ).read_bytes()


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    random = np.random.RandomState(0)
    parts = {split: random.randint(0, 4, (n, 8, 8)) for split, n in (("train", 30), ("valid", 8), ("test", 6))}
    np.savez(path, **parts, levels=4)
    return path


TINY = ["--hidden", 4, "--layers", 1, "--steps", 6, "--eval-every", 3, "--log-every", 3, "--batch", 4]


def test_both_stages_by_the_command_line(genfast, data_file, tmp_path):
    run, second = tmp_path / "run", tmp_path / "run" / "prior"
    vqvae = ["--codes", 8, "--features", 4, "--downsampling", 1]
    assert genfast("train", "vq-vae", "--data", data_file, "--out", run, *TINY, *vqvae)[0] == 0
    code, _, err = genfast("sample", run, "--out", tmp_path / "s.png")
    assert code == 2 and "a prior" in err and err.count("\n") == 1
    source = ["--data", f"codes:{run}"]
    code, out, err = genfast("train", "gated-pixelcnn", *source, "--out", second, *TINY, "--head", 8)
    assert (code, err) == (0, "") and "6 steps" in out
    code, out, err = genfast("sample", run, "-n", 5, "--out", tmp_path / "s.npz")
    assert code == 0 and np.load(tmp_path / "s.npz")["images"].shape == (5, 1, 8, 8), err
    assert genfast("sample", run, "-n", 5, "--out", tmp_path / "s.png")[0] == 0
    assert Image.open(tmp_path / "s.png").size[0] > 8
    whole, alone = models.load(run / "model"), models.load(second / "model")
    assert whole.prior.config == alone.config and alone.config.levels == 8 and alone.config.height == 4
    code, out, err = genfast("evaluate", run)
    assert code == 0 and "% of 8 codes in use, perplexity " in out, err
    assert genfast("evaluate", second)[0] == 0
    code, out, err = genfast("train", "gated-pixelcnn", *source, "--out", second, "--resume")
    assert code == 0, err
    assert models.load(run / "model").prior is not None


def test_only_a_finished_prior_takes_the_place_of_another(genfast, data_file, tmp_path):
    run, prior_run = tmp_path / "run", ["train", "gated-pixelcnn", "--data", f"codes:{tmp_path / 'run'}", *TINY]
    assert genfast("train", "vq-vae", "--data", data_file, "--out", run, *TINY, "--codes", 8)[0] == 0
    assert genfast(*prior_run, "--out", tmp_path / "good")[0] == 0
    whole = (run / "model/model.safetensors").read_bytes()
    code, _, err = genfast(*prior_run, "--out", tmp_path / "stopped", "--minutes", 1e-9, "--seed", 2)
    assert code == 0 and "becomes the prior of codes:" in err and "stopped at step 1 of 6" in err
    assert (run / "model/model.safetensors").read_bytes() == whole
    resume = [*prior_run[:4], "--out", tmp_path / "stopped", "--resume"]
    assert genfast(*resume)[::2] == (0, "")
    assert (run / "model/model.safetensors").read_bytes() != whole


@pytest.mark.parametrize("options", [[], ["--conditional"]])
def test_a_vqvae_begins_as_one_without_its_prior(genfast, data_file, tmp_path, options):
    bits = dict(np.load(data_file))
    labels = {f"{split}_labels": np.arange(len(bits[split])) % 2 for split in ("train", "valid", "test")}
    np.savez(tmp_path / "bits.npz", **bits, **labels)
    sizes = ["--data", tmp_path / "bits.npz", *TINY, "--codes", 8]
    assert genfast("train", "vq-vae", *sizes, "--out", tmp_path / "a")[0] == 0
    prior_run = ["--data", f"codes:{tmp_path / 'a'}", "--out", tmp_path / "p", *TINY, *options]
    assert genfast("train", "gated-pixelcnn", *prior_run)[0] == 0
    start = models.load(tmp_path / "a" / "model")
    begin = ["--out", tmp_path / "b", "--init-from", tmp_path / "a", "--lr", 1e-9]
    code, _, err = genfast("train", "vq-vae", *sizes, *begin)
    trained = models.load(tmp_path / "b" / "model")
    assert (code, err) == (0, "") and start.prior is not None and trained.prior is None
    torch.testing.assert_close(trained.encoder.state_dict(), start.encoder.state_dict())


def test_what_cannot_be_a_prior(genfast, data_file, tmp_path):
    run = tmp_path / "run"
    assert genfast("train", "vq-vae", "--data", data_file, "--out", run, *TINY, "--codes", 300)[0] == 0
    for words, text in (
        (["pixelcnn", "--data", f"codes:{run}"], "at most 256 codes"),
        (["pixelcnn", "--data", f"codes:{tmp_path / 'nothing'}"], "expected"),
    ):
        code, _, err = genfast("train", *words, "--out", tmp_path / "p", "--steps", 1)
        assert code == 2 and text in err and err.count("\n") == 1, err
    other = tmp_path / "other"
    assert genfast("train", "vq-vae", "--data", data_file, "--out", other, *TINY, "--codes", 8)[0] == 0
    small = ["--filters", 2, "--blocks", 1, "--resolutions", 1, "--mixtures", 1, "--steps", 1]
    code, _, err = genfast("train", "pixelcnn++", "--data", f"codes:{other}", "--out", tmp_path / "p", *small)
    assert code == 2 and "expected a model of pixelcnn, gated-pixelcnn, pixelrnn" in err


def test_use_of_the_codebook():
    share, perplexity = metrics.codebook_use(torch.tensor([[0, 0], [1, 1]]), 4)
    assert (share, perplexity) == (0.5, pytest.approx(2))
    assert metrics.codebook_use(torch.zeros(0, 2, dtype=torch.int64), 4) == (0.0, 1.0)
    with pytest.raises(ValueError, match="codes must lie in"):
        metrics.codebook_use(torch.tensor([4]), 4)
