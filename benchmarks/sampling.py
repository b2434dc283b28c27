"""Points drawn per second on one core, x, y and level included: python benchmarks/sampling.py

Fractals of depth 5, curve 1; medians of 7 draws of a million points after one to warm up. Claimed: at least 4 million
points per second for each of the experiments' four families.
"""

import statistics
import time

import torch

from fractal_ifs.fractals.distribution import FractalDistribution

EXPERIMENTS = ("cantor2d", "sierpinsky", "pentaflake", "vicsek")
OTHERS = ("cantor", "cantor_dust", "carpet", "sierpinski_triangle", "pentaflake_pentagon")
POINTS, DRAWS = 1_000_000, 7


def rate(name: str, points: int, curve: int = 1, depth: int = 5) -> float:
    """Million points per second."""
    distribution = FractalDistribution(name, curve, depth)
    seconds = []
    for seed in range(DRAWS + 1):
        start = time.perf_counter()
        distribution.sample(points, seed=seed)
        seconds.append(time.perf_counter() - start)
    return points / statistics.median(seconds[1:]) / 1e6


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, depth 5, curve 1, median of {DRAWS}")
    print(f"{'family':22s}{'million points per second':>26s}")
    for name in (*EXPERIMENTS, *OTHERS):
        convex_shapes = name in ("sierpinski_triangle", "pentaflake_pentagon")
        print(f"{name:22s}{rate(name, POINTS // 10 if convex_shapes else POINTS):26.2f}")


if __name__ == "__main__":
    main()
