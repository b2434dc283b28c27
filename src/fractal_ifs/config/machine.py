"""What this machine has, and whether that is enough for a run. Imports torch only when it has to look for a GPU."""

from __future__ import annotations

import math
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from fractal_ifs.config import environment
from fractal_ifs.config.data import A_DIRECTORY, ImageData
from fractal_ifs.config.keys import shown
from fractal_ifs.config.logger import WandbLogger
from fractal_ifs.config.model import OwnModel
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, short

MOST_CNNS = 4  # that train at once on a GPU unless ``workers`` says otherwise
CONTEXT = 1 << 30  # bytes of a process on a GPU: CUDA's context, its kernels, workspaces of cuBLAS and cuDNN


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its container or Slurm grants.

    Raises ConfigError where Slurm's variable isn't a number.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A part of a core counts as one, so that all of the container's share is used.
    return math.ceil(min(bound, _quota(), environment.slurm_cpus() or bound))


def _quota(system: Path = Path("/")) -> float:
    """The cores that this process's control groups allow it, as those of a container do; infinite without a limit.

    ``system`` is the root of the file system.
    """
    try:
        groups = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    allowed = math.inf
    for line in groups:  # NUMBER:CONTROLLERS:PATH, without controllers in version 2
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = system / "sys/fs/cgroup" / controllers
        group = top / path.lstrip("/")
        # A container may see the path that its group has outside, where there is nothing: then the top is its own.
        for folder in (group, *group.parents):
            if top in (folder, *folder.parents):
                allowed = min(allowed, _limit(folder))
    return allowed


def _limit(group: Path) -> float:
    """The cores that a control group allows itself."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()  # version 2
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max" and -1: no limit
        return math.inf


def gpus() -> list[str]:
    """The GPUs, or parts of one (MIG), that this process may use, as written in CUDA_VISIBLE_DEVICES.

    Of parts CUDA shows a process only one, so the variable alone tells how many there are. A wrong name in it is that
    of a GPU that doesn't work, which its worker finds out.
    """
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        names = [name.strip() for name in visible.split(",")]
        end = next((n for n, name in enumerate(names) if name in ("-1", "NoDevFiles")), len(names))
        return names[:end]  # as CUDA does; Slurm says NoDevFiles to a job without a GPU
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def cnns_of_a_gpu(config: RunConfig) -> int:
    """How many runs of a CNN like this one train at once on each GPU here, one in a process: at least one.

    Each has a core of its own, which launches its kernels, and its share of the GPU's memory: ``CONTEXT``, and three
    times the lower bound of what the run needs. More than ``MOST_CNNS`` are for the key ``workers`` to ask for.
    """
    needed = CONTEXT + 3 * sum(_needed(config).values())
    return max(1, min(MOST_CNNS, cores() // max(1, len(gpus())), gpu_memory() // needed))


@lru_cache
def gpu_memory() -> int:
    """The bytes of the smallest GPU that PyTorch finds here; 0 where none says. Makes no context on it."""
    import torch

    cuda: Any = torch.cuda  # torch doesn't declare the type of what it tells
    try:
        return min(cuda.get_device_properties(n).total_memory for n in range(cuda.device_count()))
    except (RuntimeError, AssertionError, ValueError):  # it doesn't work, which a worker finds out; or there is none
        return 0


def _needed(config: RunConfig) -> dict[str, int]:
    """Lower bounds in bytes of a run's weights and moments, its points, and one batch, by the keys that say how many.

    A weight has 4 numbers of 4 bytes (value, gradient, Adam's two moments).
    """
    width, depth, batch, data = config.width, config.depth, config.batch_size, config.data
    rows = data.train_size + data.test_size + data.val_size
    if isinstance(data, ImageData):
        weights = 16 * 25 * width**2 * (depth - 1) + 32 * width
        points, activations = 4 * data.crop**2 * rows, 12 * batch * width * data.crop**2
    else:
        weights = 0 if isinstance(config.model, OwnModel) else 16 * width**2 * (depth - 1) + 32 * width
        points, activations = 12 * rows, 8 * batch * width * depth
    return {
        f"width={width}, depth={depth}": weights,
        f"data.train_size={data.train_size}, data.test_size={data.test_size}, data.val_size={data.val_size}": points,
        f"batch_size={batch}, width={width}": activations,
    }


def check_memory(config: RunConfig) -> None:
    """Raises ConfigError if this machine can't hold the run's weights and moments, its points, or one batch."""
    here = _memory()
    for asked, bytes_needed in _needed(config).items():
        if bytes_needed > here:
            raise ConfigError(f"{asked}: needs {bytes_needed >> 30} GiB of memory, this machine has {here >> 30}")


def _memory() -> int:
    """This machine's memory in bytes; 2^63 if the system doesn't say."""
    if not hasattr(os, "sysconf"):
        return 2**63
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@lru_cache
def check_gpus(devices: int) -> None:
    """Raises ConfigError if this machine has fewer than ``devices`` GPUs."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: there is no GPU here that PyTorch can use; trainer=cpu is")
    if (there := torch.cuda.device_count()) < devices:
        raise ConfigError(f"trainer.devices={devices}: must be at most {there}, the GPUs here")


def on_this_machine(job: Job) -> Job:
    """The job with ``trainer.accelerator=auto`` replaced by what this machine has: ``gpu`` or ``cpu``."""
    if job.config.trainer.accelerator != "auto":
        return job
    import torch

    return job._replace(config=job.config.on("gpu" if torch.cuda.is_available() else "cpu"))


def is_path(text: str) -> bool:
    """Whether a text can be the path of a file or directory: not empty, on one line, no name in it too long."""
    return bool(text.strip()) and text.isprintable() and all(len(os.fsencode(name)) < 256 for name in text.split("/"))


def obstacle(directory: Path) -> str | None:
    """Why a directory can't be made or written, as the end of a sentence. None if it can. Makes nothing."""
    there = directory.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not os.path.isdir(there):
        return f"{there} is a file" if os.path.exists(there) else f"{there} is a broken link"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} can't be written"


def check_outside(config: RunConfig, directory: Path | None) -> None:
    """Raises ConfigError if what a run needs besides its config is missing or bad: a directory, W&B's mode.

    ``directory`` is the run's own.
    """
    if isinstance(config.data, ImageData) and config.data.dir is not None:
        _check_images(str(Path(config.data.dir).expanduser().absolute()), config.data.dir)
    if isinstance(config.logger, WandbLogger) and config.logger.mode is None:
        environment.wandb_mode()
    if config.continue_from and not os.path.isdir(config.continue_from):
        raise ConfigError(f"continue_from={shown(config.continue_from)}: must be a directory with finished runs")
    source = Path(config.continue_from)
    if config.continue_from and config.overwrite and directory and source.resolve() == directory.resolve():
        raise ConfigError(discarding(config, directory))


def discarding(config: RunConfig, source: Path) -> str:
    """What is told of a run that would begin at the end of one that ``overwrite=true`` discards before."""
    return (
        f"continue_from={shown(config.continue_from)}: overwrite=true would discard the run in {short(source, 200)} "
        "before another begins at its end; give that another directory"
    )


@lru_cache
def check_table(path: Path, asked: str) -> None:
    """Raises ConfigError if no table can be at an absolute path. ``asked`` is what the message begins with.

    A table that is there may be read-only: it is read all the same.
    """
    if not is_path(str(path)) or (os.path.exists(path) and not os.path.isfile(path)):
        raise ConfigError(f"{asked}: must be the path of a CSV file, {short(path, 200)} is none")
    if not os.path.isdir(path.parent):
        raise ConfigError(f"{asked}: must be the path of a CSV file, there is no directory {short(path.parent, 200)}")
    if not os.path.exists(path) and not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{asked}: must be the path of a CSV file, {short(path.parent, 200)} can't be written")


@lru_cache
def _check_images(path: str, asked: str) -> None:
    """Raises ConfigError unless images can be in a directory: it is there, or can be made in one that is."""
    there = path if os.path.lexists(path) else os.path.dirname(path)
    if not is_path(path) or not os.path.isdir(there):
        raise ConfigError(f"data.dir={shown(asked)}: must be {A_DIRECTORY}; {short(there, 200)} is none")
    if not os.access(there, os.R_OK | os.X_OK):
        raise ConfigError(f"data.dir={shown(asked)}: must be {A_DIRECTORY}; {short(there, 200)} can't be read")


def check_writable(directory: Path, bytes_needed: int = 50_000_000) -> None:
    """Make the output directory. Raises ConfigError if it can't be made or written, or its disk is nearly full."""
    if reason := obstacle(directory):
        raise ConfigError(f"output directory {directory}: {reason}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output directory {directory}: can't be made ({error.strerror})") from None
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"output directory {directory}: can't be written")
    if (free := shutil.disk_usage(directory).free) < bytes_needed:
        raise ConfigError(
            f"output directory {directory}: {free >> 20} MiB of free disk, at least {bytes_needed >> 20} are needed"
        )
