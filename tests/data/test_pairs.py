"""Pairs of images: the examples are real pairs, and a folder that does not pair up says which files are to blame."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.signal import convolve2d

from genfast.data import PairData, edge_map, load, load_digits, load_pairs, load_photos

SPLITS = ("train", "valid", "test")
RANDOM = np.random.RandomState(0)


def one_error(kind, *fragments):
    """A context that expects an error with all fragments in a message of one line."""
    return pytest.raises(kind, match="(?s)^(?!.*\n)" + "".join(f"(?=.*{fragment})" for fragment in fragments))


# digit-outlines


def test_outlines_are_the_pixels_around_the_ink_of_real_digits():
    parts = [load("digit-outlines", split=split) for split in SPLITS]
    assert [len(part) for part in parts] == [1297, 200, 300]
    for part, split in zip(parts, SPLITS, strict=True):
        assert part.source.shape == part.target.shape == (len(part), 1, 32, 32) and part.levels == 256
        digits = load_digits(split).images.numpy()[:, 0] / 15
        cells = part.target.numpy().reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255
        assert np.corrcoef(cells.ravel(), digits.ravel())[0, 1] > 0.98, "the same digits in the same order"
        ink = part.target[:, 0].numpy() > 127
        around = binary_dilation(ink, np.ones((1, 3, 3), bool)) & ~ink
        assert np.array_equal(part.source[:, 0].numpy(), 255 * around)
    assert load("digit-outlines", split="test", size=16).target.shape == (300, 1, 16, 16)


# photo-edges


def test_photo_edges_are_those_of_real_patches():
    train = load("photo-edges")
    half, mirrored = train.target.chunk(2)
    assert torch.equal(half.flip(3), mirrored) and torch.equal(train.source[-5:], edge_map(train.target[-5:]))
    assert train.source.shape == (1250, 1, 64, 64)
    for split, count in (("valid", 19), ("test", 41)):
        pairs, photos = load("photo-edges", split=split), load_photos(split, size=64).images
        shown = (edge_map(photos) >= 32).float().mean((1, 2, 3)) >= 0.02
        targets, known = (set(map(bytes, part.flatten(1).numpy())) for part in (pairs.target, photos))
        with_edges = set(map(bytes, photos[shown].flatten(1).numpy()))
        assert with_edges <= targets and not (known - with_edges) & targets, "those without edges are left out"
        assert torch.equal(pairs.source[5:6], edge_map(pairs.target[5:6])), "of one patch as of all"
        assert pairs.images is pairs.target and pairs.source.shape == (count, 1, 64, 64)
    coarse = load("photo-edges", split="test", levels=4)
    assert torch.equal(coarse.target, pairs.target // 64) and torch.equal(coarse.source, pairs.source // 64)


def test_no_pixel_of_a_photo_is_in_two_splits(monkeypatch):
    numbers = np.arange(2 * 427 * 640).reshape(2, 427, 640)
    photos = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1).astype(np.uint8)
    monkeypatch.setattr("genfast.data.photos._photos", lambda: list(photos))
    monkeypatch.setattr("genfast.data.pairs.LEAST_EDGES", 0.0)
    seen = []
    for split in SPLITS:
        red, green, blue = load("photo-edges", split=split, size=32).target[::3].to(torch.int64).unbind(1)
        seen.append((red << 16 | green << 8 | blue).unique())
    assert sum(map(len, seen)) == len(torch.cat(seen).unique()) and min(map(len, seen)) > 30_000


def plain_edges(image):
    """`edge_map` of one image [C, H, W], pixel by pixel."""
    grey = np.pad(image.astype(np.float64).mean(0), 2, mode="edge")
    bell, ramp = np.array([1, 2, 1]), np.array([1, 0, -1])
    grey = convolve2d(grey, np.outer(bell, bell) / 16, mode="valid")
    across = convolve2d(grey, np.outer(bell, ramp) / 8, mode="valid")
    down = convolve2d(grey, np.outer(ramp, bell) / 8, mode="valid")
    length, angle = np.hypot(across, down), np.degrees(np.arctan2(down, across)) % 180
    around, edges = np.pad(length, 1), np.zeros_like(length)
    for i, j in np.ndindex(*length.shape):
        step = [(0, 1), (1, 1), (1, 0), (1, -1), (0, 1)][int((angle[i, j] + 22.5) // 45)]
        ahead, behind = around[1 + i + step[0], 1 + j + step[1]], around[1 + i - step[0], 1 + j - step[1]]
        if length[i, j] >= ahead and length[i, j] > behind:
            edges[i, j] = 16 * np.sqrt(length[i, j])
    return np.clip(edges, 0, 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_pixel_by_pixel(channels):
    images = RANDOM.randint(0, 256, (3, channels, 13, 9), dtype=np.uint8)
    edges = edge_map(torch.from_numpy(images)).numpy()[:, 0]
    expected = np.stack([plain_edges(image) for image in images])
    # A tie between neighbours, or an angle between two directions, may be broken either way by rounding.
    assert np.mean(np.abs(edges - expected) > 0.51) < 0.01 and (expected > 0).mean() > 0.1


def test_the_edge_of_a_step_is_one_line():
    """Between 50 and 150 the blurred step rises by 25, 50 and 25: Sobel's central difference is 37.5 at both sides."""
    image = torch.full((1, 1, 8, 10), 50, dtype=torch.uint8)
    image[..., 6:] = 150
    expected = torch.zeros(8, 10, dtype=torch.uint8)
    expected[:, 5] = round(16 * 37.5**0.5)
    assert torch.equal(edge_map(image)[0, 0], expected)
    assert torch.equal(edge_map(image.mT)[0, 0], expected.T)
    assert not edge_map(torch.full((1, 3, 5, 5), 200, dtype=torch.uint8)).any(), "and none at the border"


# folders


def save(path, size=(9, 7), mode="RGB", value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    array = RANDOM.randint(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """20 pairs: number i has the brightness i in A and 200 + i in B."""
    for i in range(20):
        save(tmp_path / "A" / f"x{i % 3}" / f"{i}.png", mode="L", value=i)
        save(tmp_path / "B" / f"x{i % 3}" / (f"{i}.bmp" if i % 2 else f"{i}.png"), value=200 + i)
    return tmp_path


def test_partners_have_the_same_name(folder):
    parts = [load(f"pairs:{folder}", split=split) for split in SPLITS]
    assert [len(part) for part in parts] == [16, 2, 2] and all(part.levels == 256 for part in parts)
    for part in parts:
        assert part.source.shape[1:] == (1, 7, 9) and part.target.shape[1:] == (3, 7, 9)
        assert torch.equal(part.source[:, 0, 0, 0] + 200, part.target[:, 2, 6, 8])
    numbers = sorted(torch.cat([part.source[:, 0, 0, 0] for part in parts]).tolist())
    assert numbers == list(range(20)), "each pair is in one split"
    small = load(f"pairs:{folder}", size=4, levels=16)
    assert small.target.shape == (16, 3, 4, 4) and torch.equal(small.target, parts[0].target[:, :, :4, :4] // 16)


def test_split_folders(folder):
    (folder / "train").mkdir()
    for side in "AB":
        (folder / side).rename(folder / "train" / side)
    with one_error(LookupError, "expected a subfolder 'valid'; got only train"):
        load(f"pairs:{folder}", split="valid")
    for number in (1, 2):
        save(folder / "valid" / "A" / f"{number}.png", mode="L", value=number)
        save(folder / "valid" / "B" / f"{number}.jpg", mode="L", value=30 + number)
    assert len(load(f"pairs:{folder}", split="train")) == 20
    valid = load(f"pairs:{folder}", split="valid")
    assert valid.source[:, 0, 0, 0].tolist() == [1, 2] and valid.target.shape == (2, 3, 7, 9), "colours in train"
    save(folder / "valid" / "A" / "3.png")
    save(folder / "train" / "B" / "4.png")
    with one_error(ValueError, "got 2 without a partner", "valid/A/3.png", "train/B/4.png"):
        load(f"pairs:{folder}", split="train")


def test_every_file_without_a_partner_is_named(folder):
    alone = [save(folder / "A" / name) for name in ("a.png", "x0/b.png")] + [save(folder / "B" / "c.jpg")]
    with one_error(ValueError, "got 3 without a partner: ", *(str(path.relative_to(folder)) for path in alone)):
        load(f"pairs:{folder}")
    save(folder / "A" / "a.bmp")
    with one_error(ValueError, "expected one file of a name in A and in B", "A/a.bmp", "A/a.png"):
        load(f"pairs:{folder}")


def test_every_pair_of_two_sizes_is_named(folder):
    save(folder / "A" / "x0" / "3.png", size=(8, 7), mode="L")
    save(folder / "B" / "x1" / "4.png", size=(9, 6))
    for size in (None, 4):
        with one_error(ValueError, r"A/x0/3.png 8x7, B/x0/3.bmp 9x7", r"A/x1/4.png 9x7, B/x1/4.png 9x6"):
            load(f"pairs:{folder}", size=size)


def test_pairs_of_different_sizes_need_a_size(folder):
    for side, ending in (("A", "png"), ("B", "bmp")):
        save(folder / side / "x0" / f"3.{ending}", size=(20, 10), mode="L" if side == "A" else "RGB")
    with one_error(ValueError, "3.png: expected one size, 9x7 as in .*, or --size; got 20x10"):
        load(f"pairs:{folder}")
    assert load(f"pairs:{folder}", size=6).source.shape == (16, 1, 6, 6)


def test_every_broken_file_is_named(folder):
    whole = (folder / "B" / "x0" / "3.bmp").read_bytes()
    (folder / "B" / "x0" / "3.bmp").write_bytes(whole[: len(whole) // 2])
    (folder / "A" / "x1" / "4.png").write_bytes(b"no image")
    for size in (None, 4):
        with one_error(ValueError, "got 2 that are not: ", r"B/x0/3.bmp \(", r"A/x1/4.png \("):
            load(f"pairs:{folder}", size=size)


def test_folders_that_hold_no_pairs(tmp_path):
    with one_error(FileNotFoundError, "nowhere: expected a folder with the subfolders A and B; got none"):
        load(f"pairs:{tmp_path}/nowhere")
    (tmp_path / "A").mkdir()
    with one_error(FileNotFoundError, r"expected the subfolders A \(source\) and B \(target\); got no B"):
        load(f"pairs:{tmp_path}")
    (tmp_path / "B").mkdir()
    with one_error(ValueError, "expected image files", "in A and B; got none"):
        load(f"pairs:{tmp_path}")
    for side in "AB":
        save(tmp_path / side / "1.png")
    assert len(load(f"pairs:{tmp_path}")) == 1
    with one_error(
        ValueError, "expected at least 10 images, so that one in 10 is for 'valid', or subfolders train.*; got 1"
    ):
        load(f"pairs:{tmp_path}", split="valid")


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("photo-edges", {"size": 65}, "photos: expected a size from 1 to 64; got 65"),
        ("digit-outlines", {"size": 7}, "digit-outlines: expected a size of at least 8 pixels; got 7"),
        ("digit-outlines", {"levels": 1}, "digit-outlines: expected 2 to 256 levels; got 1"),
        ("photos", {}, "pairs: expected digit-outlines, photo-edges or pairs:FOLDER; got photos"),
    ],
)
def test_options_that_no_pairs_can_follow(name, options, fragment):
    with one_error(ValueError, fragment):
        load_pairs(name, **options)


def test_tensors_that_are_no_pairs():
    grey, colour = torch.zeros(4, 1, 5, 6, dtype=torch.uint8), torch.zeros(4, 3, 5, 6, dtype=torch.uint8)
    assert len(PairData(grey, colour, 2, "mine")) == 4
    for source, target, fragment in (
        (grey[:3], colour, r"same N, H and W; got \(3, 1, 5, 6\) and \(4, 3, 5, 6\)"),
        (grey, colour[..., :5], r"same N, H and W"),
        (grey[:0], colour[:0], "source must have shape .* not empty"),
        (grey, colour[:, :2], r"target must have shape .* C 1 or 3.*; got \(4, 2, 5, 6\)"),
        (grey + 2, colour, "mine: expected whole numbers from 0 to 1; got 2"),
    ):
        with one_error(ValueError, fragment):
            PairData(source, target, 2, "mine")
    with one_error(TypeError, "source must hold levels as torch.uint8; got torch.float32"):
        PairData(grey.float(), colour, 2, "mine")
