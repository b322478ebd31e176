"""A call of everything public, by name: what the tests that hold for all of it run.

A row is a function without arguments. Its inputs are made on its first call; what it returns is compared. `CALLS` is
complete: a test fails for a public name without a row.
"""

import copy
import dataclasses
import io
import tempfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from support import bench_reports, public_compat, public_reports
from support.audited import AUDITED
from support.pieces import (
    LAYERS,
    MODELS,
    PLAIN,
    batch_of,
    classifier,
    generator,
    image_set,
    images_of,
    integers,
    left,
    levels,
    made_layer,
    model,
    normal,
)
from torch import nn

import genfast
from genfast import audit, data, likelihoods, losses, metrics, models, random, reference, reports, tasks, testing, train
from genfast.data.gaussian_mixture import GaussianMixture
from genfast.data.grid import png
from genfast.engine.protocols import Density
from genfast.models._pretrained import SHIPPED
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

ROOMS = {
    "genfast": genfast,
    "benchmarks": genfast.benchmarks,
    "audit": audit,
    "data": data,
    "likelihoods": likelihoods,
    "losses": losses,
    "metrics": metrics,
    "models": models,
    "nn": genfast.nn,
    "ops": genfast.ops,
    "random": random,
    "reference": reference,
    "reports": reports,
    "tasks": tasks,
    "train": train,
    **public_compat.ROOMS,
}
# Public names that compute nothing.
IDLE = {
    *("genfast.backends", "genfast.set_isa", "genfast.explain"),  # say or choose which kernels serve
    "genfast.UncheckedModel",
    *("data.dataset_names", "data.datasets", "data.register_dataset", "data.describe", "data.locate"),
    *("likelihoods.decoder_likelihoods", "likelihoods.heads", "likelihoods.register_likelihood"),
    *("likelihoods.Likelihood", "likelihoods.default_likelihood", "likelihoods.likelihood", "likelihoods.softmax"),
    *("likelihoods.read_output", "models.register_model", "models.build", "models.Autoregressive", "models.GAN"),
    *("models.ImageModel", "models.SequenceModel", "tasks.is_latent", "train.preset", "train.learning_rate"),
    *("reports.check_report", "reports.label", "reports.comparison_page"),
    *("data.load_mnist", "data.load_mnist_binary", "data.load_pairs"),  # read as `data.load_npz` and `data.load` do
}


def names():
    """The functions and classes of every room, each under one name. Records of settings and of results are left out."""
    seen = set()
    for room, module in reversed(ROOMS.items()):
        for name in module.__all__:
            value = getattr(module, name)
            record = dataclasses.is_dataclass(value) and not hasattr(value, "corrupt") and not hasattr(value, "nll")
            if callable(value) and not record and not isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                yield f"{room}.{name}"


EVERY = {**SPECS, **SAMPLERS, **NON_DIFFERENTIABLE}


def op(name, scale=1, **backend):
    """Outputs, and the gradients of one that has any, by the public function; `scale`: of the inputs."""
    function, inputs = partial(getattr(genfast.ops, name), **backend), EVERY[name].inputs(EVERY[name].shapes[2])
    if scale != 1:
        inputs |= {key: scale * tensor for key, tensor in testing.differentiable(inputs).items()}
    return testing.evaluate(function, inputs) if name in SPECS else function(**inputs)


def layer(name):
    """Outputs, gradients and state after a forward in training mode, and the output in evaluation mode."""
    module = copy.deepcopy(made_layer(name)).train()
    sizes = {"SpectralNorm": [(3, 4)], "ReferenceBatch": [(1, 3, 2, 2)]}.get(name) or LAYERS[name][2:]
    inputs = [normal(*size, seed=number) for number, size in enumerate(sizes)]
    outputs = testing.outputs_of(module(*inputs))
    floats = [output for output in outputs if output.is_floating_point() and output.requires_grad]
    gradients = []
    if floats and list(module.parameters()):
        total = sum(output.square().sum() for output in floats)
        gradients = torch.autograd.grad(total, list(module.parameters()), allow_unused=True)
    with torch.no_grad():
        return outputs, gradients, module.state_dict(), module.eval()(*inputs)


def of_model(kind):
    """Losses with their gradients, and what a model of this kind is for: samples, log-probabilities, translations."""
    made, batch = model(kind), batch_of(kind)
    trained, results = copy.deepcopy(made).train(), []
    for loss in ("loss", "discriminator_loss", "generator_loss"):
        if hasattr(trained, loss):
            value = getattr(trained, loss)(*batch)
            value = value[0] if isinstance(value, tuple) else value.mean()
            results.append((value, torch.autograd.grad(value, list(trained.parameters()), allow_unused=True)))
    if kind == "pix2pix":
        return results, tasks.translate(made, batch[0])
    labels = batch[1] if made.spec.classes else None
    if kind != "vq-vae":
        results.append(tasks.sample(made, len(batch[0]), labels=labels))
    if isinstance(made, Density) and kind not in ("vae", "iwae", "vq-vae"):  # of these by 5000 samples
        results.append(tasks.log_prob(made, *batch))
    if kind in ("vae", "iwae"):
        results.append(made.log_prob(*batch, samples=3))
    return results


def trained(kind, fit, settings, made=None):
    """The result and the weights of a short training of a copy of `made`, or of the model of this kind."""
    images = image_set(kind)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(copy.deepcopy(model(kind) if made is None else made), images, images, settings, folder)
        return result, models.load(Path(folder) / "model").state_dict()


def files(function, *names):
    """What `function(folder)` returns, and the contents of the files that it writes; of an archive its members."""
    with tempfile.TemporaryDirectory() as folder:
        result = function(Path(folder))
        written = {name: (Path(folder) / name).read_bytes() for name in names}
    for name, content in written.items():
        if zipfile.is_zipfile(io.BytesIO(content)):
            archive = zipfile.ZipFile(io.BytesIO(content))
            written[name] = {member: archive.read(member) for member in archive.namelist()}
    return result, written


def plain_causal():
    """A convolution of the row above, which is no model of the package."""
    convolution = nn.Conv2d(1, 8, 3, padding=1, **PLAIN).requires_grad_(False)
    convolution.weight.copy_(normal(8, 1, 3, 3))[:, :, 1:].zero_()
    return convolution


OF_ANOTHER = {"shape": (1, 3, 3), "levels": 8}


class Codes(nn.Module):
    """Probabilities of codes, given a label and a vector."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(8, 1, **PLAIN).requires_grad_(False)
        self.embedding.weight.copy_(normal(8, 1))
        self.first, self.label = plain_causal(), normal(2, 8, seed=2)

    def forward(self, x, y, h):
        places = normal(8, 3, 3, seed=4)
        x = self.first(self.embedding(x).permute(0, 3, 1, 2)) + (self.label[y] * h)[:, :, None, None] + places
        return x.permute(0, 2, 3, 1).softmax(-1)


OF_CODES = {"inputs": "codes", "classes": 2, "condition": {"h": normal(1, 8, seed=3)}, "output": "B H W L"}


def checks():
    """A right and a wrong description of a model, and the loss that tells them apart."""
    made, images = plain_causal(), integers(2, 1, 3, 3, below=8)

    def nll(images):
        return nn.functional.cross_entropy(made(images.float() / 7), images[:, 0].long())

    options = {"shape": (1, 3, 3), "levels": 8}
    results = [tasks.check(made, images, nll, **options, input_range=(0, high)) for high in (1, 7)]
    assert [one.ok for one in results] == [True, False] and "(0, 1)" in results[1].remedy
    return [torch.tensor([one.difference for one in results], dtype=torch.float64, device="cpu")]


def engine():
    """All that every backend returns for a model that is traced anew."""
    made, given = copy.deepcopy(model("pixelcnn")), images_of("pixelcnn", 2)
    evidence = normal(2, *made.spec.shape, made.spec.levels)
    settings = {"seed": 1, "given": given, "known": left(made).expand_as(given), "evidence": evidence}
    results = []
    for backend in ("cpp", "torch", "full_forward"):
        drawn = genfast.Engine(made, backend=backend)
        results.append(drawn.run(2, want=("log_probs", "log_evidence", "parameters"), **settings))
        results.append(drawn.log_prob(given))
    return results


def penalty(function):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, **PLAIN), nn.Tanh(), nn.Linear(3, 1, **PLAIN))
    images = [normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1)]
    value = function(network, *images[: 2 if function is losses.wgan_gp_penalty else 1])
    return value, torch.autograd.grad(value, list(network.parameters()), allow_unused=True)


def adversarial(function, *sizes):
    """A loss of several logits or features, and its gradients."""
    logits = [normal(*size, seed=number).requires_grad_() for number, size in enumerate(sizes)]
    value = function(*logits)
    return value, torch.autograd.grad(value, logits, allow_unused=True)


def historical():
    parameter = normal(4).requires_grad_()
    average = losses.HistoricalAverage([parameter])
    with torch.no_grad():
        parameter.mul_(2)
    average.update()
    return average(), average.state_dict()


def semi_supervised():
    logits = [normal(4, 3, seed=seed) for seed in range(3)]
    return losses.semi_supervised_discriminator(logits[0], integers(4, below=3), *logits[1:])


def monitor():
    made = metrics.EquilibriumMonitor("hinge")
    empty = made.state_dict()
    made.observe(normal(6), normal(6, seed=1))
    made.cover(integers(9, below=3), [0.5, 0.25, 0.25], 3)
    state = made.state_dict()
    made.load_state_dict(state)
    return empty, state, made.record()


def gap(made):
    return metrics.duality_gap(made, (images_of("dcgan", 16),), steps=2, batch=4, measured=4)


def trained_classifier():
    made, accuracy = metrics.train_classifier(levels(20, 1, 8, 8), integers(20, below=3), steps=3, batch=4)
    return made.state_dict(), accuracy, made.features(levels(0, 1, 8, 8)), made.probabilities(levels(3, 1, 8, 8))


def likelihood(kind):
    made = kind.of(1, 2 if kind is likelihoods.Bernoulli else 8, 2)
    x, parameters = levels(3, 1, 4, 4, levels=made.levels), normal(3, made.parameters, 4, 4)
    results = [made.nll(x, parameters), made.expected(parameters), made.draw(parameters, 3)]
    return [*results, made.log_levels(parameters)] if not made.couples_channels else results


def noises(noise, count):
    images = levels(2, 1, 4, 4, levels=count)
    noisy = noise.corrupt(images, count)
    return noisy, noise.log_likelihood(noisy, count), noise.picture(noisy, count)


def read_back(write, read):
    """What `read(path)` returns of the file that `write(path)` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "images.npz")
        return read(Path(folder) / "images.npz")


def arrays(path):
    images = np.arange(240 * 4, dtype=np.int64).astype(np.uint8).reshape(60, 4, 4)
    np.savez(path, images=images, labels=np.arange(60) % 3, levels=256)


def pictures(folder, count=20):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        image = np.random.RandomState(number).randint(256, size=(16, 16, 1), dtype=np.uint8)
        (folder / f"{number:02d}.png").write_bytes(png(image))


def translated_folder(folder, made=None):
    pictures(folder / "in", 2)
    return tasks.translate_folder(model("pix2pix") if made is None else made, folder / "in", folder)


def gaussian_mixture():
    made = GaussianMixture.ring(3)
    points, which = made.sample(5, generator())
    return points, which, made.log_prob(points), made.modes(points)


def shards(folder, made=None):
    return tasks.sample_shards(model("pixelcnn") if made is None else made, 3, folder, shard=2)


def embedding(folder):
    means = tasks.embed(model("vae"), images_of("vae"))
    return tasks.save_embedding(folder / "z.npz", means, labels=integers(2, below=2))


def short(config):
    return config(steps=2, batch=4, log_every=1, device="cpu")


def every(kind, function):
    """`function(model, images of it)`."""
    return function(model(kind), images_of(kind))


def vectors():
    return normal(12, 3), 0.5 * normal(10, 3, seed=1) + 0.2


def logits_of_one_size():
    return normal(9), normal(9, seed=1)


def logits():
    return normal(9), normal(7, seed=1) - 1


def noisy(kind):
    noise = genfast.BitFlipNoise(0.1)
    return noise.corrupt(images_of(kind), model(kind).spec.levels), noise


def pairs():
    source, target = batch_of("pix2pix")
    return data.PairData(source, target, 256, "noise")


def accuracy():
    return metrics.discriminator_accuracy(*logits(), "wasserstein")


LOGITS, ROWS = [(5,), (5,)], [(4, 3), (6, 3)]
CALLS = AUDITED | {
    **{f"ops.{name}": partial(op, name) for name in EVERY},
    # Products of these are denormal. The projection of minibatch discrimination is torch's own product, which flushes.
    **{f"ops.{name} of 1e-20": partial(op, name, 1e-20) for name in EVERY if name != "minibatch_discrimination"},
    **{f"reference.{name}_ref": partial(op, name, backend="reference") for name in EVERY},
    **{f"nn.{name}": partial(layer, name) for name in (*LAYERS, "SpectralNorm", "ReferenceBatch")},
    **{f"models.{models.MODELS[kind][0].__name__}": partial(of_model, kind) for kind in MODELS},
    **{f"likelihoods.{kind.__name__}": partial(likelihood, kind) for kind in likelihoods.LIKELIHOODS.values()},
    **{
        f"losses.{function.__name__}": partial(
            adversarial, function, *LOGITS[: 1 + (len(function.__annotations__) > 2)]
        )
        for function in (
            losses.hinge_discriminator,
            losses.hinge_generator,
            losses.least_squares_discriminator,
            losses.least_squares_generator,
            losses.minimax_generator,
            losses.non_saturating_discriminator,
            losses.non_saturating_generator,
            losses.relativistic_discriminator,
            losses.relativistic_generator,
            losses.wasserstein_discriminator,
            losses.wasserstein_generator,
        )
    },
    **{
        f"losses.{function.__name__}": partial(penalty, function)
        for function in (losses.dragan_penalty, losses.r1_penalty, losses.r2_penalty, losses.wgan_gp_penalty)
    },
    "losses.feature_matching": partial(adversarial, losses.feature_matching, *ROWS),
    "losses.semi_supervised_discriminator": semi_supervised,
    "losses.HistoricalAverage": historical,
    "nn.color_mask": lambda: genfast.nn.color_mask(6, 3, 3, "B"),
    "nn.VirtualBatchNorm2d": partial(layer, "ReferenceBatch"),
    "models.load": lambda: models.load(SHIPPED / "pixelrnn-mnist").state_dict(),
    "random.inverse_cdf": lambda: random.inverse_cdf(normal(5, 4), random.uniform(0, integers(5, below=9), 0)),
    "random.permutation": lambda: random.permutation(9, 1),
    "random.philox4x32": lambda: random.philox4x32((1, 2, integers(4, below=9), 0), (3, 4)),
    "random.uniform": lambda: (random.uniform(1, np.arange(4), 2), random.uniform(1, integers(4, below=9), 2)),
    "data.binarize": lambda: data.binarize(np.arange(16, dtype=np.uint8).reshape(1, 4, 4)),
    "data.edge_map": lambda: data.edge_map(levels(2, 3, 8, 8)),
    "data.image_data": lambda: data.image_data(np.arange(16).reshape(1, 4, 4), 16, "x", labels=[1]),
    "data.load": lambda: data.load("digits", split="test"),
    "data.load_digits": lambda: data.load_digits("valid"),
    "data.load_folder": lambda: read_back(pictures, lambda path: replace(data.load_folder(path, "train"), name="x")),
    "data.load_npz": lambda: read_back(arrays, lambda path: replace(data.load_npz(path, "train"), name="x")),
    "data.load_photos": lambda: data.load_photos("valid", size=32).images[:4],
    "data.read_idx": lambda: read_back(
        lambda path: path.write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3))), data.read_idx
    ),
    "data.read_npz": lambda: read_back(arrays, data.read_npz),
    "data.GaussianMixture": gaussian_mixture,
    "genfast.Engine": engine,
    "tasks.BitFlipNoise": lambda: noises(genfast.BitFlipNoise(0.1), 4),
    "tasks.GaussianNoise": lambda: noises(genfast.GaussianNoise(0.3), 256),
    "tasks.check": checks,
    "tasks.clean": lambda: tasks.clean(model("vae"), *noisy("vae"), method="mean", samples=1, steps=2),
    "tasks.compress": lambda: [every(kind, tasks.compress) for kind in ("vq-vae", "pixelcnn")],
    "tasks.file_info": lambda: tasks.file_info(every("vq-vae", tasks.compress)),
    "tasks.decompress": lambda: tasks.decompress(every("vq-vae", tasks.compress), model("vq-vae")),
    "tasks.denoise": lambda: tasks.denoise(model("pixelcnn"), *noisy("pixelcnn"), method="map", steps=4),
    "tasks.embed": lambda: every("vae", partial(tasks.embed, log_variance=True)),
    "tasks.impute": lambda: tasks.impute(model("vae"), images_of("vae"), left(model("vae")), steps=4),
    "tasks.inpaint": lambda: tasks.inpaint(model("pixelcnn"), images_of("pixelcnn"), ~left(model("pixelcnn")), steps=4),
    "tasks.interpolate": lambda: tasks.interpolate(model("vae"), normal(2, 3), normal(2, 3, seed=1), 3),
    "tasks.linear": lambda: tasks.linear(normal(2, 3), normal(2, 3, seed=1), normal(4)),
    "tasks.spherical": lambda: tasks.spherical(normal(2, 3), normal(2, 3, seed=1), normal(4)),
    "tasks.log_prob": lambda: every("gated-pixelcnn", tasks.log_prob),
    "tasks.neighbours": lambda: tasks.neighbours(*vectors(), 2),
    "tasks.reconstruct": lambda: (every("vae", tasks.reconstruct), every("vq-vae", tasks.reconstruct)),
    "tasks.sample": lambda: tasks.sample(model("pixelrnn"), 3, temperature=0.7),
    "tasks.sample of another model": lambda: tasks.sample(plain_causal(), 2, **OF_ANOTHER, input_range=(-1, 1)),
    "tasks.sample of another model by full forwards": lambda: tasks.sample(
        plain_causal(), 2, **OF_ANOTHER, input_range=(-1, 1), backend="full_forward"
    ),
    "tasks.sample of codes": lambda: tasks.sample(Codes(), 2, **OF_ANOTHER, **OF_CODES, labels=1),
    "tasks.log_prob of codes": lambda: [
        tasks.log_prob(
            Codes(), levels(2, 1, 3, 3, levels=8), 1, **OF_ANOTHER, **OF_CODES, head="probabilities", backend=backend
        )
        for backend in ("cpp", "full_forward")
    ],
    "tasks.sample_shards": lambda: files(shards, "samples-00000.npz", "samples-00001.npz"),
    "tasks.save_embedding": lambda: files(embedding, "z.npz"),
    "tasks.stream": lambda: list(tasks.stream(model("pixelcnn"), 3, batch_size=2)),
    "tasks.translate": lambda: tasks.translate(model("pix2pix"), levels(1, 1, 16, 32)),
    "tasks.translate_folder": lambda: files(translated_folder, "00.png", "01.png"),
    "tasks.traverse": lambda: every("vae", tasks.traverse),
    "metrics.Classifier": lambda: (
        classifier()(levels(2, 1, 8, 8, levels=8)),
        classifier().predict(levels(2, 1, 8, 8, levels=8)),
    ),
    "metrics.EquilibriumMonitor": monitor,
    "metrics.active_units": lambda: metrics.active_units(model("vae"), [images_of("vae")]),
    "metrics.bits_per_dim": lambda: metrics.bits_per_dim(normal(3), 4),
    "metrics.calibration": lambda: metrics.calibration(*logits()),
    "metrics.classical_sizes": lambda: metrics.classical_sizes(levels(3, 1, 8, 8)),
    "metrics.codebook_use": lambda: metrics.codebook_use(integers(20, below=8), 8),
    "metrics.density_coverage": lambda: metrics.density_coverage(*vectors()),
    "metrics.discriminator_accuracy": accuracy,
    "metrics.duality_gap": lambda: gap(model("dcgan")),
    "metrics.difference_interval": lambda: metrics.difference_interval(*logits_of_one_size()),
    "metrics.find_faults": lambda: metrics.find_faults(
        levels(20, 1, 8, 8), levels(30, 1, 8, 8, seed=1), levels(20, 1, 8, 8, seed=2), 256
    ),
    "metrics.frechet_distance": lambda: metrics.frechet_distance(*vectors()),
    "metrics.gzip_nats": lambda: metrics.gzip_nats(levels(3, 1, 8, 8), 256),
    "metrics.image_energies": lambda: metrics.image_energies(levels(3, 1, 8, 8), 256),
    "metrics.imputation_error": lambda: every(
        "vae", lambda made, images: metrics.imputation_error(1.5 * images.float(), images, left(made), 256)
    ),
    "metrics.inception_score": lambda: metrics.inception_score(normal(20, 3).softmax(1), 2),
    "metrics.independent_pixel_nll": lambda: metrics.independent_pixel_nll(
        levels(9, 1, 4, 4, levels=4), levels(5, 1, 4, 4, levels=4, seed=1), 4
    ),
    "metrics.kernel_distance": lambda: metrics.kernel_distance(*vectors(), subsets=3, size=5),
    "metrics.latent_nll": lambda: metrics.latent_nll(model("vae"), [images_of("vae")], samples=3),
    "metrics.linear_probe": lambda: metrics.linear_probe(*2 * (vectors()[0], integers(12, below=2))),
    "metrics.linear_probe_hits": lambda: metrics.linear_probe_hits(*2 * (vectors()[0], integers(12, below=2))),
    "metrics.looks_real": lambda: metrics.looks_real(*vectors()),
    "metrics.memorisation": lambda: metrics.memorisation(
        levels(5, 1, 8, 8), levels(9, 1, 8, 8, seed=1), levels(5, 1, 8, 8, seed=2)
    ),
    "metrics.mmd": lambda: metrics.mmd(*vectors()),
    "metrics.mode_coverage": lambda: metrics.mode_coverage(integers(9, below=3), [0.5, 0.3, 0.2], 3),
    "metrics.neighbour_accuracy": lambda: metrics.neighbour_accuracy(*2 * (vectors()[0], integers(12, below=2))),
    "metrics.neighbour_ratios": lambda: metrics.neighbour_ratios(levels(5, 1, 8, 8), levels(9, 1, 8, 8, seed=1)),
    "metrics.png_bytes": lambda: metrics.png_bytes(np.arange(16, dtype=np.uint8).reshape(4, 4, 1)),
    "metrics.png_nats": lambda: metrics.png_nats(levels(3, 1, 8, 8), 256),
    "metrics.precision_recall": lambda: metrics.precision_recall(*vectors()),
    "metrics.psnr": lambda: metrics.psnr(levels(2, 1, 4, 4), levels(2, 1, 4, 4, seed=1), 256),
    "metrics.rate_distortion": lambda: every("vq-vae", metrics.rate_distortion),
    "metrics.ratio_interval": lambda: metrics.ratio_interval(normal(9).exp(), normal(7, seed=1).exp()),
    "metrics.reliability": lambda: metrics.reliability(*(part.sigmoid() for part in logits())),
    "metrics.sharpness": lambda: metrics.sharpness(levels(5, 1, 8, 8), levels(6, 1, 8, 8, seed=1), 256),
    "metrics.train_classifier": trained_classifier,
    "metrics.translation_errors": lambda: metrics.translation_errors(model("pix2pix"), *2 * (pairs(),)),
    "metrics.verdict": lambda: metrics.verdict(accuracy()),
    "metrics.wilson_interval": lambda: metrics.wilson_interval(0.3, 9),
    **bench_reports.CALLS,
    **public_compat.CALLS,
    **public_reports.CALLS,
    "train.fit": lambda: trained("pixelcnn", train.fit, short(train.TrainConfig)),
    "train.fit_adversarial": lambda: trained("dcgan", train.fit_adversarial, short(train.AdversarialConfig)),
    "train.mean_nats": lambda: train.mean_nats(model("pixelcnn"), [images_of("pixelcnn")]),
}
