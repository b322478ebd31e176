"""Paths through latents, images as vectors, and what they tell of labels."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp
from support.latents import TinyConfig, TinyLatent, every_image, label_of, tiny

import genfast
from genfast import metrics, tasks
from genfast.models import VQVAE, VQVAEConfig, build
from genfast.tasks import is_latent


def some_images(model, n, seed=0):
    every = every_image(model)
    return every[torch.randint(len(every), (n,), generator=torch.Generator().manual_seed(seed))]


# paths


def test_spherical_against_rotations():
    """scipy turns three-dimensional vectors about the axis that is perpendicular to both."""
    a, b = torch.randn(2, 20, 3, dtype=torch.float64)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    paths = tasks.spherical(a, b, t)
    for first, last, path in zip(a.numpy(), b.numpy(), paths.numpy()):
        axis = np.cross(first, last)
        angle = math.atan2(np.linalg.norm(axis), first @ last)
        turn = Rotation.from_rotvec([0 * axis, angle * axis / np.linalg.norm(axis)])
        lengths = np.linalg.norm(first) * (1 - t.numpy()) + np.linalg.norm(last) * t.numpy()
        expected = Slerp([0, 1], turn)(t.numpy()).apply(first / np.linalg.norm(first)) * lengths[:, None]
        np.testing.assert_allclose(path, expected, atol=1e-12)


def test_spherical_is_the_formula_of_sines_and_keeps_the_length():
    a, b = torch.randn(2, 30, 16, dtype=torch.float64)
    b = b / b.norm(dim=1, keepdim=True) * a.norm(dim=1, keepdim=True)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    angle = torch.arccos((a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1))[:, None]
    expected = ((1 - t) * angle).sin()[..., None] * a[:, None] + (t * angle).sin()[..., None] * b[:, None]
    paths = tasks.spherical(a, b, t)
    torch.testing.assert_close(paths, expected / angle.sin()[..., None])
    torch.testing.assert_close(paths.norm(dim=-1), a.norm(dim=1)[:, None].expand(-1, 5))
    assert (tasks.linear(a, b, t).norm(dim=-1)[:, 2] < 0.9 * a.norm(dim=1)).all(), "a straight line keeps it too"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [0, 1e-30, 1e-16, 1e-12, 1e-9, 1e-7, 1e-4])
@pytest.mark.parametrize("sign", [1, -1])
def test_spherical_of_nearly_parallel_and_opposite_vectors(dtype, gap, sign):
    a, off = torch.randn(2, 8, 5, dtype=torch.float64)
    b = (sign * a + gap * off).to(dtype)
    a, t = a.to(dtype), torch.linspace(0, 1, 9, dtype=dtype)
    path = tasks.spherical(a, b, t)
    assert path.dtype == dtype and path.isfinite().all()
    tolerance = {torch.float32: 3e-6, torch.float64: 1e-8}[dtype]
    torch.testing.assert_close(path[:, 0], a, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(path[:, -1], b, atol=tolerance, rtol=tolerance)
    lengths = tasks.linear(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True), t)[..., 0]
    torch.testing.assert_close(path.norm(dim=-1), lengths)
    steps = path.diff(dim=1).norm(dim=-1)
    if sign > 0:
        torch.testing.assert_close(path, tasks.linear(a, b, t), atol=1e-4, rtol=1e-4)
    else:  # half a turn in eight equal steps
        expected = 2 * math.sin(math.pi / 16) * a.norm(dim=1, keepdim=True)
        torch.testing.assert_close(steps, expected.expand(-1, 8), rtol=2e-3, atol=0)


def test_paths_without_a_plane_are_straight():
    t = torch.linspace(0, 1, 5)
    a, b = torch.tensor([[0.0, 0], [1, 2], [0, 0]]), torch.tensor([[3.0, 4], [0, 0], [0, 0]])
    torch.testing.assert_close(tasks.spherical(a, b, t), tasks.linear(a, b, t))
    one, other = torch.tensor([[2.0], [1.0]]), torch.tensor([[-2.0], [3.0]])
    torch.testing.assert_close(tasks.spherical(one, other, t), tasks.linear(one, other, t))


def test_interpolate_is_what_the_model_expects_of_the_path():
    for kind in ("bernoulli", "conditional", "mixture"):
        model, label = tiny(kind), label_of(tiny(kind))
        a, b = some_images(model, 3), some_images(model, 3, seed=1)
        labels = None if label is None else torch.full((3,), label)
        ends = [model.encode(end, labels)[0].detach() for end in (a, b)]
        for how in ("spherical", "linear"):
            decoded = tasks.interpolate(model, a, b, 4, kind=how, labels=label, batch_size=5)
            z = getattr(tasks, how)(*ends, torch.linspace(0, 1, 4)).flatten(0, 1)
            repeated = None if labels is None else labels.repeat_interleave(4)
            expected = model.likelihood.expected(model.decode(z, repeated)).unflatten(0, (3, 4)).detach()
            torch.testing.assert_close(decoded, expected.float())
            from_latents = tasks.interpolate(model, *ends, 4, kind=how, labels=label)
            torch.testing.assert_close(from_latents, decoded)
        assert tasks.interpolate(model, a[:0], b[:0], 2, labels=label).shape[:2] == (0, 2)


def lopsided():
    """A model whose latents carry more and more, the last ones none."""
    model = TinyLatent(TinyConfig(latent=4))
    with torch.no_grad():
        model.to_posterior.weight.copy_(torch.tensor([0.5, 3, 0, 1, 0, 0, 0, 0])[:, None] * torch.ones(8, 4))
        model.to_posterior.bias.zero_()
        model.to_posterior.bias[5] = -4.0
        model.to_hidden.weight[:, 2] = 0
    return model


def test_traverse_moves_one_latent_at_a_time_the_most_active_first():
    model = lopsided()
    images = some_images(model, 6, seed=3)
    traversal = tasks.traverse(model, images[:2], steps=5, span=2.0, reference=images)
    mean, log_variance = (t.detach() for t in model.encode(images))
    standard = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (log_variance / 2).exp()), standard).mean(0)
    assert traversal.latents.tolist() == kl.argsort(descending=True).tolist() and traversal.latents[-1] == 2
    torch.testing.assert_close(traversal.kl, kl.sort(descending=True).values)
    assert traversal.images.shape == (2, 4, 5, 1, 2, 2) and torch.equal(traversal.values, torch.linspace(-2, 2, 5))
    for k, which in enumerate(traversal.latents):
        z = mean[:2, None].repeat(1, 5, 1)
        z[:, :, which] = traversal.values
        expected = model.likelihood.expected(model.decode(z.flatten(0, 1))).detach().unflatten(0, (2, 5))
        torch.testing.assert_close(traversal.images[:, k], expected)
    assert (traversal.images[:, -1].std(1) < 1e-6).all() and (traversal.images[:, 0].std(1) > 1e-3).any()
    fewer = tasks.traverse(model, images[:2], steps=5, span=2.0, reference=images, count=2)
    torch.testing.assert_close(fewer.images, traversal.images[:, :2])
    model = tiny("conditional")
    labels = torch.tensor([0, 2])
    assert tasks.traverse(model, some_images(model, 2), labels=labels).images.shape == (2, 1, 9, 1, 2, 2)


# vectors


@pytest.mark.parametrize("kind", ["bernoulli", "conditional", "mixture"])
def test_embed_gives_posterior_means(kind):
    model, images = tiny(kind), some_images(tiny(kind), 23)
    labels = torch.arange(23) % 3 if label_of(model) else None
    expected = [part.detach() for part in model.encode(images, labels)]
    ticks = []
    embedded = tasks.embed(model, images, labels, batch_size=5, log_variance=True, progress=ticks.append)
    for part, whole in zip(embedded, expected):
        torch.testing.assert_close(part, whole)
        assert part.dtype == torch.float32 and not part.requires_grad
    assert ticks == [5, 5, 5, 5, 3] and torch.equal(tasks.embed(model, images, labels, batch_size=5), embedded[0])
    none = tasks.embed(model, images[:0], labels if labels is None else labels[:0])
    assert none.shape == (0, model.config.latent)


def test_a_model_keeps_its_mode():
    model = TinyLatent(TinyConfig()).train()
    tasks.embed(model, some_images(model, 2))
    tasks.traverse(model, some_images(model, 1))
    assert model.training and model.to_hidden.training


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embeddings_in_files(tmp_path, suffix):
    z, log_variances, labels = torch.randn(7, 3), torch.randn(7, 3), torch.arange(7)
    path = tmp_path / f"z{suffix}"
    read = lambda: dict(np.load(path))  # noqa: E731
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")

        def read():
            table = parquet.read_table(path)
            return {name: np.array(table[name].to_pylist()) for name in table.column_names}

    tasks.save_embedding(path, z)
    assert list(read()) == ["mean"] and np.allclose(read()["mean"], z.numpy())
    tasks.save_embedding(path, z, labels=labels, log_variances=log_variances)
    columns = read()
    assert sorted(columns) == ["label", "log_variance", "mean"] and columns["label"].tolist() == labels.tolist()
    np.testing.assert_array_equal(columns["log_variance"].astype(np.float32), log_variances.numpy())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_files_that_cannot_be_written(tmp_path, monkeypatch):
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"z\.csv: expected a name ending in \.npz or \.parquet; got \.csv"):
        tasks.save_embedding(tmp_path / "z.csv", z)
    with pytest.raises(IsADirectoryError, match="expected a file to write; got a folder"):
        (tmp_path / "d.npz").mkdir()
        tasks.save_embedding(tmp_path / "d.npz", z)
    with pytest.raises(ValueError, match=r"^save_embedding: labels must be integers \[n\] with n=2; got"):
        tasks.save_embedding(tmp_path / "z.npz", z, labels=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^save_embedding: log_variances must have shape \(2, 3\); got \(3, 2\)"):
        tasks.save_embedding(tmp_path / "z.npz", z, log_variances=z.T)
    with pytest.raises(ValueError, match=r"^save_embedding: means must have shape \[n, Z\]; got \(3,\)"):
        tasks.save_embedding(tmp_path / "z.npz", z[0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="expected the package pyarrow for Parquet, or a name ending in .npz"):
        tasks.save_embedding(tmp_path / "z.parquet", z)
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]


def test_neighbours_are_the_nearest():
    points, queries = torch.randn(2, 40, 6)
    distances, indices = tasks.neighbours(queries, points, 4)
    expected = torch.cdist(queries.double(), points.double())
    assert torch.equal(indices, expected.argsort(1)[:, :4])
    torch.testing.assert_close(distances.double(), expected.sort(1).values[:, :4], atol=1e-4, rtol=1e-4)


def test_neighbours_vote():
    points = torch.tensor([[0.0], [1], [2], [10], [11], [12], [13]])
    labels = torch.tensor([0, 1, 1, 2, 3, 4, 2])
    queries, truth = torch.tensor([[0.0], [0.2], [12.6], [11.2]]), torch.tensor([0, 1, 2, 3])
    assert metrics.neighbour_accuracy(points, labels, queries, truth, 1) == 0.75  # 0.2 is nearest to a 0
    # The 3 nearest of 12.6 have labels 2, 4 and 3: of labels equally frequent the nearest wins.
    assert metrics.neighbour_accuracy(points, labels, queries, truth, 3) == 0.75  # 0 is outvoted by two of 1


def test_a_linear_probe_reads_what_is_linear():
    z = torch.randn(400, 5)
    linear = (z[:, 0] - z[:, 1] > 0).long()
    parity = ((z[:, 0] > 0) ^ (z[:, 1] > 0)).long()
    assert metrics.linear_probe(z[:300] * 1000, linear[:300], z[300:] * 1000, linear[300:]) > 0.95
    assert metrics.linear_probe(z[:300], parity[:300], z[300:], parity[300:]) < 0.75
    assert metrics.neighbour_accuracy(z[:300], linear[:300], z[300:], linear[300:], 5) > 0.75


# what is refused

IMAGES = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: tasks.interpolate(m, IMAGES, IMAGES, 1), ValueError, "interpolate: steps must lie in 2"),
        (lambda m: tasks.interpolate(m, IMAGES, IMAGES, 2.0), TypeError, "interpolate: steps must be an int; got flo"),
        (
            lambda m: tasks.interpolate(m, IMAGES, IMAGES, kind="cubic"),
            ValueError,
            "interpolate: kind must be one of spherical, linear; got 'cubic'",
        ),
        (
            lambda m: tasks.interpolate(m, IMAGES, IMAGES[:1]),
            ValueError,
            "interpolate: a and b must be as many",
        ),
        (
            lambda m: tasks.interpolate(m, torch.zeros(2, 3), IMAGES),
            ValueError,
            r"interpolate: a must have shape \[n, Z\] with Z=1; got \(2, 3\)",
        ),
        (lambda m: tasks.traverse(m, IMAGES, span=0), ValueError, "traverse: span must be positive and finite; got 0"),
        (lambda m: tasks.traverse(m, IMAGES, count=2), ValueError, r"traverse: count must lie in 1 \.\. 1; got 2"),
        (lambda m: tasks.traverse(m, IMAGES[0]), ValueError, r"traverse: x must have shape .* got \(1, 2, 2\)"),
        (lambda m: tasks.embed(m, IMAGES.float()), TypeError, "embed: images must hold levels as integers; got"),
        (lambda m: tasks.embed(m, IMAGES + 2), ValueError, r"embed: images must lie in 0\.\.1; got 2"),
        (lambda m: tasks.embed(m, IMAGES, 0), ValueError, "embed: labels must be None for a model without"),
        (lambda m: tasks.embed(m, IMAGES, batch_size=0), ValueError, "embed: batch_size must lie in 1"),
        (
            lambda m: metrics.linear_probe(torch.zeros(2, 3), torch.zeros(3, dtype=int), torch.zeros(2, 3), IMAGES),
            ValueError,
            r"linear_probe: training labels must be integers \[n\] with n=2, at least 1; got torch.int64 \(3,\)",
        ),
        (
            lambda m: metrics.linear_probe(*[torch.zeros(2, 3), torch.zeros(2, dtype=int)] * 2),
            ValueError,
            "linear_probe: train_labels must be of two classes or more; got one",
        ),
    ],
)
def test_bad_arguments_get_one_error(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call(tiny("conditional") if "classes" in message else TinyLatent(TinyConfig()))


def test_other_models_have_no_latents():
    pixelcnn = build("pixelcnn", height=4, width=4, hidden=2, layers=1, head=2)
    for model in (pixelcnn, VQVAE(VQVAEConfig(height=4, width=4, hidden=2, codes=2)), 3):
        assert not is_latent(model)
        with pytest.raises(TypeError, match="^embed: model must have Gaussian latents, as genfast.models.VAE has; got"):
            tasks.embed(model, torch.zeros(1, 1, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("name, options", [("vae", {}), ("vae", {"classes": 3}), ("iwae", {"levels": 4})])
def test_the_models_of_the_package(name, options):
    model = build(name, **({"height": 4, "width": 4, "latent": 3, "hidden": 4, "layers": 1} | options)).eval()
    images = torch.randint(model.config.levels, (5, 1, 4, 4), dtype=torch.uint8)
    labels = torch.arange(5) % 3 if model.config.classes else None
    z = tasks.embed(model, images, labels)
    torch.testing.assert_close(z, model.encode(images, labels)[0].detach())
    path = tasks.interpolate(model, images[:2], images[2:4], 3, labels=None if labels is None else labels[:2])
    assert path.shape == (2, 3, 1, 4, 4) and 0 <= path.min() and path.max() <= model.config.levels - 1
    assert tasks.traverse(model, images[:1], labels=None if labels is None else labels[:1]).images.shape[1:3] == (3, 9)
    known = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    known[..., :2] = True
    filled = genfast.inpaint(model, images, known, steps=6, labels=labels)
    assert torch.equal(filled.images[..., :2], images[..., :2]) and filled.images.max() < model.config.levels
    noise = genfast.GaussianNoise(0.3)
    noisy = noise.corrupt(images, model.config.levels)
    denoised = genfast.denoise(model, noisy, noise, method="mean", steps=6, labels=labels)
    assert denoised.images.shape == images.shape and set(denoised.acceptance) == {"posterior", "walk"}
