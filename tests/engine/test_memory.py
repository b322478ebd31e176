"""Memory while sampling: it grows with the batch and the shard, not with the number of images."""

import subprocess
import sys

MEGABYTE = 2**20
# The peak of this process from /proc: what getrusage reports also counts the process that started it.
SCRIPT = """
import re, sys
import torch
from genfast.models import build
from genfast.tasks.shards import sample_shards
torch.manual_seed(0)
model = build("pixelcnn", height=12, width=12, levels=2, hidden=4, layers=1, head=4)
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
assert sample_shards(model, int(sys.argv[2]), sys.argv[1]) == int(sys.argv[2])
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024)
"""


def peak(folder, n):
    """Bytes of resident memory that sampling `n` images into shards takes at most."""
    command = [sys.executable, "-c", SCRIPT, folder, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("samples-*.npz"))) == n // 1000
    return int(done.stdout)


def test_a_hundred_thousand_images_need_no_more_than_a_quarter_of_them(tmp_path):
    few, many = peak(tmp_path / "few", 25_000), peak(tmp_path / "many", 100_000)
    assert many < 1000 * MEGABYTE
    # 75,000 images take 10 MB, and what is computed for them many times that; a peak varies by less than 1 MB.
    assert many - few < 4 * MEGABYTE
