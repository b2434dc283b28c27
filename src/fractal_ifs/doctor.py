"""``python -m fractal_ifs.doctor``: which engine and instruction set run here, how fast, and which versions."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fractal_ifs.config import environment
from fractal_ifs.errors import told
from fractal_ifs.help.layout import Parser, program
from fractal_ifs.streams import command
from fractal_ifs.version import __version__

if TYPE_CHECKING:
    from fractal_ifs.engines import cpp

WIDTHS = (10, 20, 50, 100)
PACKAGES = ("torch", "pytorch_lightning", "hydra-core", "numpy", "wandb")


def rate(width: int, seconds: float = 0.3, threads: int = 1) -> float:
    """Microseconds per step of a network (d = 2, depth 5, batch 100, Adam), divided by the number of threads.

    Each thread trains a network of its own.

    Args:
        width: units of a hidden layer.
        seconds: how long it is measured, roughly.
    """
    from fractal_ifs.engines import cpp

    tasks = [task(width, seed) for seed in range(threads)]
    steps, elapsed = 0, 0.0
    for chunk in (20, 0):  # the first chunk warms up, and shows how many steps fit
        for t in tasks:
            t.steps = chunk or max(20, int(seconds / max(elapsed, 1e-6) * steps))
        start = time.perf_counter()
        cpp.advance(tasks, threads)
        elapsed, steps = time.perf_counter() - start, tasks[0].done
    return elapsed / steps / threads * 1e6


def task(width: int, seed: int = 0, depth: int = 5, d: int = 2, n: int = 50_000) -> cpp.Training:
    """A network with random weights and data of the paper's sizes, for timing the engine.

    Args:
        width, depth: the units of a hidden layer, and how many such layers.
        seed: of the weights, the data and the shuffles.
        d: inputs.
        n: points of the training set.
    """
    import numpy as np

    from fractal_ifs.engines import cpp

    rng = np.random.default_rng(seed)
    layers = [(d, width)] + [(width, width)] * (depth - 1) + [(width, 1)]
    parts = [(rng.normal(size=i * o) / np.sqrt(i), np.full(o, 0.1)) for i, o in layers]
    params = np.concatenate([part for layer in parts for part in layer]).astype(np.float32)
    x = rng.uniform(-1, 1, (n, d)).astype(np.float32)
    y = np.where(rng.uniform(size=n) < 0.5, -1, 1).astype(np.float32)
    m, v = np.zeros_like(params), np.zeros_like(params)
    return cpp.Training(params, d, width, depth, x, y, exp_avg=m, exp_avg_sq=v, shuffle_seed=seed)


def report() -> list[str]:
    """Lines on the native engine: its instruction sets, the one in use, and its speed."""
    from fractal_ifs.engines import cpp

    lines = []
    for name, state in cpp.variants().items():
        lines.append(f"native {name:7} {state}")
    try:
        isa = cpp.isa()
    except cpp.Unavailable as error:
        return [*lines, f"engine         torch ({error})"]
    chosen = " (FRACTAL_IFS_ISA)" if environment.isa() else ""
    lines.append(f"engine         native, {isa}{chosen}, built by {cpp.module().COMPILER}")
    lines.append(f"limit          {cpp.module().fma_peak(0.2, 1):.0f} GFLOP/s of one core")
    for width in WIDTHS:
        lines.append(f"width {width:<8} {rate(width):.1f} us per step (one core; depth 5, batch 100, Adam)")
    return lines


def gpu() -> str:
    """A line on the engine on GPUs."""
    from fractal_ifs.engines import cuda_device

    try:
        here = cuda_device.device()
    except cuda_device.NoKernel as error:
        return f"on GPUs        torch ({error})"
    return f"on GPUs        cuda, {here.isa}, compiled by {here.build}"


def versions() -> list[str]:
    """Lines on Python, the platform, the versions of packages, and what torch computes with here."""
    from fractal_ifs.runs.kernels import torch_kernels

    lines = [f"{'python':14} {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"]
    lines.append(f"{'fractal_ifs':14} {__version__}")
    for package in PACKAGES:
        try:
            lines.append(f"{package:14} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package:14} not installed")
    return [*lines, f"{'torch kernels':14} {torch_kernels()}"]


def parser() -> Parser:
    """The command's options: none but --help."""
    text = (
        "Which engine trains on this machine, compiled for which instruction set, how fast it is on one core, and the "
        "versions of what results rest on. Takes some seconds."
    )
    return Parser(program("doctor"), text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser().parse_args(arguments)
    with told():
        environment.check_environment()
        print("\n".join([*versions(), *report(), gpu()]))


if __name__ == "__main__":
    command(main)
