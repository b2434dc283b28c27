"""What there is to measure on a GPU, in under 6 minutes, from the source tree alone: ``python benchmarks/gpu.py``.

Needs no network and no installation: Python with torch, and for each part what that part needs. A part that can't be
measured says "not measured" and why. Each is a process of its own, so that one that fails takes nothing with it, and
is ended with all that it has started when its share of the time is over. In a part, what one failure would take with
it is apart too: each row of the steps, each file of tests.

    python benchmarks/gpu.py [--seconds 340] [--parts machine tests steps tiles start convolutions cells] [--images DIR]

What a machine without network lacks may be in the folder ``.site`` of the source tree, which is put on the path if it
is there. On a machine with network this fills it with what all parts need besides torch and its packages:

    pip install --target .site hydra-core omegaconf lazy_loader antlr4-python3-runtime==4.9.3

machine       the card, its driver, the versions; what the cuda engine's kernels take of it, by the driver
tests         ``pytest -m gpu``
steps         microseconds per network-step at depth 5, batch 100, Adam, hinge, by widths, of 24 and of 528 runs: plain
              Lightning, a bare PyTorch loop, JAX (``jax_stack.py``, products in full precision), the stacked engine
              with CUDA graphs, and the cuda engine; of wide networks also the stacked engine with PyTorch's operations
              in place of its kernel of an optimizer's step, and as torch.compile makes it, which only
              ``trainer.compile=true`` asks for. Medians of 3, of as many steps as take a third of a second
              with an engine. Of the 528, 66 each share a seed and so their points and orders; what sorting takes where
              none do is told beside
tiles         the cuda engine's kernel at widths 20 and 50 with tiles of other sizes
start         seconds from the start of a process to its stages
convolutions  images per second in training at depth 3, by channels: the engine conv in one process and in four at
              once, in float32, in TensorFloat-32 and in bf16-mixed
cells         with --images, a folder with CIFAR-10: cells of Figure 7 that the table of kept runs lacks
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
SITE = ROOT / ".site"
PATH = [str(ROOT / "src"), *([str(SITE)] if SITE.is_dir() else [])]
# Seconds of --seconds 340; of more or less, their shares. What a part leaves is for those behind it.
PARTS = {"machine": 30, "tests": 80, "steps": 130, "tiles": 30, "start": 40, "convolutions": 30, "cells": 60}
WIDTHS, FEW, MANY = (10, 20, 50, 100, 200), 24, 528
WIDE = (100, 200)  # that have the stacked engine
KERNELS = (10, 20, 32, 50, 60)  # widths whose kernels' resources are told
DEPTH, BATCH, POINTS = 5, 100, 50_000
REPEATS = 3
LONG, LONGEST = 0.3, 40  # seconds of a measurement of steps; times the least number of steps
TILED = ((50, 132), (20, MANY))  # widths and runs of the part tiles
SIZES = [(p, u, r) for p in (1, 2, 3) for u in (1, 2, 3) for r in (1, 2, 3) if p * u <= 4]
CELL = 60  # seconds that a row may take for one width
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


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of a call, with the GPU's work."""
    finished()
    begun = time.perf_counter()
    call()
    finished()
    return time.perf_counter() - begun


def finished() -> None:
    """Wait for the GPU."""
    import torch

    if DEVICE == "cuda":
        torch.cuda.synchronize()


def median_seconds(call: Callable[[], object]) -> float:
    """Of ``REPEATS`` calls, after one that isn't counted."""
    call()
    return statistics.median(seconds_of(call) for _ in range(REPEATS))


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

    versions = [f"Python {platform.python_version()}", f"CUDA {torch.version.cuda}"]
    for name in ("torch", "triton", "jax", "pytorch_lightning", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    say(", ".join(versions), f"; {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    from fractal_ifs.engines import cuda_device

    def engine() -> str:
        here = cuda_device.device()
        return f"{here.isa}, {here.build}, {here.multiprocessors} multiprocessors, {here.shared_bytes} bytes"

    say("engine=cuda:", attempt("engine=cuda", engine))
    attempt("kernels", kernels)


def kernels() -> str:
    """What the functions of some kernels take, as the driver says."""
    from fractal_ifs.engines import cuda_device

    programs = {width: program(width) for width in KERNELS}
    compiled = cuda_device.device().compile(list(programs.values()))
    say("| width | function | threads | registers | bytes of stack | bytes shared | blocks of a multiprocessor |")
    say("|---|---|---|---|---|---|---|")
    for width, each in programs.items():
        for function in ("train", "measure"):

            def told(kernel: Any = compiled[each], function: str = function) -> str:
                if isinstance(kernel, Exception):
                    raise kernel
                return " | ".join(map(str, kernel.resources(function)))

            what = attempt(f"width {width}", told)
            say(f"| {width} | {function} | {each.layout().threads} | {what} |")
    return "told"


def program(width: int) -> Any:
    from fractal_ifs.engines.cuda_kernel import MLPProgram

    return MLPProgram(2, width, DEPTH, BATCH, False, "hinge", 2, False, False)


def tests(seconds: float) -> None:
    """A file after the other: a fault of the GPU fails all tests behind it in a process."""
    if importlib.util.find_spec("pytest") is None:
        raise ModuleNotFoundError("pytest isn't installed")
    end = time.monotonic() + seconds
    files = ["tests/test_cuda.py", "tests/test_stacked.py", "tests/test_update.py"]
    for number, file in enumerate(files):
        command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "--maxfail=8", "-m", "gpu", file]
        command += ["-o", "console_output_style=classic", "-p", "no:cacheprovider"]
        process = subprocess.Popen(command, cwd=ROOT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(1, (end - 8 - time.monotonic()) / (len(files) - number)))
            continue
        process.send_signal(signal.SIGINT)  # pytest tells what has failed by now
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(4)
        process.kill()
        say(f"not measured further: {file}: its time is over")


# --- steps


def config(width: int, seed: int = 0, **keys: Any) -> Any:
    from fractal_ifs.config.compose import compose

    asked = {"width": width, "depth": DEPTH, "batch_size": BATCH, "seed": seed, "logger": "none"}
    asked["trainer"] = "gpu" if DEVICE == "cuda" else "cpu"
    asked |= {"steps": 10**6, "eval_every": 10**6, "fractal": "vicsek", "data.test_size": 1000}
    return compose(**asked | {name.replace("__", "."): value for name, value in keys.items()})


def runs(width: int, count: int, engine: str) -> list[Any]:
    """So many runs: 8 seeds, and each with other learning rates. Those of a seed begin with copies of one network:
    drawing 528 of width 200 takes half a minute."""
    import copy
    import dataclasses

    from fractal_ifs.runs.run import Run

    first = [Run(config(width, seed, engine=engine), None, DEVICE) for seed in range(min(8, count))]
    found: list[Any] = []
    for number in range(count):
        of_seed = first[number % len(first)]
        run: Any = copy.copy(of_seed)
        run.config = dataclasses.replace(of_seed.config, lr=1e-4 * 1.005**number)
        run.model = copy.deepcopy(of_seed.model)
        run.bind(*(vector.clone() for vector in (of_seed.params, of_seed.exp_avg, of_seed.exp_avg_sq)))
        found.append(run)
    return found


def of_engine(engine: Any, all_runs: Sequence[Any], least: int, long: float = LONG) -> float:
    """Microseconds per network-step of an engine, after ``least`` steps that aren't counted.

    Measured are as many as take ``long`` seconds: of a few milliseconds a good part is the host's.
    """

    def advance(steps: int) -> None:
        engine.advance(all_runs, [steps] * len(all_runs), [])

    advance(least)
    steps = least * max(1, min(LONGEST, round(long / seconds_of(lambda: advance(least)))))
    seconds = statistics.median(seconds_of(lambda: advance(steps)) for _ in range(REPEATS))
    return seconds / steps / len(all_runs) * 1e6


def cuda_engine() -> Any:
    from fractal_ifs.engines.cuda import CudaEngine

    def other(**_: Any) -> Any:
        raise RuntimeError("its kernel doesn't compile")

    return CudaEngine(other)


def by_cuda(width: int, count: int) -> float:
    from fractal_ifs.engines.cuda import supports

    if why := supports(config(width)):
        raise RuntimeError(why)
    return of_engine(cuda_engine(), runs(width, count, "cuda"), 500)


def by_stacked(width: int, count: int, compiled: bool = False) -> float:
    from fractal_ifs.engines.stacked import StackedEngine

    return of_engine(StackedEngine(graphs=True, compiled=compiled), runs(width, count, "torch"), 160)


def by_compiled(width: int, count: int) -> float:
    return by_stacked(width, count, compiled=True)


def by_operations(width: int, count: int) -> float:
    from fractal_ifs.engines import stack
    from fractal_ifs.engines.steps import Steps

    fused = stack.steps
    stack.steps = lambda configs, like, fused: Steps(configs, like)
    try:
        return by_stacked(width, count)
    finally:
        stack.steps = fused


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
    from jax_stack import prepared

    once = prepared(width, count, 500)
    return statistics.median(once() for _ in range(REPEATS)) / 500 / count * 1e6


# In the order of what is most wanted, slow compilers last: what measures a width and a number of runs; which of both.
ROWS: dict[str, tuple[Callable[[int, int], float], tuple[int, ...], tuple[int, ...]]] = {
    "engine=cuda": (by_cuda, (FEW, MANY), WIDTHS),
    "engine=torch, CUDA graphs": (by_stacked, (FEW, MANY), WIDTHS),
    "bare PyTorch loop": (by_bare, (1,), WIDTHS),
    "plain Lightning": (by_lightning, (1,), WIDTHS),
    "engine=torch, CUDA graphs, without the kernel": (by_operations, (MANY,), WIDE),
    "engine=torch, CUDA graphs, trainer.compile": (by_compiled, (MANY,), WIDE),
    "JAX, vmap in scan": (by_jax, (FEW, MANY), WIDTHS),
}


def steps() -> None:
    say("| row | runs | width | us per network-step |\n|---|---|---|---|")
    for row, (_, counts, widths) in ROWS.items():
        for count in counts:

            def command(left: Sequence[int], row: str = row, count: int = count) -> list[str]:
                return inner("row", "--row", row, "--runs", str(count), "--widths", *map(str, left))

            follow(command, row, count, widths)
        if row == "engine=cuda":
            subprocess.run(inner("sorting"))


def follow(command: Callable[[Sequence[int]], list[str]], row: str, count: int, widths: Sequence[int]) -> None:
    """Let a process measure a row, and another one what is left, should it end before: a fault of the GPU is its last.

    Args:
        command: measures these widths, and prints a line of the table for each.
    """
    left = list(widths)
    while left:
        with subprocess.Popen(command(left), stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                say(line.rstrip())
                if left and line.startswith(f"| {row} | {count} | {left[0]} |"):
                    del left[0]
        code = process.returncode
        if left and code != BROKEN:  # it hasn't told of this one
            why = f"it took more than {CELL} s" if code == -signal.SIGALRM else f"its process ended with {code}"
            say(f"not measured: {row}, {count} runs, width {left[0]}: {why}")
            say(f"| {row} | {count} | {left.pop(0)} | not measured |")


BROKEN = 3  # how a process ends after a width whose failure it has told, if no more can be measured in it


def one_row(row: str, count: int, widths: Sequence[int]) -> None:
    """Print the lines of some widths."""
    import torch

    measure = ROWS[row][0]
    for width in widths:
        signal.alarm(CELL)
        told = attempt(f"{row}, {count} runs, width {width}", lambda: f"{measure(width, count):.3g}")  # noqa: B023
        say(f"| {row} | {count} | {width} | {told} |")
        signal.alarm(0)
        if DEVICE == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:
                os._exit(BROKEN)  # nothing of CUDA's is to be put in order any more


def sorting() -> None:
    from fractal_ifs.data.seeds import permutations

    def of(count: int) -> str:
        milliseconds = median_seconds(lambda: permutations([(seed, 0) for seed in range(count)], POINTS, DEVICE)) * 1e3
        return f"{milliseconds:.2f} ms for {count} seeds"

    told = attempt("sorting", lambda: ", ".join(map(of, (8, 132, MANY))))
    say(f"orders of {POINTS:,} points: {told}")


def tiles() -> None:
    """All are compiled side by side first. That of the engine is the first of each width."""
    from fractal_ifs.engines import cuda_device, cuda_kernel

    here: Any = cuda_device.device()
    usual = cuda_kernel.tiles
    plan: list[tuple[int, int, tuple[int, int, int]]] = []
    for width, count in TILED:
        plan += [(width, count, sizes) for sizes in dict.fromkeys([usual(program(width)), *SIZES])]

    def use(sizes: tuple[int, int, int]) -> None:
        cuda_kernel.tiles = lambda program: sizes
        cuda_kernel._layout.cache_clear()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        making = []
        for width, _, sizes in plan:
            use(sizes)
            text = program(width).source()
            # with its source before the next tiles are used
            written: Any = SimpleNamespace(title=f"width {width}", source=lambda text=text: text)
            making.append(pool.submit(cuda_device.compiled, here.compiler, written, here.isa))
    all_runs = {width: runs(width, count, "cuda") for width, count in dict.fromkeys(step[:2] for step in plan)}
    for (width, count, sizes), made in zip(plan, making, strict=True):

        def told(width: int = width, sizes: tuple[int, int, int] = sizes, made: Any = made) -> str:
            use(sizes)
            kernel = cuda_device.Loaded(here.driver, made.result(), program(width))
            here.kernels.there[program(width)] = kernel
            took = of_engine(cuda_engine(), all_runs[width], 500, 0.1)
            found = kernel.resources("train")
            return f"{took:.4f} us per network-step; {found.registers} registers, {found.spilled} bytes of stack"

        what = attempt(f"width {width}, tiles {sizes}", told)
        say(f"width {width}, {count} runs, tiles of {sizes} quads: {what}")


# --- start, convolutions, cells


def start() -> None:
    """Stages of one process, then a whole command, which finds the kernel that the process has compiled."""
    cache = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = cache.name  # in which there is no kernel yet
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
        from fractal_ifs.engines.cuda_kernel import MLPProgram

        cuda_device.device().compile([MLPProgram(2, 20, DEPTH, BATCH, False, "hinge", 2, False, False)])

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
        say(f"python {' '.join(words[:-1])}, 24 seeds, its kernel compiled before: {took}")
    cache.cleanup()


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


def inner(name: str, *words: str) -> list[str]:
    """The command of a part, or of a row, in a process of its own."""
    return [sys.executable, str(Path(__file__).absolute()), "--inner", name, "--device", DEVICE, *words]


def part(name: str, command: Sequence[str], seconds: float) -> None:
    """Run a part for so long. What it has started ends with it."""
    begun = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
        said = f"ended with {code}" if code else "done"
    except subprocess.TimeoutExpired:
        said = "not measured further: its time is over"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    say(f"({name}: {said}, {time.monotonic() - begun:.0f} s)")


def has_gpu() -> bool:
    """Asked in another process, so that this one holds no GPU."""
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=340, help="for all of it")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--images", help="a folder with CIFAR-10")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--widths", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--device", default=DEVICE, help=argparse.SUPPRESS)  # cpu: to try a part's code without a GPU
    args = parser.parse_args(None if words is None else list(words))
    if args.inner:
        globals()["DEVICE"] = args.device
        sys.path[:0] = PATH
        known: dict[str, Callable[[], None]] = {
            **{each.__name__: each for each in (machine, steps, sorting, tiles, start)},
            "row": lambda: one_row(args.row, args.runs, args.widths),
            "tests": lambda: tests(args.seconds),
            "convolutions": lambda: convolutions(args.seconds),
            "cells": lambda: cells(args.images, args.seconds),
        }
        try:
            known[args.inner]()
        except Exception as error:
            say(f"not measured: {args.inner}: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}")
        return
    end = time.monotonic() + args.seconds
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATH, *filter(None, [os.environ.get("PYTHONPATH")])])
    there = has_gpu()
    parts = args.parts or [name for name in PARTS if args.images or name != "cells"]
    for number, name in enumerate(parts):
        say(f"\n## {name}\n")
        left = end - time.monotonic()
        if not there or left < 5:
            say(f"not measured: {'its time is over' if there else 'there is no GPU here that PyTorch can use'}")
            continue
        seconds = left * PARTS[name] / sum(PARTS[each] for each in parts[number:])
        images = ["--images", args.images] if args.images else []
        part(name, inner(name, "--seconds", str(seconds), *images), seconds)


if __name__ == "__main__":
    main()
