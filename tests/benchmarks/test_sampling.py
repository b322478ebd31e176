"""What the benchmark of sampling says is made of what it measured."""

import subprocess
import sys

# Two rows of one case as the script keeps them, and the figures that its table must show of them.
SCRIPT = """
from genfast.benchmarks import sampling_cases, sampling_rates, sampling_report
from genfast.engine.engine import Engine
model = sampling_cases.untrained(sampling_cases.plain, 16, 2)
program = Engine(model, shape=(1, 28, 28), levels=2, input_range=(0, 1)).program
print(sampling_rates.flops(program))
machine = dict(cpu="a", cores=2, level="v3", genfast="1", torch="2", python="3", date="today", load_before=0.1)
row = dict(group="models", case="C=16", batch=64, threads=2, calls=3, images=64, share_of_pixels=1.0, median_ms=16.0)
ours = row | dict(contender="genfast", images_per_s=4000.0, q20_images_per_s=3900.0, q80_images_per_s=4100.0,
                  gflops=48.0, share_of_sgemm=0.5, times_genfast=1.0)
rival = row | dict(contender=sampling_cases.FULL, images_per_s=2.0, q20_images_per_s=1.9, q80_images_per_s=2.1,
                   share_of_pixels=0.25, times_genfast=2000.0)
result = dict(machine=machine, sgemm_gflops={"1": 50.0, "2": 96.0}, rows=[ours, rival])
print(sampling_report.markdown(result))
"""


def test_tables_and_flops():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    taps = 4 * 16 + 6 * 5 * 16 * 16 + 16
    assert int(done.stdout.splitlines()[0]) == 2 * 28 * 28 * taps
    page = done.stdout.split("# Sampling, a")[1]
    assert "| 4,000 | 3,900 | 4,100 | 3 | whole images | 48, 50% |  |" in page
    assert "| 2 | 1.9 | 2.1 | 3 | 25.00% of the pixels |  | 2,000x as fast |" in page
