"""What ``engine=lightning`` costs beside Lightning itself:

    python benchmarks/lightning.py [--widths 20 100] [--repeats 5]

Microseconds of the processor per step of one network at depth 5, batch 100, Adam, hinge loss, on one thread: a fit of
``--steps`` steps less one of a tenth of them, divided by the difference, so that what begins and ends a fit isn't
counted. Every figure is the median of the repeats, which visit the rows in turn. The rows:

loader    a plain LightningModule and the DataLoader that one writes for it: a TensorDataset, shuffled (``plain.py``)
plain     the same module with our ``FractalDataModule``, whose batches are one gather
library   ``fractal_ifs.Classifier`` with it
engine    engine=lightning: the same under our record, history and checkpoints
"""

import argparse
import logging
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from plain import Plain
from steps import commit, found, processor
from torch.utils.data import DataLoader, TensorDataset

from fractal_ifs import MLP, Classifier, FractalDataModule
from fractal_ifs.config.compose import compose
from fractal_ifs.config.run import Job
from fractal_ifs.training.train import train

ROWS = ("loader", "plain", "library", "engine")
DATA = FractalDataModule("cantor2d", curve=1)


def fit(module: pl.LightningModule, data: Any, test: Any, steps: int, clock: Any = time.process_time) -> float:
    """Seconds that a fit takes, of the processor unless another clock is given."""
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        val_check_interval=10_000,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    begun = clock()
    trainer.fit(module, data, test)
    return clock() - begun


def loader(width: int, steps: int) -> float:
    assert DATA.points is not None
    data = TensorDataset(DATA.points.x_train, DATA.points.y_train)
    return fit(Plain(width), DataLoader(data, 100, shuffle=True), DATA.val_dataloader(), steps)


def plain(width: int, steps: int) -> float:
    return fit(Plain(width), DATA.train_dataloader(), DATA.val_dataloader(), steps)


def library(width: int, steps: int) -> float:
    return fit(Classifier(MLP(2, width, 5), lr=5e-4), DATA.train_dataloader(), DATA.val_dataloader(), steps)


def engine(width: int, steps: int) -> float:
    job = Job(compose(engine="lightning", width=width, steps=steps, logger="none"), None)
    begun = time.process_time()
    [ended] = train([job])
    if isinstance(ended, Exception):
        raise ended
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    DATA.setup()
    calls: dict[str, Callable[[int, int], float]] = {row: partial(globals()[row]) for row in ROWS}
    few, many = arguments.steps // 10, arguments.steps
    cells: dict[tuple[str, int], list[float]] = {(row, width): [] for row in ROWS for width in arguments.widths}
    for row in ROWS:  # warm-up
        calls[row](arguments.widths[0], few)
    for repeat in range(arguments.repeats):
        for (row, width), values in cells.items():
            values.append(1e6 * (calls[row](width, many) - calls[row](width, few)) / (many - few))
        print(f"repeat {repeat + 1} of {arguments.repeats}", file=sys.stderr)
    table = {key: statistics.median(values) for key, values in cells.items()}
    print(f"{processor()}, one thread, Python {platform.python_version()},", end=" ")
    print(", ".join(f"{name} {found(name)}" for name in ("torch", "pytorch-lightning")) + f", {commit()}.")
    print(f"Medians of {arguments.repeats}; microseconds per step (times the row plain).\n")
    print("| | " + " | ".join(f"width {width}" for width in arguments.widths) + " |")
    print("|---|" + "---|" * len(arguments.widths))
    for row in ROWS:
        texts = [f"{table[row, w]:.0f} ({table[row, w] / table['plain', w]:.2f})" for w in arguments.widths]
        print(f"| {row} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
