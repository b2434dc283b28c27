"""Microseconds per network-step of whole sweeps, side by side in one run: ``make bench``, or

    python benchmarks/steps.py [--widths 10 20 50 100 200] [--repeats 5] [--rows native jax ...]

Depth 5, batch 100, Adam, hinge loss. Our rows are whole ``python -m fractal_ifs.train -m`` commands: 24 runs (four
fractals x six curves), composing and checking, evaluations, records and ``logger=csv`` included. From the time of every
command that of the same command with hardly a step is taken off (what starts and ends a sweep: the last column), and
the rest divided by the steps. Every figure is the median of the repeats, which visit the rows in turn so that a drift
of the machine hits all alike; imports and warm-up are not counted. The rows:

basic     Hydra's basic launcher, Lightning, DataLoader, CSV log (``plain.py``), two runs one after the other
joblib    the same through the joblib launcher, a run on every core
bare      a PyTorch loop: nn.Module, autograd, fused Adam, batches by index; the better of one and two threads
torch1    engine=torch, one run
torch     engine=torch, 24 runs, a worker process per core
jax       JAX, 24 runs (``jax_stack.py``)
native1   engine=native, one run on one core
native    engine=native, 24 runs on all cores
nothing    the same without the measures that are the default, ``measures=[]``

``joblib`` and ``jax`` need the extra ``bench``.
"""

import argparse
import contextlib
import io
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from fractal_ifs.data.seeds import permutation
from fractal_ifs.engines import cpp as native
from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.networks.mlp import MLP

BATCH = 100
# Steps of a run at width 10, by row; fewer at other widths by SHARE, so that every command takes some two seconds.
STEPS = {"basic": 800, "joblib": 1600, "bare": 5000, "torch1": 6000, "torch": 3500, "jax": 4000}
STEPS |= {"native1": 400_000, "native": 50_000, "nothing": 50_000}
SHARE = {10: 1.0, 20: 0.6, 50: 0.15, 100: 0.05, 200: 0.015}
SLOW = {10: 1.0, 20: 1.0, 50: 0.9, 100: 0.7, 200: 0.4}  # where a step is mostly overhead, width tells little
RUNS = {
    "basic": 2,
    "joblib": 2,
    "bare": 1,
    "torch1": 1,
    "torch": 24,
    "jax": 24,
    "native1": 1,
    "native": 24,
    "nothing": 24,
}


def command(main: Callable[[], int | None], *arguments: str) -> float:
    """Seconds of a command line, run in this process in an empty directory."""
    from hydra.core.global_hydra import GlobalHydra

    argv = sys.argv
    for left in Path().iterdir():  # emptied, not removed: joblib's workers stay in it
        shutil.rmtree(left)
    sys.argv = ["bench", *arguments]
    GlobalHydra.instance().clear()
    begun, said = time.perf_counter(), io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            main()
        return time.perf_counter() - begun
    except SystemExit:
        sys.exit(said.getvalue())
    finally:
        sys.argv = argv


def plain(launcher: str, width: int, steps: int) -> float:
    from plain import main

    return command(main, "-m", "curve=1,4", f"width={width}", f"steps={steps}", f"hydra/launcher={launcher}")


def ours(engine: str, single: bool, width: int, steps: int, *words: str) -> float:
    from fractal_ifs.train import main

    keys = [f"engine={engine}", f"width={width}", f"steps={steps}", f"eval_every={min(steps, 10_000)}", "logger=csv"]
    keys += words
    if single:
        return command(main, *keys, "workers=1")
    return command(main, "-m", "fractal=sierpinsky,cantor2d,pentaflake,vicsek", "curve=1,2,3,4,5,6", *keys)


def bare(width: int, steps: int) -> float:
    return min(_bare(width, steps, threads) for threads in (1, 2))


def _bare(width: int, steps: int, threads: int) -> float:
    from plain import tensors

    x, y = tensors(FractalDistribution("cantor2d", curve=1, depth=5), 50_000, seed=0).tensors
    torch.set_num_threads(threads)
    model = MLP(2, width, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)
    n = len(y)
    order = torch.empty(0)
    begun = time.perf_counter()
    for step in range(steps):
        at = step % (n // BATCH)
        if at == 0:
            order = torch.from_numpy(permutation(0, step // (n // BATCH), n))
        rows = order[at * BATCH : (at + 1) * BATCH]
        loss = (1 - y[rows] * model(x[rows])).relu().mean()
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begun


def measure(rows: list[str], widths: list[int], repeats: int) -> tuple[dict, dict]:
    """Microseconds per network-step by (row, width), and seconds of a command with hardly a step by row."""
    cores = native.cores()
    call: dict[str, Callable[[int, int], float]] = {
        "basic": partial(plain, "basic"),
        "joblib": partial(plain, "joblib"),
        "bare": bare,
        "torch1": partial(ours, "torch", True),
        "torch": partial(ours, "torch", False),
        "native1": partial(ours, "native", True),
        "native": partial(ours, "native", False),
        "nothing": lambda width, steps: ours("native", False, width, steps, "measures=[]"),
    }
    if "jax" in rows:
        from jax_stack import Pool

        stack = Pool(cores)
        call["jax"] = lambda width, steps: stack(width, RUNS["jax"], steps)
    steps = {
        (row, width): max(
            100, round(STEPS[row] * (SLOW if row in ("basic", "joblib", "bare", "torch1") else SHARE)[width])
        )
        for row in rows
        for width in widths
    }
    for row in rows:  # warm-up
        call[row](widths[0], 10)
    starts = {row: [call[row](widths[0], 10) for _ in range(repeats)] if row != "jax" else [0.0] for row in rows}
    start = {row: 0.0 if row == "bare" else statistics.median(values) for row, values in starts.items()}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    for repeat in range(repeats):
        for (row, width), count in steps.items():
            seconds[row, width].append(call[row](width, count))
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr)
    return {
        (row, width): 1e6 * (statistics.median(values) - start[row]) / RUNS[row] / steps[row, width]
        for (row, width), values in seconds.items()
    }, start


def flops(width: int) -> float:
    """Of the products of one step at depth 5, d = 2."""
    return 2.0 * BATCH * (4 * width + 3 * 4 * width**2 + 3 * width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=list(RUNS), default=list(RUNS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows, widths = arguments.rows, arguments.widths
    limit = statistics.median(native.module().fma_peak(0.2, native.cores()) for _ in range(5))
    about = commit()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        table, start = measure(rows, widths, arguments.repeats)
        os.chdir("/")
    print(f"{processor()}, {native.cores()} cores, {native.isa()}, Python {platform.python_version()},", end=" ")
    print(", ".join(f"{name} {found(name)}" for name in ("torch", "pytorch-lightning", "numpy", "jax")) + f", {about}.")
    print(f"Medians of {arguments.repeats}; microseconds per network-step (times faster than the first row).\n")
    print("| | " + " | ".join(f"width {width}" for width in widths) + " | start, s |")
    print("|---|" + "---|" * (len(widths) + 1))
    for row in rows:
        cells = [f"{table[row, w]:.3g} ({table[rows[0], w] / table[row, w]:.3g}x)" for w in widths]
        print(f"| {row} | " + " | ".join(cells) + f" | {start[row]:.1f} |")
    if "native" in rows:
        shares = [f"{flops(w) / table['native', w] * 1e-3 / limit:.0%}" for w in widths]
        print(f"| native's share of {limit:.0f} GFLOP/s | " + " | ".join(shares) + " | |")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def found(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"commit {done.stdout.strip()}"


if __name__ == "__main__":
    main()
