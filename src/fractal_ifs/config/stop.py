"""The config group ``stop``: what ends a run before its last step. The paper's protocol has nothing of the kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fractal_ifs.config.keys import Group, key


@dataclass(frozen=True, kw_only=True)
class Stop(Group):
    """The keys of conf/stop/never.yaml."""

    PREFIX: ClassVar[str] = "stop."

    accuracy: float | None = key(
        "end at the first measurement with at least this accuracy, test_acc or what objective says",
        above=0,
        most=1,
        later=None,
    )
    patience: int | None = key(
        "end after so many measurements in a row without a new best", least=1, most=10**9, later=None
    )

    def given(self) -> str | None:
        """A key that may end a run, with its value: ``stop.accuracy=0.99``. None where nothing does."""
        return next((f"{self.PREFIX}{name}={value}" for name, value in self.identity().items()), None)
