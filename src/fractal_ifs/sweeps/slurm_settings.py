"""The keys of conf/hydra/launcher/slurm.yaml, checked when the launcher is made. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fractal_ifs.config.keys import Group, key, shown
from fractal_ifs.errors import ConfigError, short

A_WORD = "a word without blanks, as in sbatch's own option"
OPTIONS = "keys with values that are text, numbers, true or false"


@dataclass(frozen=True, kw_only=True)
class SlurmSettings(Group):
    """The keys of conf/hydra/launcher/slurm.yaml. That file explains them."""

    PREFIX: ClassVar[str] = "hydra.launcher."

    partition: str | int | None = key("Slurm's partition", allowed=A_WORD)
    account: str | int | None = key("whom Slurm charges", allowed=A_WORD)
    constraint: str | int | None = key("what a node must have", allowed=A_WORD)
    time: int = key("minutes of a task at most", least=1, most=10**6)
    cpus: int = key("cores of a task", least=1, most=4096)
    gpus: int = key("GPUs of a task", least=0, most=1024)
    memory: float | None = key("GB of a task", least=0.001, most=1e6, allowed="a number of GB >= 0.001 and <= 1e6")
    tasks: int = key("tasks that share the jobs", least=1, most=10**6)
    array_parallelism: int = key("tasks that run at a time", least=1, most=10**6)
    requeues: int = key("times that a task is requeued", least=0, most=10**6)
    warning: int = key("seconds before the time limit in which a task checkpoints", least=1)
    setup: tuple[str, ...] = key("lines of shell before a task", empty=True)
    more: Mapping[str, Any] = key("other options of sbatch", allowed=OPTIONS)
    wait: bool = key("wait for the array's end")
    stack: int = key("runs in a stack at most; 0: as many as suit", least=0, most=10**6)

    def check(self) -> None:
        """Raises ConfigError for what sbatch can't read, and where the warning would come before the task starts."""
        for name in ("partition", "account", "constraint"):
            value = getattr(self, name)
            if value is not None and not _is_word(str(value)):
                raise ConfigError(f"hydra.launcher.{name}={shown(value)}: must be {A_WORD}, or null")
        for name, value in self.more.items():
            if not (isinstance(name, str) and _is_word(name) and isinstance(value, str | int | float)):
                raise ConfigError(f"hydra.launcher.more.{short(name)}={shown(value)}: must be {OPTIONS}")
        if self.warning >= 60 * self.time:
            raise ConfigError(
                f"hydra.launcher.warning={shown(self.warning)}: must be less than the {self.time} minutes asked"
            )


def _is_word(text: str) -> bool:
    """Whether sbatch reads a text as one value: another line, or a blank, would end it."""
    return text.isprintable() and 0 < len(text) <= 1000 and not any(letter.isspace() for letter in text)
