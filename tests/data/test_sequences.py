"""Text and audio: symbols, windows, splits, and files that are refused."""

import wave

import numpy as np
import pytest

from genfast import data
from genfast.data.audio import inverse_mu_law, mu_law, wav_bytes
from genfast.data.text import BYTES, encode_text, symbols_of

TEXT = "".join("abcdefg"[i * i % 7] for i in range(400))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(TEXT)
    return path


def test_windows_of_a_text(text):
    train, valid, test = (data.load(f"text:{text}", split=split, size=16) for split in ("train", "valid", "test"))
    assert train.alphabet == "".join(sorted(set(TEXT))) and train.levels == len(train.alphabet)
    assert train.images.shape == (82, 1, 1, 16)  # 340 symbols, a window every 4
    assert valid.images.shape == (1, 1, 1, 16) and test.images.shape == (2, 1, 1, 16)
    assert valid.notes[0].endswith("the last 4 symbols of valid fill no window")
    for windows, start, step in ((train, 0, 4), (valid, 340, 16), (test, 360, 16)):
        for n, window in enumerate(windows.images):
            assert "".join(train.alphabet[level] for level in window.flatten()) == TEXT[start + n * step :][:16]


def test_splits_are_whole_and_apart():
    for count in (0, 1, 19, 400, 1001):
        parts = [range(count)[symbols_of(split, count)] for split in ("train", "valid", "test")]
        assert [place for part in parts for place in part] == list(range(count))
        assert len(parts[2]) == count // 10


def test_windows_of_bytes(tmp_path):
    path = tmp_path / "some.bin"
    path.write_bytes(bytes(range(256)) * 2)
    windows = data.load(f"bytes:{path}", split="test", size=51)
    assert windows.levels == 256 and windows.alphabet == BYTES
    assert windows.images.flatten().tolist() == list((bytes(range(256)) * 2)[512 - 51 :])


def test_texts_that_do_not_fit(text, tmp_path):
    with pytest.raises(ValueError, match=r"expected a window of 256 symbols in test .* got 40 of 400"):
        data.load(f"text:{text}", split="test")
    with pytest.raises(FileNotFoundError, match="expected a file"):
        data.load(f"text:{tmp_path / 'none.txt'}")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9" * 100)
    with pytest.raises(ValueError, match="expected text in UTF-8, or bytes:FILE"):
        data.load(f"text:{tmp_path / 'latin.txt'}")
    for content in ("", "a" * 400, "".join(map(chr, range(1000))), BYTES):
        (tmp_path / "other.txt").write_text(content, newline="")
        with pytest.raises(ValueError, match="expected a text of 2 to 256 different characters"):
            data.load(f"text:{tmp_path / 'other.txt'}")
    with pytest.raises(ValueError, match="expected characters of 'abc'; got 'd'"):
        encode_text("abcd", "abc")


def test_mu_law_is_inverted_but_for_its_rounding():
    levels = np.arange(256, dtype=np.uint8)
    assert (mu_law(inverse_mu_law(levels)) == levels).all()
    assert (np.diff(inverse_mu_law(levels)) > 0).all()
    x = np.linspace(-1, 1, 1001)
    assert (np.abs(inverse_mu_law(mu_law(x)) - x) <= 0.5 * np.diff(inverse_mu_law(levels)).max()).all()
    assert mu_law(np.array([-2.0, -1.0, 1.0, 2.0])).tolist() == [0, 0, 255, 255]


def write_wav(path, samples, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


@pytest.fixture
def sounds(tmp_path):
    pytest.importorskip("soundfile")
    for i in range(10):
        write_wav(tmp_path / f"{i}.wav", 3000 * np.sin(np.arange(100 + 64 * (i % 2)) / (i + 3)))
    return tmp_path


def test_windows_of_sounds(sounds):
    parts = [data.load(f"audio:{sounds}", split=split, size=64) for split in ("train", "valid", "test")]
    assert [part.rate for part in parts] == [8000] * 3 and parts[0].levels == 256
    every = data.load(f"audio:{sounds}", split="all", size=64).images
    assert sum(len(part) for part in parts) == len(every) == 5 * 1 + 5 * 2
    expected = np.rint(3000 * np.sin(np.arange(64) / 3)).astype("<i2") / 32768
    assert np.abs(every[0].flatten().numpy().astype(int) - mu_law(expected)).max() <= 1
    with pytest.raises(ValueError, match=r"expected a file of 1024 samples \(--size\); got only shorter ones"):
        data.load(f"audio:{sounds}")
    assert "5 files of fewer than 150 samples left out" in data.load(f"audio:{sounds}", split="all", size=150).notes[0]


def test_sounds_that_do_not_fit(sounds):
    soundfile = pytest.importorskip("soundfile")
    write_wav(sounds / "9.wav", np.zeros(200), rate=16000)
    with pytest.raises(ValueError, match=r"9.wav: expected 8000 samples a second, as the files before; got 16000"):
        data.load(f"audio:{sounds}", split="all", size=64)
    for split in ("train", "valid", "test"):  # whichever the file is in
        with pytest.raises(ValueError, match="9.wav: expected 8000 samples a second"):
            data.load(f"audio:{sounds}", split=split, size=64)
    soundfile.write(sounds / "9.wav", np.full(200, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="9.wav: expected finite samples"):
        data.load(f"audio:{sounds}", split="all", size=64)
    write_wav(sounds / "9.wav", np.zeros(200), channels=2)
    with pytest.raises(ValueError, match=r"9.wav: expected one channel; got 2"):
        data.load(f"audio:{sounds}", split="all", size=64)
    (sounds / "9.wav").write_bytes(b"RIFF\x00\x01\x02 no sound")
    with pytest.raises(ValueError, match=r"9.wav: expected a readable WAV or FLAC file"):
        data.load(f"audio:{sounds}", split="all", size=64)
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        data.load(f"audio:{sounds / 'none'}")
    (sounds / "empty").mkdir()
    with pytest.raises(ValueError, match="expected at least 10 .wav or .flac files"):
        data.load(f"audio:{sounds / 'empty'}")


def test_a_wav_file_is_read_back(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    levels = np.random.default_rng(0).integers(0, 256, (2, 50), dtype=np.uint8)
    (tmp_path / "x.wav").write_bytes(wav_bytes(levels, 11025))
    samples, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 11025 and samples.shape == (100,)
    np.testing.assert_allclose(samples, inverse_mu_law(levels.reshape(-1)), atol=5e-5)
