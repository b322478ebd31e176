"""Coding by the C++ engine: the shares of levels are the model's, the words are those of exact integers, and back."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from engine.strangers import NATIVE
from support.anyone import alive, quietly
from support.conditionals import WHOLE, assert_shares, in_order, of_parameters
from support.many_levels import Causal
from support.pixel_programs import CASES, images_of, labels_of
from support.range_coder import decode, encode

import genfast
from genfast.engine import cpp
from genfast.engine.coding import Coder, Layout, checksum, code_symbols, decode_symbols
from genfast.engine.compiled import Compiled
from genfast.engine.engine import Engine
from genfast.engine.request import SampleRequest
from genfast.likelihoods import Bernoulli, Categorical, LogisticMixture
from genfast.models import MODELS, build

NAN, INF = math.nan, math.inf


def coder_of(program):
    return Coder(Compiled(program, program.spec))


def every(channels, levels):
    values = list(itertools.product(range(levels), repeat=channels))
    dtype = torch.uint8 if levels <= 256 else torch.int32
    return torch.tensor(values, dtype=dtype).view(-1, channels, 1, 1)


def there_and_back(coder, images, labels=None, block=7, tile=None):
    """The streams of images, from which each block comes back, all together and alone."""
    layout = Layout(block, tile or coder.tile(block))
    streams = list(coder.encode(images, labels, layout))
    assert len(streams) == -(-len(images) // block)
    parts = list(coder.decode(streams, len(images), labels, layout))
    assert torch.equal(torch.cat(parts), images)
    for number in {0, len(streams) // 2, len(streams) - 1}:
        part, rows = images[number * block :][:block], None if labels is None else labels[number * block :][:block]
        (alone,) = coder.decode([streams[number]], len(part), rows, layout, number * block)
        assert torch.equal(alone, part)
    return streams


# Shares of single values, for all levels.


def logits(kind, levels):
    generator = torch.Generator().manual_seed(levels)
    rows = torch.randn(levels, generator=generator) * {"flat": 0.01, "usual": 3, "sharp": 300, "huge": 1e38}.get(
        kind, 1
    )
    for place, value in {
        "none": [(slice(0, -1), -INF)],
        "minus infinity": [(slice(0, None, 2), -INF)],
        "all minus infinity": [(slice(None), -INF)],
        "infinity": [(levels // 2, INF)],
        "NaN first": [(0, NAN)],
        "NaN last": [(-1, NAN)],
        "NaN": [(levels // 2, NAN)],
        "all": [(slice(None), NAN)],
    }.get(kind, []):
        rows[place] = value
    return rows


FINITE = ("flat", "usual", "sharp", "none", "minus infinity")
KINDS = (*FINITE, "huge", "all minus infinity", "infinity", "NaN first", "NaN last", "NaN", "all")


def assert_partition(intervals):
    """Of values in the order of their levels: the parts of one follow those of the one before, and all have some."""
    left, size = intervals[..., 0].astype(np.int64), intervals[..., 1].astype(np.int64)
    assert size.min() >= 1 and (left[0] == 0).all()
    assert np.array_equal(left[1:], (left + size)[:-1]) and (left + size)[-1].tolist() == WHOLE


@pytest.mark.parametrize("levels", [2, 3, 64, 256, 257, 512, 5000])
def test_every_level_of_a_categorical_value_has_its_share(levels):
    for kind in KINDS if levels < 5000 else ("usual", "minus infinity", "NaN"):
        likelihood, parameters = Categorical(1, levels), logits(kind, levels)
        coder, images = coder_of(of_parameters(likelihood, parameters)), every(1, levels)
        intervals = coder.intervals(images)
        assert_partition(intervals[:, 0, 0, 0])
        some = slice(None, None, max(1, levels // 100))
        if kind in FINITE:
            assert_shares(intervals[some], likelihood, parameters[None, :, None, None], images[some])
        there_and_back(coder, images[some], block=64)


def test_the_most_levels():
    likelihood, parameters = Categorical(1, 65536), logits("usual", 65536)
    coder, images = coder_of(of_parameters(likelihood, parameters)), every(1, 65536)[::1285]
    assert_shares(coder.intervals(images), likelihood, parameters[None, :, None, None], images)
    there_and_back(coder, images, block=64)


@pytest.mark.parametrize("logit", [0.0, 1.5, -3.0, 40.0, -40.0, 800.0, -800.0, 3e38, INF, -INF, NAN])
def test_bits(logit):
    likelihood, images = Bernoulli(1, 2), every(1, 2)
    coder = coder_of(of_parameters(likelihood, torch.tensor([logit])))
    intervals = coder.intervals(images)
    assert_partition(intervals[:, 0, 0, 0])
    if not math.isnan(logit):
        of_zero = 1 / (1 + math.exp(logit)) if abs(logit) < 700 else float(logit < 0)
        assert -1.001 < intervals[0, 0, 0, 0, 1] - (2 + (WHOLE - 4) * of_zero) < 1e-3
    there_and_back(coder, images, block=1)


def mixture(kind, channels, size=3, seed=0):
    """Parameters of one pixel: logits, means, log-scales, coefficients."""
    rows = torch.randn(3 if channels == 1 else 10, size, generator=torch.Generator().manual_seed(seed))
    means, scales, coefficients = (
        rows[1 : 1 + channels],
        rows[1 + channels : 1 + 2 * channels],
        rows[1 + 2 * channels :],
    )
    means *= 0.5
    scales -= 2
    match kind:
        case "narrow":
            scales -= 20
        case "wide":
            scales += 30
        case "far":
            means *= 30
        case "all on one side":
            means.copy_(means.abs() * 40 + 3)
        case "coupled":
            coefficients *= 30
        case "huge":
            rows *= 1e37
        case "one component":
            rows[0] = torch.tensor([0.0, -INF, -INF])
        case "infinite weight":
            rows[0, 1] = INF
        case "infinite means":
            means[:, 0], means[:, 1] = INF, -INF
        case "infinite scales":
            scales[:, 0], scales[:, 1] = INF, -INF
        case "infinite coefficients":
            coefficients[:, ::2] = -INF
        case "NaN weight" | "NaN mean" | "NaN scale" | "NaN coefficient":
            {"weight": rows[:1], "mean": means, "scale": scales, "coefficient": coefficients}[kind[4:]][:, 1] = NAN
    return rows.flatten()


CERTAIN = ("usual", "narrow", "wide", "far", "all on one side", "coupled", "one component")
MIXTURES = (*CERTAIN, "huge", "infinite weight", "infinite means", "infinite scales", "infinite coefficients")
MIXTURES += ("NaN weight", "NaN mean", "NaN scale", "NaN coefficient")


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("channels, levels", [(1, 256), (1, 32), (1, 2), (3, 9)])
def test_every_level_of_a_mixture_has_its_share(kind, channels, levels):
    likelihood, parameters = LogisticMixture(channels, levels, 3), mixture(kind, channels)
    coder, images = coder_of(of_parameters(likelihood, parameters)), every(channels, levels)
    intervals = coder.intervals(images)
    for c in range(channels):
        tree = intervals[:, c, 0, 0].reshape(levels**c, levels, -1, 2)
        assert (tree == tree[:, :, :1]).all(), "the level of a later channel matters"
        for given in tree:
            assert_partition(given[:, 0])
    if kind in ("usual", "wide", "one component") or kind in CERTAIN and channels == 1:
        assert_shares(intervals, likelihood, parameters[None, :, None, None], images)
    there_and_back(coder, images, block=256)


@pytest.mark.parametrize("kind", ["usual", "narrow", "far", "all on one side", "coupled"])
def test_colours_of_8_bits(kind):
    """Each channel by those before; where these are next to impossible, float64 knows no better."""
    likelihood, parameters = LogisticMixture(3, 256, 3), mixture(kind, 3)
    coder = coder_of(of_parameters(likelihood, parameters))
    images = cpp.run(coder.compiled.program, SampleRequest(300, seed=1)).images
    images[::3] = torch.randint(256, images[::3].shape, generator=torch.Generator().manual_seed(1))
    intervals = coder.intervals(images)
    likely = (intervals[:, :2, 0, 0, 1] > 300).all(1)
    assert likely.sum() > 50
    assert_shares(intervals[likely], likelihood, parameters[None, :, None, None], images[likely])
    there_and_back(coder, images, block=64)


# Whole models.

KINDS_OF_MODELS = [
    ("pixelcnn", {"height": 5, "width": 4, "levels": 2, "hidden": 4, "layers": 1, "head": 4}),
    ("pixelcnn", {"channels": 3, "height": 4, "width": 3, "levels": 256, "hidden": 6, "layers": 1, "head": 6}),
    ("gated-pixelcnn", {"height": 4, "width": 5, "levels": 5, "hidden": 4, "layers": 2, "head": 4, "classes": 3}),
    ("gated-pixelcnn", {"channels": 2, "height": 3, "width": 4, "levels": 7, "hidden": 4, "layers": 1, "head": 4}),
    ("pixelsnail", {"height": 4, "width": 5, "levels": 5, "hidden": 4, "blocks": 1, "depth": 3, "value": 2, "head": 4}),
    ("char-rnn", {"width": 12, "levels": 7, "hidden": 4}),
    ("wavenet", {"width": 12, "levels": 9, "hidden": 4, "layers": 3, "cycle": 2, "head": 4}),
    ("pixelcnn++", {"height": 8, "width": 8, "levels": 256, "filters": 4, "blocks": 1, "resolutions": 2}),
    ("pixelcnn++", {"channels": 3, "height": 4, "width": 4, "levels": 32, "filters": 4, "blocks": 1, "classes": 2}),
    ("pixelrnn", {"height": 4, "width": 5, "levels": 4, "hidden": 4, "layers": 2, "head": 4}),
    ("pixelrnn", {"channels": 3, "height": 3, "width": 4, "hidden": 6, "layers": 1, "head": 6, "virtual_column": True}),
]


def of_kind(kind, options):
    """An engine of a model with weights that make its conditionals far from flat."""
    return Engine(alive(build(kind, **options)), backend="cpp")


def test_every_autoregressive_model_is_among_them():
    from genfast.models.autoregressive import Autoregressive

    assert {kind for kind, _ in KINDS_OF_MODELS} == {n for n, (c, _) in MODELS.items() if issubclass(c, Autoregressive)}


def labels_for(spec, n):
    return torch.arange(n, dtype=torch.int64) * 5 % 7 % spec.classes if spec.classes else None


@pytest.fixture(scope="module", params=KINDS_OF_MODELS, ids=lambda p: f"{p[0]} {p[1].get('channels', 1)}")
def drawn(request):
    """(engine, coder, images that it drew with levels that it would not, labels)."""
    engine = of_kind(*request.param)
    spec, labels = engine.network.spec, labels_for(engine.network.spec, 70)
    images = engine.run(70, seed=1, labels=labels).images
    images[3::5] = torch.randint(spec.levels, images[3::5].shape, generator=torch.Generator().manual_seed(2))
    return engine, Coder.of(engine, "compress"), images, labels


def test_a_model_and_back(drawn):
    """For any block and number of threads, also where the last block is smaller; and none of no images."""
    _, coder, images, labels = drawn
    streams = {}
    for threads, block in ((1, 1), (1, 7), (2, 7), (1, 64), (2, 256), (1, 256)):
        torch.set_num_threads(threads)
        got = there_and_back(coder, images, labels, block)
        assert got == streams.setdefault(block, got)
    layout = Layout(7, 3)
    assert list(coder.encode(images[:0], None if labels is None else labels[:0], layout)) == []
    assert list(coder.decode([], 0, None if labels is None else labels[:0], layout)) == []


def test_the_rate_is_that_of_the_model(drawn):
    engine, coder, images, labels = drawn
    images, labels = (
        images[images.new_tensor(range(70)) % 5 != 3],
        None if labels is None else labels[torch.arange(70) % 5 != 3],
    )
    for block in (7, 64):
        streams = there_and_back(coder, images, labels, block)
        size, bits = 8 * sum(map(len, streams)), -engine.log_prob(images, labels).sum().item() / math.log(2)
        assert -8 * len(streams) < size - bits < 0.001 * bits + 16 * len(streams), (size, bits)


def assert_shares_of(engine, images, labels=None):
    """Intervals are those of the parameters that the engine gives for images."""
    known = torch.ones(images.shape, dtype=torch.bool)
    network = engine.network
    drawn = engine.run(len(images), seed=0, labels=labels, given=images, known=known, want=("parameters",))
    assert_shares(Coder.of(engine, "compress").intervals(images, labels), network.likelihood, drawn.parameters, images)


def test_shares_are_those_of_the_parameters(drawn):
    engine, _, images, labels = drawn
    if not engine.network.likelihood.couples_channels:
        assert_shares_of(engine, images, labels)


def assert_streams(coder, images, labels, block, tile):
    intervals = coder.intervals(images, labels)
    for number, stream in enumerate(coder.encode(images, labels, Layout(block, tile))):
        assert stream == encode(in_order(intervals[number * block :][:block], coder.compiled.program, tile))


def test_streams_are_those_of_exact_integers(drawn):
    _, coder, images, labels = drawn
    for block, tile in ((7, 3), (64, 17), (3, 2), (1, 1)):  # one or two side by side: whole rows apart
        assert_streams(coder, images[:30], None if labels is None else labels[:30], block, tile)


@pytest.mark.parametrize("case", [case for case in CASES if not case.program.fields], ids=str)
def test_programs(case):
    coder, images, labels = coder_of(case.program), images_of(case.program, 20), labels_of(case.program, 20)
    there_and_back(coder, images, labels)
    assert_streams(coder, images, labels, 20, 12)


def test_many_levels():
    for levels in (512, 5000):
        engine = Engine(Causal(levels).eval(), shape=(1, 3, 3), levels=levels, input_range=(0, 1))
        images = torch.randint(levels, (9, 1, 3, 3), generator=torch.Generator().manual_seed(1)).int()
        assert_shares_of(engine, images)
        coder = Coder.of(engine, "compress")
        assert_streams(coder, images, None, 4, 3)
        size = 8 * sum(map(len, there_and_back(coder, images)))
        images = engine.run(40, seed=2).images
        size, bits = 8 * len(there_and_back(coder, images, block=64)[0]), -engine.log_prob(images).sum() / math.log(2)
        # Each level has two parts of 2^24 whatever its probability.
        assert -8 < size - bits < 16 + images.numel() * 2 * levels / WHOLE / math.log(2) * 1.1


OF_STRANGERS = ("Made", "MadeInAnyOrder", "OneRow", "LstmOverPixels")


CODED = [s for s in NATIVE if s.name in OF_STRANGERS or s.side(s.shape, 2)]


@pytest.mark.parametrize("stranger", CODED, ids=lambda stranger: stranger.name)
def test_foreign_models(stranger):
    """Values in one row or in any order; labels and conditions."""
    side = stranger.side(stranger.shape, 20)
    options = stranger.options() | {k: v for k, v in side.items() if k == "condition"}
    engine, labels = quietly(Engine, stranger.build(), backend="cpp", **options), side.get("labels")
    images = engine.run(20, seed=1, labels=labels).images
    coder = Coder.of(engine, "compress")
    streams = [there_and_back(coder, images, labels, block) for block in (1, 7, 64)]
    assert_streams(coder, images, labels, 7, 4)
    size, bits = 8 * len(streams[-1][0]), -engine.log_prob(images, labels).sum().item() / math.log(2)
    assert -8 < size - bits < 0.001 * bits + 16


def test_every_geometry_is_coded():
    names = {stranger.name: stranger for stranger in NATIVE}
    found = {quietly(Engine, names[n].build(), **names[n].options()).prepared()[1].geometry for n in OF_STRANGERS}
    assert found == {"grid", "line", "point"}


# Whatever the process does otherwise.


def test_every_isa_writes_the_same(drawn):
    _, coder, images, labels = drawn
    backend = genfast.backends()["cpp"]
    expected = list(coder.encode(images, labels, Layout(64, 12)))
    try:
        for isa in backend.isas:
            genfast.set_isa(isa)
            assert there_and_back(coder, images, labels, 64, 12) == expected, isa
            assert coder._probe() == coder.probe()
    finally:
        genfast.set_isa(backend.isa)


def test_the_float_mode_of_the_caller_does_not_matter():
    """Denormal weights and activations, which a caller's flushing would make zero."""

    net = Causal(9).eval()
    with torch.no_grad():
        net.conv.weight *= 5e-39
        net.conv.bias.zero_()
        net.head.weight *= 5e37
    told = {"shape": (1, 4, 4), "levels": 9, "input_range": (0, 1)}
    coder = Coder.of(Engine(copy.deepcopy(net), **told), "compress")
    images = torch.randint(9, (20, 1, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    flat = coder.intervals(images)[..., 1]
    assert (flat[0] != flat[1]).any(), "the levels before a pixel matter"
    streams = there_and_back(coder, images)
    try:
        assert torch.set_flush_denormal(True)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            again = Coder.of(Engine(copy.deepcopy(net), **told), "compress")
            assert again.fingerprints() == coder.fingerprints() and again.probe() == coder.probe()
            assert there_and_back(again, images) == streams
    finally:
        torch.set_flush_denormal(False)


# What an attacker sends.


def test_words_that_no_encoder_wrote(drawn):
    """Any words decode to some levels or to None, and never fail otherwise."""
    _, coder, images, labels = drawn
    rng, spec = np.random.default_rng(0), coder.spec
    labels = None if labels is None else labels[:9]
    for n in range(12):
        words = rng.integers(2**32, size=int(rng.integers(0, 40)), dtype=np.uint32)
        words[rng.random(len(words)) < 0.3] = (0, 2**32 - 1)[n % 2]
        for stream in (words.tobytes(), words.tobytes()[:-1], b"\1" * 4 * (9 * spec.values + 3)):
            (some,) = coder.decode([stream], 9, labels, Layout(9, 5))
            assert some is None or int(some.max()) < spec.levels
            assert some is None or not stream.endswith(b"\0") and len(stream) <= 4 * (9 * spec.values + 2)
    layout = Layout(4, 3)
    streams = list(coder.encode(images[:8], None if labels is None else labels[:8], layout))
    for longer in (streams[0] + b"\0", streams[0] + b"\1\2\3\4" * 4):
        first, second = coder.decode([longer, streams[1]], 8, None if labels is None else labels[:8], layout)
        assert first is None and torch.equal(second, images[4:8]), "one stream is longer than its images need"


@pytest.mark.parametrize("counts", [[5], [0, 7, 0], [3, 1, 4, 1, 5, 9, 2, 6], [0, 0], [1, 2**40, 3], [1] * 300])
def test_symbols_of_one_distribution(counts):
    rng, total, share = np.random.default_rng(1), sum(counts), WHOLE - len(counts)
    lower = [0, *itertools.accumulate(counts)]
    edges = [k + below * share // max(total, 1) for k, below in enumerate(lower[:-1])] + [WHOLE]
    for n in (0, 1, 50):
        values = rng.integers(len(counts), size=n)
        stream = code_symbols(torch.from_numpy(values), torch.tensor(counts))
        assert stream == encode((edges[k], edges[k + 1] - edges[k]) for k in values)
        assert (
            decode_symbols(stream, n, torch.tensor(counts)).tolist() == values.tolist() == decode(stream, [edges] * n)
        )
        assert decode_symbols(stream + b"\0", n, torch.tensor(counts)) is None
        assert decode_symbols(stream.ljust(4 * n + 8, b"\0") + b"\1", n, torch.tensor(counts)) is None
    for stream in (b"\xff" * 40, bytes(40), rng.bytes(40)):
        decode_symbols(stream, 9, torch.tensor(counts))


def test_checksum():
    """The check value of CRC-32C, and those of RFC 3720."""
    assert checksum(b"123456789") == 0xE3069283 and checksum(b"") == 0
    assert checksum(bytes(32)) == 0x8A9136AA and checksum(b"\xff" * 32) == 0x62A8AB43
    assert checksum(np.arange(32, dtype=np.uint8)) == 0x46DD794E
    assert (
        checksum(np.arange(8, dtype=">i4"))
        == checksum(np.arange(8, dtype="<i4"))
        == checksum(np.arange(8).astype("<i4").tobytes())
    )
