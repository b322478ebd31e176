"""What a compressed file says of itself, as a function and as a command."""

import math

import pytest
import torch

from genfast import compress, models
from genfast.tasks import file_info

torch.manual_seed(0)
SIZES = {"codes": 16, "features": 4, "hidden": 4, "layers": 1, "downsampling": 1}
MODEL = models.build("vq-vae", channels=3, height=8, width=8, levels=16, **SIZES).eval()
IMAGES = torch.randint(0, 16, (5, 3, 12, 10), dtype=torch.uint8)
FILE = compress(MODEL, IMAGES)


def test_what_a_file_of_codes_says():
    info = file_info(FILE)
    assert (info.kind, info.version, info.count, info.levels) == ("codes", 1, 5, 16)
    assert (info.channels, info.height, info.width, info.classes) == (3, 12, 10, 0)
    assert info.model == MODEL.decoder_digest().hex()
    assert info.size == len(FILE)
    assert info.bits_per_dim == 8 * len(FILE) / IMAGES.numel()
    assert math.isnan(file_info(compress(MODEL, IMAGES[:0])).bits_per_dim)
    assert file_info(memoryview(FILE)) == info


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "expected a file of genfast compress; got one that begins with b''"),
        (b"GIF89a", "begins with b'GIF8'"),
        (FILE[:20], "expected a whole file; got 20 bytes"),
        (FILE[:-1], "checksum is wrong"),
        (FILE[:4] + b"\x02" + FILE[5:], "expected version 1 of the format; got 2"),
    ],
)
def test_other_files_are_refused(data, message):
    with pytest.raises(ValueError, match=f"^file_info: .*{message}"):
        file_info(data)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match=r"^file_info: data must be bytes; got str$"):
        file_info("a.gfz")


def test_the_command(genfast, tmp_path):
    (tmp_path / "a.gfz").write_bytes(FILE)
    code, out, err = genfast("info", tmp_path / "a.gfz")
    assert (code, err) == (0, "")
    first, second, third = out.splitlines()
    assert first.endswith("a.gfz: codes, version 1: 5 images of 10x12, 3 channels, 16 levels")
    assert second.startswith(f"{len(FILE)} bytes, {8 * len(FILE) / IMAGES.numel():.4f} bits a dimension")
    assert third == f"model {MODEL.decoder_digest().hex()}"
    (tmp_path / "b.gfz").write_bytes(FILE[:-3])
    code, out, err = genfast("info", tmp_path / "b.gfz")
    assert code == 2 and not out and "b.gfz: file_info: expected a whole file" in err and err.count("\n") == 1
