"""What a sweep costs beside its steps, from 24 to 1,000 runs: ``make bench-sweep``, or

    python benchmarks/sweep.py [--runs 24 1000] [--engines native torch] [--width 10] [--steps 20000]

Whole ``python -m fractal_ifs.train -m`` commands with ``logger=csv``, each in a process of its own, twice: with hardly
a step, and with ``--steps`` steps. The difference by the number of run-steps is the time per run-step; the first by the
number of runs is what a run costs besides. Composing and checking is timed apart. The peak is of resident memory, of
the command and its workers together. The last table: W&B, offline, against ``logger=csv``, per run and per row logged.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from fractal_ifs.config.compose import parse
from fractal_ifs.config.fast_compose import Composer
from fractal_ifs.config.session import VERSION_BASE, borrowed
from fractal_ifs.files import CONF


def sweep(runs: int, engine: str, width: int, steps: int, logger: str = "csv", rows: int = 2) -> tuple[float, float]:
    """Seconds of a command that trains ``runs`` runs, and its peak of resident memory in MiB."""
    seeds = -(-runs // 24)
    keys = [
        f"engine={engine}",
        f"width={width}",
        f"steps={steps}",
        f"eval_every={-(-steps // rows)}",
        f"logger={logger}",
    ]
    grid = ["fractal=sierpinsky,cantor2d,pentaflake,vicsek", "curve=1,2,3,4,5,6", f"seed=range({seeds})"]
    arguments = [sys.executable, "-m", "fractal_ifs.train", "-m", *grid, *keys]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"WANDB_MODE": "offline"},
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(resident(pid) for pid in family(process.pid)))
            time.sleep(0.1)
        assert process.returncode == 0, arguments
        assert sum(1 for _ in Path(folder).rglob("result.json")) == 24 * seeds
        return time.perf_counter() - begun, peak / 2**20


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in family(int(child)))]


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def composing(jobs: int = 480) -> float:
    """Milliseconds to compose and check one job of a sweep over all fractals and curves, and seeds."""
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], RunMode.MULTIRUN)
        compose = Composer(loader, master)
        grid = itertools.product(("sierpinsky", "cantor2d", "pentaflake", "vicsek"), range(1, 7), range(jobs // 24))
        begun = time.perf_counter()
        for fractal, curve, seed in grid:
            parse(compose([f"fractal={fractal}", f"curve={curve}", f"seed={seed}"]))
        return (time.perf_counter() - begun) / jobs * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[24, 1000])
    parser.add_argument("--engines", nargs="+", default=["native", "torch"])
    parser.add_argument("--width", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--wandb", type=int, default=96, help="runs of the comparison with W&B; 0: none")
    arguments = parser.parse_args()
    print(f"composing and checking a job: {composing():.1f} ms\n")
    print("| engine | runs | us per run-step | s per run besides | in all | peak MiB |\n|---|---|---|---|---|---|")
    for engine in arguments.engines:
        steps = arguments.steps if engine == "native" else arguments.steps // 20
        for runs in arguments.runs:
            runs = -(-runs // 24) * 24
            start, _ = sweep(runs, engine, arguments.width, 10)
            seconds, peak = sweep(runs, engine, arguments.width, steps)
            step = (seconds - start) / runs / steps * 1e6
            print(f"| {engine} | {runs} | {step:.2f} | {start / runs:.3f} | {start:.1f} | {peak:.0f} |", flush=True)
    if runs := arguments.wandb:
        cost = {
            (logger, rows): sweep(runs, "native", arguments.width, 200, logger, rows)[0]
            for logger in ("csv", "wandb")
            for rows in (2, 100)
        }
        run = (cost["wandb", 2] - cost["csv", 2]) / runs
        row = (cost["wandb", 100] - cost["csv", 100] - (cost["wandb", 2] - cost["csv", 2])) / runs / 98
        print(f"\nlogger=wandb, offline, {runs} runs: {run:.2f} s more per run, {1e3 * row:.2f} ms more per row logged")


if __name__ == "__main__":
    main()
