"""This tree's engines beside another tree's, a few milliseconds at a time: ``python benchmarks/trees.py TREE``.

For changes of a percent, which drown in a machine's drift where whole commands are timed one after the other. A process
per tree trains on the same core (Adam, depth 5, batch 100), and the two take turns of some 40 ms: a drift hits both.
Every pair of turns gives a ratio, ``--turns`` pairs their median, and a line tells the median and the range of
``--repeats`` such medians, each of two fresh processes: where a process's memory lies has its say as well. TREE is a
checkout with compiled modules of its own (``python setup.py build_ext --inplace``), f7bc1b8 or later.

native    engine=native, one network with lr=1e-12, with which nothing is learned
torch     engine=torch, six networks in a stack (one per curve of Vicsek's), one thread
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from steps import commit, processor

HERE = Path(__file__).parents[1]
STEPS = {"native": {10: 12_000, 20: 4500, 50: 1400, 200: 110}, "torch": {10: 300, 20: 250, 50: 100, 200: 20}}
CHILD = """
import sys, time, warnings
warnings.simplefilter("ignore")
engine, width = sys.argv[1], int(sys.argv[2])
import torch
torch.set_num_threads(1)
if engine == "native":
    from fractal_ifs.doctor import task
    from fractal_ifs.engines import cpp
    one = task(width)
    one.lr = 1e-12
    def advance(steps):
        one.steps = steps
        cpp.advance([one], 1)
else:
    from fractal_ifs.config.compose import compose
    from fractal_ifs.engines.stacked import StackedEngine
    from fractal_ifs.runs.run import Run
    configs = [compose(fractal="vicsek", curve=curve, width=width, logger="none") for curve in range(1, 7)]
    runs = [Run(config, None, torch.device("cpu")) for config in configs]
    stacked = StackedEngine()
    def advance(steps):
        stacked.advance(runs, [steps] * 6, [])
for line in sys.stdin:
    begun = time.perf_counter()
    advance(int(line))
    print(time.perf_counter() - begun, flush=True)
"""


class Worker:
    """A process that trains with the engine of a tree, on one core, when it is asked."""

    def __init__(self, tree: Path, engine: str, width: int, core: int):
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, engine, str(width)],
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {core})

    def seconds(self, steps: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


def beside(other: Path, engine: str, width: int, turns: int, core: int) -> tuple[float, float]:
    """The median of this tree's seconds over the other's, and this tree's microseconds a step."""
    steps, workers = STEPS[engine][width], [Worker(tree, engine, width, core) for tree in (HERE, other)]
    ratios, ours = list[float](), list[float]()
    for turn in range(turns + 1):
        order = workers if turn % 2 else workers[::-1]
        seconds = {worker: worker.seconds(steps) for worker in order}
        if turn:  # the first warms up
            ratios.append(seconds[workers[0]] / seconds[workers[1]])
            ours.append(seconds[workers[0]] / steps * 1e6)
    for worker in workers:
        worker.end()
    return statistics.median(ratios), statistics.median(ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the other tree")
    parser.add_argument("--engines", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--widths", nargs="+", type=int, choices=list(STEPS["native"]), default=list(STEPS["native"]))
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    asked: Any = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    print(f"{processor()}, {commit()}, beside {asked.tree}.")
    print(f"Medians of {asked.repeats} medians of {asked.turns} pairs, and their range.\n")
    print("| engine | width | us per step | ratio | range |\n|---|---|---|---|---|")
    for engine in asked.engines:
        for width in asked.widths:
            found = [beside(asked.tree.resolve(), engine, width, asked.turns, core) for _ in range(asked.repeats)]
            ratios, us = [ratio for ratio, _ in found], statistics.median(us for _, us in found)
            line = f"{statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f}"
            print(f"| {engine} | {width} | {us:.3g} | {line} |", flush=True)


if __name__ == "__main__":
    main()
