"""Images per second of a CNN's training, side by side: ours against a plain Lightning module with a DataLoader.

    python benchmarks/cifar.py [--depth 3] [--width 32] [--steps 200] [--repeats 5] [--networks]

Batch 128, Adam, images of noise (what is in them doesn't change the time). "plain Lightning": a DataLoader with 2
workers whose data set crops, flips, brightens, contrasts and standardises one image after the other; torch's own number
of threads. "one run": ``training.train`` in this process, on one thread and on all cores. "a sweep": as many runs
as there are cores, a process each, as ``train -m`` packs them. Medians of the repeats, which visit the rows in turn;
imports, start of processes, reading of files and warm-up are not counted in ours, the start of workers is not in plain
Lightning's. "input pipeline": the share of a step of ours that makes its batch. ``--networks`` instead prints
milliseconds per step of all 25 networks of Figure 7, one thread.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from fractal_ifs.config.compose import compose
from fractal_ifs.config.data import ImageData
from fractal_ifs.config.machine import cores
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data import cifar10, images
from fractal_ifs.engines.conv import ConvEngine
from fractal_ifs.networks.convnet import ConvNet
from fractal_ifs.runs.run import Run

BATCH = 128


class PerImage(Dataset):
    """What a newcomer writes: the tutorial's pipeline for one image."""

    def __init__(self, data: ImageData):
        arrays = cifar10.load(data)
        self.x, self.y = torch.from_numpy(arrays.x_train.copy()), torch.from_numpy(arrays.y_train)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int):
        top, left = torch.randint(0, 9, (2,)).tolist()
        x = self.x[i, :, top : top + 24, left : left + 24].float()
        if torch.rand(()) < 0.5:
            x = x.flip(-1)
        x = x + (2 * torch.rand(()) - 1) * 63
        mean = x.mean((1, 2), keepdim=True)
        x = (x - mean) * (0.2 + 1.6 * torch.rand(())) + mean
        return (x - x.mean()) / x.std(correction=0).clamp(min=x.numel() ** -0.5), self.y[i]


class Plain(pl.LightningModule):
    def __init__(self, depth: int, width: int):
        super().__init__()
        self.model, self.times = ConvNet(depth, width), []

    def training_step(self, batch, _):
        self.times.append(time.perf_counter())
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def plain_lightning(depth: int, width: int, folder: Path, steps: int) -> float:
    """Images per second from the twentieth step on."""
    module, data = Plain(depth, width), images_of(config(depth, width, folder, steps))
    loader = DataLoader(PerImage(data), BATCH, shuffle=True, num_workers=2, drop_last=True)
    trainer = pl.Trainer(
        max_steps=steps + 20,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, loader)
    return BATCH * (len(module.times) - 20) / (module.times[-1] - module.times[19])


def config(depth: int, width: int, folder: Path, steps: int) -> RunConfig:
    keys = {"data": "cifar10", "model": "cnn", "data.dir": str(folder), "data.verify": False, "depth": depth}
    keys |= {"width": width, "steps": steps, "eval_every": 100_000, "logger": "none"}
    return compose(**keys)


def images_of(config: RunConfig) -> ImageData:
    assert isinstance(config.data, ImageData)
    return config.data


def ours(depth: int, width: int, folder: Path, steps: int, threads: int = 1) -> tuple[float, float]:
    """Images per second of the engine, and the share of the input pipeline."""
    torch.set_num_threads(threads)
    run, engine = Run(config(depth, width, folder, steps + 100), None), ConvEngine()
    engine.advance([run], [min(20, steps // 2)], [])
    begun, first = time.perf_counter(), run.step
    while run.step - first < steps:
        engine.advance([run], [steps - (run.step - first)], [])
    whole = time.perf_counter() - begun
    batches = images.Batches(run.data, images_of(run.config), 0, BATCH)
    begun = time.perf_counter()
    for x, _ in batches(0, steps):
        x.contiguous(memory_format=torch.channels_last)
    return BATCH * steps / whole, (time.perf_counter() - begun) / whole


def _worker(arguments: tuple) -> float:
    return ours(*arguments)[0]


def sweep(depth: int, width: int, folder: Path, steps: int) -> float:
    """Images per second of as many runs as there are cores, together."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(cores()) as pool:
        return sum(pool.map(_worker, [(depth, width, folder, steps)] * cores(), chunksize=1))


def write_noise(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in [*cifar10.BATCHES, "test_batch"]:
        records = rng.integers(0, 256, (10_000, 1 + cifar10.PIXELS), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_noise(folder)
        if asked.networks:
            networks(folder, asked.repeats)
            return
        network, default, share = (asked.depth, asked.width, folder, asked.steps), torch.get_num_threads(), []

        def one_run(threads: int) -> float:
            rate, part = ours(*network, threads=threads)
            share.append(part)
            torch.set_num_threads(default)
            return rate

        rows = {
            "plain Lightning, 2 DataLoader workers": lambda: plain_lightning(*network),
            "one run, one thread": lambda: one_run(1),
            f"one run, trainer.threads={cores()}": lambda: one_run(cores()),
            f"a sweep, {cores()} processes": lambda: sweep(*network),
        }
        rates: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(asked.repeats):
            for name, row in rows.items():
                rates[name].append(row())
    plain = statistics.median(rates["plain Lightning, 2 DataLoader workers"])
    print(f"depth {asked.depth}, width {asked.width}, {cores()} cores, torch {torch.__version__}; images per second\n")
    print("| | images/s | times plain |\n|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {statistics.median(values) / plain:.2f} |")
    print(f"\ninput pipeline: {statistics.median(share[::2]):.1%} of a step on one thread")


def networks(folder: Path, repeats: int) -> None:
    widths = (8, 16, 32, 64, 128)
    print("| depth | " + " | ".join(map(str, widths)) + " |\n|---" + "|---" * len(widths) + "|")
    for depth in range(1, 6):
        cells = []
        for width in widths:
            steps = max(5, 1600 // width)
            rate = statistics.median(ours(depth, width, folder, steps)[0] for _ in range(repeats))
            cells.append(f"{1000 * BATCH / rate:.1f}")
        print(f"| {depth} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
