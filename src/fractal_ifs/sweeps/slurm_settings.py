"""The keys of conf/hydra/launcher/slurm.yaml, checked when the launcher is made. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fractal_ifs.config.keys import Group, key
from fractal_ifs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """The keys of conf/hydra/launcher/slurm.yaml. That file explains them."""

    PREFIX: ClassVar[str] = "hydra.launcher."

    partition: str | int | None = key("Slurm's partition")
    account: str | int | None = key("whom Slurm charges")
    constraint: str | int | None = key("what a node must have")
    time: int = key("minutes of a task at most", least=1)
    cpus: int = key("cores of a task", least=1)
    gpus: int = key("GPUs of a task", least=0)
    memory: float | None = key("GB of a task", above=0, allowed="a number of GB > 0")
    tasks: int = key("tasks that share the jobs", least=1)
    array_parallelism: int = key("tasks that run at a time", least=1)
    requeues: int = key("times that a task is requeued", least=0)
    warning: int = key("seconds before the time limit in which a task checkpoints", least=1)
    setup: tuple[str, ...] = key("lines of shell before a task", empty=True)
    more: Mapping[str, Any] = key("other options of sbatch")
    wait: bool = key("wait for the array's end")
    stack: int = key("runs in a stack at most; 0: as many as suit", least=0)

    def check(self) -> None:
        """Raises ConfigError where the warning would come before the task starts."""
        if self.warning >= 60 * self.time:
            raise ConfigError(f"hydra.launcher.warning={self.warning}: must be less than the {self.time} minutes asked")
