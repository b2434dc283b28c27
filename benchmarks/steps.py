"""Microseconds per network-step, side by side in one process: ours against Lightning used plainly and a bare loop.

    python benchmarks/steps.py [--widths 10 20 50 100] [--repeats 5]

Depth 5, batch 100, Adam, hinge loss, ``cantor2d`` curve 1; our rows include evaluations, records and checkpoints.
Every figure is the median of the repeats, which visit the rows in turn so that a drift of the machine hits all alike;
imports, data and warm-up are not counted. "plain Lightning": DataLoader over a TensorDataset, CSVLogger, a log call per
step. "bare loop": nn.Module, autograd, fused Adam, batches by index. "single" rows train one run through
``fractal_ifs.training``; "24 runs" rows train four fractals x six curves.
"""

import argparse
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from fractal_ifs.config import Job, compose
from fractal_ifs.data import fractal_points
from fractal_ifs.models import MLP
from fractal_ifs.seeds import permutation
from fractal_ifs.training import cores, train

BATCH = 100


class Plain(pl.LightningModule):
    """What a newcomer to Lightning writes."""

    def __init__(self, width: int):
        super().__init__()
        self.model = MLP(2, width, 5)

    def training_step(self, batch, _):
        x, y = batch
        loss = (1 - y * self.model(x)).relu().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-4)


def plain_lightning(width: int, points, steps: int) -> float:
    loader = DataLoader(TensorDataset(points.x_train, points.y_train), BATCH, shuffle=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=CSVLogger(folder),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        begun = time.perf_counter()
        trainer.fit(Plain(width), loader)
        return (time.perf_counter() - begun) / steps


def bare_loop(width: int, points, steps: int) -> float:
    model = MLP(2, width, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)
    n = len(points.y_train)
    order = torch.empty(0)
    begun = time.perf_counter()
    for step in range(steps):
        at = step % (n // BATCH)
        if at == 0:
            order = torch.from_numpy(permutation(0, step // (n // BATCH), n))
        rows = order[at * BATCH : (at + 1) * BATCH]
        loss = (1 - points.y_train[rows] * model(points.x_train[rows])).relu().mean()
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - begun) / steps


def ours(width: int, engine: str, grid: bool, steps: int) -> float:
    """Whole runs through the platform's training: evaluation, records and checkpoints in a directory of their own."""
    fractals = ("sierpinsky", "cantor2d", "pentaflake", "vicsek") if grid else ("cantor2d",)
    keys = {"width": width, "steps": steps, "eval_every": min(steps, 10_000), "engine": engine, "logger": "csv"}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(to_dict(compose(fractal=fractal, curve=curve, **keys)), Path(folder, f"{fractal}{curve}"))
            for fractal in fractals
            for curve in (range(1, 7) if grid else (1,))
        ]
        keep = [fractal_points(j.config["fractal"], j.config["curve"], j.config["data"], 0) for j in jobs]
        begun = time.perf_counter()
        train(jobs, threads=cores() if grid else 1)
        del keep
        return (time.perf_counter() - begun) / steps / len(jobs)


def to_dict(config) -> dict:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    default = to_dict(compose())
    points = fractal_points(default["fractal"], default["curve"], default["data"], 0)
    table = {}
    for width in arguments.widths:
        fast = max(2_000, 1_000_000 // width)
        rows = {
            "plain Lightning": lambda w=width: plain_lightning(w, points, 500),
            "bare loop, fused Adam, 1 thread": lambda w=width: bare_loop(w, points, 2_000),
            "engine=torch, single": lambda w=width: ours(w, "torch", False, 4_000),
            "engine=native, single, 1 thread": lambda w=width, f=fast: ours(w, "native", False, f),
            "engine=torch, 24 runs, 1 process": lambda w=width: ours(w, "torch", True, 1_000),
            f"engine=native, 24 runs, {cores()} threads": lambda w=width, f=fast: ours(w, "native", True, f // 4),
        }
        seconds = {name: [] for name in rows}
        for row in rows.values():  # warm-up
            row()
        for _ in range(arguments.repeats):
            for name, row in rows.items():
                seconds[name].append(row())
        table[width] = {name: 1e6 * statistics.median(values) for name, values in seconds.items()}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    print(f"{cpu}, {cores()} cores, Python {platform.python_version()}, torch {torch.__version__},")
    print(
        f"Lightning {version('pytorch-lightning')}, numpy {numpy.__version__}; load {os.getloadavg()[0]:.1f}; ", end=""
    )
    print(f"median of {arguments.repeats}; microseconds per network-step (times faster than plain Lightning)\n")
    print("| width | " + " | ".join(map(str, arguments.widths)) + " |")
    print("|---|" + "---|" * len(arguments.widths))
    for name in table[arguments.widths[0]]:
        cells = [
            f"{table[w][name]:.1f} ({table[w]['plain Lightning'] / table[w][name]:.1f}x)" for w in arguments.widths
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
