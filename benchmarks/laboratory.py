"""What a network, an optimizer or a schedule of one's own costs: ``python benchmarks/laboratory.py [--repeats 5]``.

Microseconds per network-step at width 20, depth 5, batch 100, all rows side by side in one run. The network is the
Siren of docs/laboratory.md, whose first commands make it. From the time of every row that of the same with a few steps
is taken off (what begins and ends a sweep or a fit), and the rest divided by the steps. Every figure is the median of
the repeats, which visit the rows in turn. With ``--processor`` it is processor time, that of sweeps divided by the
cores: on a machine that does other things too, what it would be alone. The rows:

plain      the Siren as a plain LightningModule in a Trainer without a logger, TensorDataset, DataLoader; one thread
siren      the Siren, 24 runs fused, a worker process per core: a whole ``train -m``, evaluations and records included,
           and what it takes once to write a step down as a flat program
mlp        the paper's network with engine=torch, 24 runs, the same way
adam       the paper's network with engine=native: one run on one core, a whole ``train``
momentum, adamw, cosine   the same with optimizer=sgd optimizer.momentum=0.9, optimizer=adamw, schedule=cosine

``plain`` and ``siren`` have AdamW and the cosine. With engine=native points that are learned cost less, so its four
rows have lr=1e-12, with which nothing is learned.
"""

import argparse
import importlib
import logging
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import fit
from plain import Plain, tensors
from steps import commit, found, ours, processor
from torch.utils.data import DataLoader

from fractal_ifs.engines import cpp as native
from fractal_ifs.fractals.distribution import FractalDistribution

PAGE = Path(__file__).parents[1] / "docs" / "laboratory.md"
WIDTH, FEW = 20, 100
STEPS = {"plain": 1000, "siren": 20_000, "mlp": 3000, "adam": 100_000}
STEPS |= dict.fromkeys(("momentum", "adamw", "cosine"), STEPS["adam"])
RUNS = {"siren": 24, "mlp": 24}
BASE = {"plain": "plain", "siren": "plain", "mlp": "plain", "adam": "adam"}  # what a row is compared with; else adam
SAME = ("optimizer=adamw", "optimizer.weight_decay=0.01", "schedule=cosine")


class PlainSiren(Plain):
    """The page's network, optimizer and schedule, as one writes them for Lightning."""

    def __init__(self, steps: int):
        super().__init__(WIDTH)
        self.steps = steps
        siren = importlib.import_module("nets").Siren
        self.model = siren(2, WIDTH, 5, generator=torch.Generator().manual_seed(0), omega=10)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=5e-4, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def plain(steps: int) -> float:
    law = FractalDistribution("cantor2d", curve=1, depth=5)
    training, test = tensors(law, 50_000, seed=0), tensors(law, 5_000, seed=1)
    loaders = DataLoader(training, 100, shuffle=True), DataLoader(test, 1000)
    return fit(PlainSiren(steps), *loaders, steps, time.perf_counter)


def rows(mine: Path) -> dict[str, Callable[[int], float]]:
    """Seconds that each row takes for so many steps."""

    def sweep(*words: str) -> Callable[[int], float]:
        return lambda steps: ours("torch", False, WIDTH, steps, *words)

    def single(*words: str) -> Callable[[int], float]:
        return lambda steps: ours("native", True, WIDTH, steps, "lr=1e-12", *words)

    return {
        "plain": plain,
        "siren": sweep("model=siren", *SAME, f"hydra.searchpath=[{mine}]"),
        "mlp": sweep(),
        "adam": single(),
        "momentum": single("optimizer=sgd", "optimizer.momentum=0.9"),
        "adamw": single("optimizer=adamw"),
        "cosine": single("schedule=cosine"),
    }


def of_processor(call: Callable[[int], float], sweep: bool) -> Callable[[int], float]:
    """The same in seconds of the processor, of one core if it is a sweep on all of them."""

    def seconds(steps: int) -> float:
        begun = sum(os.times()[:4])  # with those of processes that have ended
        call(steps)
        for worker in multiprocessing.active_children():  # an ended one counts when it is waited for
            worker.join()
        return (sum(os.times()[:4]) - begun) / (native.cores() if sweep else 1)

    return seconds


def measure(calls: dict[str, Callable[[int], float]], repeats: int) -> dict[str, float]:
    """Microseconds per network-step by row."""
    for call in calls.values():  # warm-up
        call(FEW)
    seconds: dict[tuple[str, int], list[float]] = {(row, n): [] for row in calls for n in (FEW, STEPS[row])}
    for repeat in range(repeats):
        for (row, steps), values in seconds.items():
            values.append(calls[row](steps))
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        row: 1e6 * (median[row, STEPS[row]] - median[row, FEW]) / (STEPS[row] - FEW) / RUNS.get(row, 1) for row in calls
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--processor", action="store_true", help="processor time, for a machine that isn't quiet")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    about = commit()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work:
        makes = PAGE.read_text().split("```bash\n")[1].split("```")[0]
        subprocess.run(["bash", "-euc", makes], cwd=folder, check=True)
        mine = Path(folder) / "mine"
        sys.path.insert(0, str(mine))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(mine), os.environ.get("PYTHONPATH")]))
        calls = rows(mine)
        os.chdir(work)
        if arguments.processor:
            calls = {row: of_processor(call, row in RUNS) for row, call in calls.items()}
        table = measure({row: calls[row] for row in arguments.rows}, arguments.repeats)
        os.chdir("/")
    print(f"{processor()}, {native.cores()} cores, {native.isa()}, Python {platform.python_version()},", end=" ")
    print(", ".join(f"{name} {found(name)}" for name in ("torch", "pytorch-lightning", "numpy")) + f", {about}.")
    told = ", processor time" if arguments.processor else ""
    print(f"Medians of {arguments.repeats}{told}; microseconds per network-step at width {WIDTH}.\n")
    print("| row | us | |\n|---|---|---|")
    for row, us in table.items():
        base = BASE.get(row, "adam")
        told = "" if base == row or base not in table else ratio(us, table[base], base)
        print(f"| {row} | {us:.3g} | {told} |")


def ratio(us: float, base: float, name: str) -> str:
    """How a row stands beside another: times faster than plain Lightning, or a percentage beside Adam."""
    return f"{base / us:.3g}x faster than {name}" if name == "plain" else f"{us / base - 1:+.1%} beside {name}"


if __name__ == "__main__":
    main()
