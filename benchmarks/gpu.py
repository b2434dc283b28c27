"""What there is to measure on a GPU, in under 6 minutes, from the source tree alone: ``python benchmarks/gpu.py``.

Needs no network and no installation: Python with torch, and for each part what that part needs. A part that can't be
measured says "not measured" and why. Each is a process of its own, so that one that fails takes nothing with it.

    python benchmarks/gpu.py [--seconds 340] [--parts machine tests steps tiles start convolutions cells] [--images DIR]

machine       the card, its driver, the versions
tests         ``pytest -m gpu``
steps         microseconds per network-step at depth 5, batch 100, Adam, hinge, by widths, of 24 and of 528 runs: plain
              Lightning, a bare PyTorch loop, JAX (``jax_stack.py``, products in full precision), the stacked engine
              with CUDA graphs, and the cuda engine. Medians of 3. Of the 528, 66 each share a seed and so their points
              and orders; what sorting takes where none do is told beside
tiles         the cuda engine's kernel at widths 20 and 50 with tiles of other sizes
start         seconds from the start of a process to its stages
convolutions  images per second in training at depth 3, by channels: the engine conv in one process and in four at
              once, in float32, in TensorFloat-32 and in bf16-mixed
cells         with the time that is left, cells of Figure 7 that the table of kept runs lacks; --images has CIFAR-10
"""

import argparse
import contextlib
import importlib.util
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PARTS = {"machine": 30, "tests": 110, "steps": 150, "tiles": 30, "start": 60, "convolutions": 40, "cells": 240}
WIDTHS, FEW, MANY = (10, 20, 50, 100, 200), 24, 528
DEPTH, BATCH, POINTS = 5, 100, 50_000
REPEATS = 3
DEVICE = "cuda"
CHANNELS = (32, 64, 128)
NOISE = 2000  # images in a file of noise
AT_ONCE, CONVOLVING = 4, 0.8  # processes, and the seconds that they are measured for
ARITHMETIC = {"float32": ("32-true", False), "tf32": ("32-true", True), "bf16": ("bf16-mixed", False)}


def say(*words: object) -> None:
    print(*words, flush=True)


def attempt(what: str, call: Callable[[], str]) -> str:
    """What a measurement tells, or why there is none."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"not measured: {what}: {first[:200]}")
        return "not measured"


def median_seconds(call: Callable[[], object]) -> float:
    """Of ``REPEATS`` calls that end with the GPU's work, after one that isn't counted."""
    import torch

    times: list[float] = []
    for _ in range(REPEATS + 1):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


# --- machine, tests


def machine() -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
        say(
            subprocess.run(
                ["nvidia-smi", asked, "--format=csv,noheader"], capture_output=True, text=True
            ).stdout.strip()
        )
    import torch

    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}", f"CUDA {torch.version.cuda}"]
    for name in ("triton", "jax", "pytorch_lightning", "numpy"):
        with contextlib.suppress(Exception):
            versions.append(f"{name} {importlib.import_module(name).__version__}")
    say(", ".join(versions), f"; {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    from fractal_ifs.engines import cuda_device

    def engine() -> str:
        here = cuda_device.device()
        return (
            f"engine=cuda: {here.isa}, {here.build}, {here.multiprocessors} multiprocessors, {here.shared_bytes} bytes"
        )

    say(attempt("engine=cuda", engine))


def tests() -> None:
    if importlib.util.find_spec("pytest") is None:
        raise ModuleNotFoundError("pytest isn't installed")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["tests/test_cuda.py", "tests/test_stacked.py"]
    subprocess.run(command, cwd=ROOT)


# --- steps


def config(width: int, seed: int = 0, **keys: Any) -> Any:
    from fractal_ifs.config.compose import compose

    asked = {"width": width, "depth": DEPTH, "batch_size": BATCH, "seed": seed, "trainer": "gpu", "logger": "none"}
    asked |= {"steps": 10**6, "eval_every": 10**6, "fractal": "vicsek", "data.test_size": 1000}
    return compose(**asked | {name.replace("__", "."): value for name, value in keys.items()})


def runs(width: int, count: int, engine: str) -> list[Any]:
    """So many runs: 8 seeds, and each with other learning rates."""
    import dataclasses

    from fractal_ifs.runs.run import Run

    of_seeds = [config(width, seed, engine=engine) for seed in range(min(8, count))]
    rates = [1e-4 * 1.02**number for number in range(count)]
    configs = [dataclasses.replace(of_seeds[n % len(of_seeds)], lr=rate) for n, rate in enumerate(rates)]
    return [Run(each, None, DEVICE) for each in configs]


def of_engine(engine: Any, width: int, count: int, steps: int) -> float:
    """Microseconds per network-step of an engine."""
    all_runs = runs(width, count, engine.name)
    seconds = median_seconds(lambda: engine.advance(all_runs, [steps] * count, []))
    return seconds / steps / count * 1e6


def by_cuda(width: int, count: int) -> float:
    from fractal_ifs.engines.cuda import CudaEngine, supports

    def other() -> Any:
        raise RuntimeError("its kernel doesn't compile")

    if why := supports(config(width)):
        raise RuntimeError(why)
    return of_engine(CudaEngine(other), width, count, 1000)


def by_stacked(width: int, count: int) -> float:
    from fractal_ifs.engines.stacked import StackedEngine

    return of_engine(StackedEngine(graphs=True), width, count, 320)


def by_bare(width: int, count: int) -> float:
    """One network: how many there are changes nothing."""
    import torch

    from fractal_ifs.networks.mlp import MLP

    model = MLP(2, width, DEPTH).cuda()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    x, y = torch.rand(POINTS, 2, device="cuda") * 2 - 1, torch.randn(POINTS, device="cuda").sign()
    order = torch.randperm(POINTS, device="cuda").view(-1, BATCH)

    def some() -> None:
        for row in order[:200]:
            optimizer.zero_grad()
            (1 - y[row] * model(x[row])).relu().mean().backward()
            optimizer.step()

    return median_seconds(some) / 200 * 1e6


def by_lightning(width: int, count: int) -> float:
    """One network: how many there are changes nothing. The time of 50 steps is taken off, which start it."""
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    from plain import Plain
    from torch.utils.data import DataLoader, TensorDataset

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    data = TensorDataset(torch.rand(POINTS, 2) * 2 - 1, torch.randn(POINTS).sign())
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)

    def fit(steps: int) -> None:
        pl.Trainer(max_steps=steps, accelerator="gpu", devices=1, **off).fit(
            Plain(width), DataLoader(data, BATCH, shuffle=True)
        )

    return (median_seconds(lambda: fit(350)) - median_seconds(lambda: fit(50))) / 300 * 1e6


def by_jax(width: int, count: int) -> float:
    os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    from jax_stack import seconds

    return statistics.median(seconds(width, count, 500) for _ in range(REPEATS)) / 500 / count * 1e6


ROWS: dict[str, tuple[Callable[[int, int], float], tuple[int, ...]]] = {  # in the order of what is most wanted
    "engine=cuda": (by_cuda, (FEW, MANY)),
    "engine=torch, CUDA graphs": (by_stacked, (FEW, MANY)),
    "JAX, vmap in scan": (by_jax, (FEW, MANY)),
    "bare PyTorch loop": (by_bare, (1,)),
    "plain Lightning": (by_lightning, (1,)),
}


def steps() -> None:
    import torch

    sys.path.insert(0, str(ROOT / "benchmarks"))
    say("| row | runs | width | us per network-step |\n|---|---|---|---|")
    for row, (measure, counts) in ROWS.items():
        for count, width in itertools.product(counts, WIDTHS):
            told = attempt(f"{row}, {count} runs, width {width}", lambda: f"{measure(width, count):.3g}")  # noqa: B023
            say(f"| {row} | {count} | {width} | {told} |")
            torch.cuda.empty_cache()
        if row == "engine=cuda":
            say(attempt("sorting", sorting))


def sorting() -> str:
    from fractal_ifs.data.seeds import permutations

    def of(count: int) -> float:
        return median_seconds(lambda: permutations([(seed, 0) for seed in range(count)], POINTS, "cuda")) * 1e3

    return (
        f"orders of {POINTS:,} points: {of(8):.2f} ms for 8 seeds, {of(132):.2f} ms for 132, {of(MANY):.2f} for {MANY}"
    )


def tiles() -> None:
    from fractal_ifs.engines import cuda_device, cuda_kernel

    for width, count in ((20, MANY), (50, 132)):
        for sizes in itertools.product((1, 2), (1, 2), (1, 2)):
            cuda_kernel.tiles = lambda program, sizes=sizes: sizes
            cuda_kernel._layout.cache_clear()
            cuda_device.look_again()  # with all that it has compiled
            told = attempt(f"width {width}, tiles {sizes}", lambda w=width, n=count: f"{by_cuda(w, n):.4f}")
            say(f"width {width}, {count} runs, tiles of {sizes} quads: {told} us per network-step")


# --- start, convolutions, cells


def start() -> None:
    """Stages of one process, then a whole command."""
    begun = time.perf_counter()

    def stage(name: str, call: Callable[[], object]) -> None:
        nonlocal begun
        told = attempt(name, lambda: (call(), f"{time.perf_counter() - begun:.2f} s")[1])
        say(f"{name}: {told}")
        begun = time.perf_counter()

    stage("import torch", lambda: importlib.import_module("torch"))
    stage("import pytorch_lightning", lambda: importlib.import_module("pytorch_lightning"))
    stage("import fractal_ifs.training.train", lambda: importlib.import_module("fractal_ifs.training.train"))

    def context() -> None:
        import torch

        torch.zeros(1, device="cuda").item()

    def kernel() -> None:
        from fractal_ifs.engines import cuda_device
        from fractal_ifs.engines.cuda_kernel import Program

        cuda_device.device().compile([Program(2, 20, DEPTH, BATCH, False, "hinge", 2, False, False)])

    stage("a context on the GPU", context)
    stage("compiling the kernel of width 20", kernel)
    words = ["-m", "fractal_ifs.train", "-m", "trainer=gpu", "width=20", "steps=2000", "eval_every=1000"]
    words += ["logger=csv", f"seed={','.join(map(str, range(FEW)))}"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        ended = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60)
        took = (
            f"{time.perf_counter() - begun:.1f} s" if not ended.returncode else f"not measured: {ended.stderr[-200:]}"
        )
        say(f"python {' '.join(words[:-1])}, 24 seeds: {took}")


def convolutions(seconds: float) -> None:
    """The engine conv on runs with images of noise, in one process and in four at once, as a sweep has them."""
    import multiprocessing

    import numpy as np

    end, context = time.monotonic() + seconds - 3, multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (NOISE, 3073), dtype=np.uint8)
        noise[:, 0] %= 10  # the labels
        for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
            noise.tofile(Path(folder, f"{name}.bin"))
        pipes = [context.Pipe() for _ in range(AT_ONCE)]
        for _, theirs in pipes:
            context.Process(target=_convolve, args=(theirs, folder, DEVICE), daemon=True).start()
            theirs.close()
        say("| arithmetic | channels | processes | images/s |\n|---|---|---|---|")
        for arithmetic, channels, count in itertools.product(ARITHMETIC, CHANNELS, (1, AT_ONCE)):
            if time.monotonic() > end:
                raise TimeoutError(f"its time is over, before {arithmetic}, {channels} channels, {count} at once")
            told = attempt(
                f"{arithmetic}, {channels} channels, {count} at once",
                lambda at=[ours for ours, _ in pipes[:count]], of=(arithmetic, channels): f"{_together(at, *of):,.0f}",
            )
            say(f"| {arithmetic} | {channels} | {count} | {told} |")


def _together(workers: list[Any], arithmetic: str, channels: int) -> float:
    """Images per second of workers that begin at once."""
    for worker in workers:
        worker.send((arithmetic, channels))
    failed = {number: why for number, worker in enumerate(workers) if (why := worker.recv())}
    ready = [worker for number, worker in enumerate(workers) if number not in failed]
    for worker in ready:
        worker.send("begin")
    found = [worker.recv() for worker in ready]
    for why in (*failed.values(), *(each for each in found if isinstance(each, str))):
        raise RuntimeError(why)
    return sum(found)


def _convolve(connection: Any, folder: str, device: str) -> None:
    """The main function of a worker: makes a run, says that it is ready, and how many images a second it trains."""
    import torch

    from fractal_ifs.config.compose import compose
    from fractal_ifs.engines.arithmetic import multiplying
    from fractal_ifs.engines.conv import ConvEngine
    from fractal_ifs.runs.run import Run

    torch.set_num_threads(1)
    keys: dict[str, Any] = {"data": "cifar10", "model": "cnn", "data.dir": folder, "data.verify": False, "depth": 3}
    keys |= {"data.train_size": 5 * NOISE, "data.test_size": NOISE, "steps": 10**6, "eval_every": 10**6}
    keys |= {"logger": "none", "trainer": "cpu" if device == "cpu" else "gpu"}
    with contextlib.suppress(EOFError):  # this benchmark has ended
        while True:
            arithmetic, channels = connection.recv()
            try:
                config = compose(**keys, width=channels)
                precision, tf32 = ARITHMETIC[arithmetic]
                run, engine = Run(config, None, device), ConvEngine(precision)
                with multiplying(tf32):
                    engine.advance([run], [5], [])
                    connection.send(None)
                    connection.recv()
                    begun, first = time.perf_counter(), run.step
                    while time.perf_counter() < begun + CONVOLVING:  # ``advance`` ends with the GPU's work
                        engine.advance([run], [25 if device != "cpu" else 1], [])
                    connection.send((run.step - first) * config.batch_size / (time.perf_counter() - begun))
            except Exception as error:
                connection.send(f"{type(error).__name__}: {error}")


def cells(images: str | None, seconds: float) -> None:
    if images is None:
        raise FileNotFoundError("--images names no folder with CIFAR-10")
    end = time.monotonic() + seconds
    kept = ROOT / "docs" / "reproduction" / "figure7.csv"
    for width, depth in [(w, d) for w in (64, 128) for d in range(1, 6)]:
        command = ["-m", "fractal_ifs.train", "-m", "experiment=figure7", f"width={width}", f"depth={depth}"]
        command += [
            f"kept={kept}",
            "trainer=gpu",
            "logger=csv",
            f"data.dir={Path(images).absolute()}",
            "data.verify=false",
        ]
        left = end - time.monotonic()
        if left < 20:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process = subprocess.run([sys.executable, *command], cwd=ROOT, timeout=left)
            say(f"Figure 7, {width} channels, depth {depth}: ended with {process.returncode}")


# --- all of them


def part(name: str, seconds: float, images: str | None) -> None:
    """A part, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(Path(__file__).absolute()), "--inner", name, "--seconds", str(seconds)]
    command += ["--images", images] if images else []
    begun = time.monotonic()
    try:
        ended = subprocess.run(command, env=environment, timeout=seconds).returncode
        said = f"ended with {ended}" if ended else "done"
    except subprocess.TimeoutExpired:
        said = "not measured further: its time is over"
    say(f"({name}: {said}, {time.monotonic() - begun:.0f} s)")


def has_gpu() -> bool:
    """Asked in another process, so that this one holds no GPU."""
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=340, help="for all of it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", help="a folder with CIFAR-10")
    parser.add_argument("--inner", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--device", default=DEVICE, help=argparse.SUPPRESS)  # cpu: to try a part's code without a GPU
    args = parser.parse_args(None if words is None else list(words))
    if args.inner:
        globals()["DEVICE"] = args.device
        inner: dict[str, Callable[[], None]] = {
            **{each.__name__: each for each in (machine, tests, steps, tiles, start)},
            "convolutions": lambda: convolutions(args.seconds),
            "cells": lambda: cells(args.images, args.seconds),
        }
        try:
            inner[args.inner]()
        except (Exception, SystemExit) as error:
            say(f"not measured: {args.inner}: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}")
        return
    end = time.monotonic() + args.seconds
    there = has_gpu()
    for name in args.parts:
        say(f"\n## {name}\n")
        left = end - time.monotonic()
        if not there or left < 5:
            say(f"not measured: {'its time is over' if there else 'there is no GPU here that PyTorch can use'}")
        else:
            part(name, min(left, PARTS[name]), args.images)


if __name__ == "__main__":
    main()
