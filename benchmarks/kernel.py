"""The native engine alone, without records or evaluation: ``python benchmarks/kernel.py`` prints a Markdown table.

One network per core (d = 2, depth 5, batch 100, Adam, 50,000 points, shuffles included), as in the paper's sweeps.
Times are medians over ``--repeats`` calls, after one to warm up; the spread is (max - min) / median. A step's floating
point operations are those of its products, 2 batch (2 d k + 3 (T - 1) k^2 + 3 k) for width k; the limit is what a loop
of nothing but multiply-adds in registers reaches on the same cores in the same run.
"""

import argparse
import statistics
import time

from fractal_ifs import doctor
from fractal_ifs.engines import cpp as native

D, DEPTH, BATCH, TEST_POINTS, STEPS_PER_TEST = 2, 5, 100, 5_000, 10_000


def flops(width: int) -> float:
    return 2.0 * BATCH * (2 * D * width + 3 * (DEPTH - 1) * width**2 + 3 * width)


def times(call, repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` calls, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def row(width: int, threads: int, seconds: float, repeats: int, limit: float) -> str:
    tasks = [doctor.task(width, seed, DEPTH, D) for seed in range(threads)]
    steps = max(10, round(seconds / (doctor.rate(width, 0.1, threads) * threads * 1e-6)))
    for task in tasks:
        task.steps = steps
    training = [s / steps / threads * 1e6 for s in times(lambda: native.advance(tasks, threads), repeats)]
    step = statistics.median(training)
    for task in tasks:
        task.x, task.y = task.x[:TEST_POINTS], task.y[:TEST_POINTS]
    evaluation = statistics.median(times(lambda: native.evaluate(tasks, threads), repeats)) / threads * 1e6
    gflops = flops(width) / step * 1e-3
    return (
        f"| {width} | {step:.2f} | {(max(training) - min(training)) / step:.0%} | {gflops:.0f} | {gflops / limit:.0%} "
        f"| {evaluation / (STEPS_PER_TEST * step):.2%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The native engine alone: microseconds per network-step.")
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--threads", type=int, default=native.cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one call")
    args = parser.parse_args()
    limit = statistics.median(native.module().fma_peak(0.2, args.threads) for _ in range(5))
    print(f"{native.isa()}, {args.threads} threads, limit {limit:.0f} GFLOP/s, median of {args.repeats}\n")
    print("| width | us per step | spread | GFLOP/s | of the limit | evaluation's share |\n|---|---|---|---|---|---|")
    for width in args.widths:
        print(row(width, args.threads, args.seconds, args.repeats, limit), flush=True)


if __name__ == "__main__":
    main()
