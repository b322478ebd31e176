"""Ray: many workers draw parts of one set of samples. Sample number i depends on the seed and on i alone, so the set
is the same for any number of workers."""

import argparse

import numpy as np
import ray

import genfast
from genfast import models


@ray.remote
class Sampler:
    def __init__(self) -> None:
        self.model = models.PixelRNN.pretrained("mnist")

    def draw(self, first: int, count: int) -> np.ndarray:
        return genfast.sample(self.model, count, seed=0, first=first).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", type=int, default=8, help="images of one call")
    args = parser.parse_args()

    ray.init(num_cpus=args.workers, include_dashboard=False)
    workers = [Sampler.remote() for _ in range(args.workers)]
    starts = range(0, args.images, args.part)
    calls = [
        workers[number % len(workers)].draw.remote(first, min(args.part, args.images - first))
        for number, first in enumerate(starts)
    ]
    images = np.concatenate(ray.get(calls))
    ray.shutdown()
    here = genfast.sample(models.PixelRNN.pretrained("mnist"), min(4, args.images), seed=0).numpy()
    print("samples", images.shape, "as in one process:", bool((images[: len(here)] == here).all()))


if __name__ == "__main__":
    main()
