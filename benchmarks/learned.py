"""Microseconds per step of one network, by the share of points that are learned: ``python benchmarks/learned.py``.

With the hinge loss the native engine leaves points with margin out of the backward pass. Depth 5, batch 100, Adam with
lr=0, so that the share stays; one core; medians of 5, the shares in turn.
"""

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from steps import commit, processor

from fractal_ifs import doctor
from fractal_ifs.engines import cpp as native
from fractal_ifs.networks.mlp import MLP

SHARES = (0.0, 0.5, 0.8, 0.95)


@torch.no_grad()
def task(width: int, share: float) -> native.Training:
    """Its outputs are large, so that a label that agrees in sign gives margin."""
    made = doctor.task(width)
    made.lr, made.steps = 0.0, int(1e8 / (width + 20) ** 2)
    net = MLP(2, width, made.depth)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(made.params), net.parameters())
    f = net(torch.from_numpy(made.x)).numpy()
    made.params[-1] -= np.median(f)
    made.params[-width - 1 :] *= 1e6
    agree = np.random.default_rng(0).uniform(size=len(f)) < share
    made.y[:] = np.where((f > np.median(f)) == agree, 1, -1)
    return made


def microseconds(made: native.Training) -> float:
    begun = time.perf_counter()
    native.advance([made], 1)
    return 1e6 * (time.perf_counter() - begun) / made.done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{processor()}, {native.isa()}, Python {platform.python_version()}, numpy {np.__version__}, {commit()}.")
    print(
        f"Medians of {arguments.repeats}; us per step by the share of learned points (times faster than with none).\n"
    )
    print("| width | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
    print("|---|" + "---|" * len(SHARES))
    for width in arguments.widths:
        tasks = [task(width, share) for share in SHARES]
        times = [[microseconds(made) for made in tasks] for _ in range(arguments.repeats)]
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        cells = [f"{m:.3g} ({medians[0] / m:.2f}x)" if i else f"{m:.3g}" for i, m in enumerate(medians)]
        print(f"| {width} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
